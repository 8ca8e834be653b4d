package instance

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
)

// logName is what log files are called. Anything else in the directory, and
// anything outside it, cannot be named.
var logName = regexp.MustCompile(`^(lxc\.log|lxc\.conf|console\.log|exec_[0-9a-f-]{36}\.(stdout|stderr))$`)

// consoleLog is a log with an endpoint of its own, left out of the list.
const consoleLog = "console.log"

// Logs lists the log files of an instance.
func (e *Engine) Logs(ctx context.Context, project, name string) ([]string, error) {
	if _, err := e.load(ctx, project, name, false); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(e.path("logs", model.DirName(project, name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := []string{}
	for _, entry := range entries {
		if entry.Name() != consoleLog && logName.MatchString(entry.Name()) {
			out = append(out, entry.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// OpenLog opens a log file for reading.
func (e *Engine) OpenLog(ctx context.Context, project, name, file string) (*os.File, error) {
	dir, err := e.logDir(ctx, project, name, file)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := linux.OpenBeneath(dir, file, unix.O_RDONLY, 0)
	if err != nil {
		return nil, logError(name, file, err)
	}
	return f, nil
}

// DeleteLog removes the output that a command left. The logs of the runtime stay
// as long as the instance does.
func (e *Engine) DeleteLog(ctx context.Context, project, name, file string) error {
	dir, err := e.logDir(ctx, project, name, file)
	if err != nil {
		return err
	}
	defer dir.Close()
	if file[0] != 'e' {
		return api.Errorf(api.Invalid, "log %q of instance %s is in use and cannot be deleted; allowed are recorded outputs (exec_*)", file, name)
	}
	if err := unix.Unlinkat(int(dir.Fd()), file, 0); err != nil {
		return logError(name, file, err)
	}
	return nil
}

func (e *Engine) logDir(ctx context.Context, project, name, file string) (*os.File, error) {
	if _, err := e.load(ctx, project, name, false); err != nil {
		return nil, err
	}
	if !logName.MatchString(file) {
		return nil, api.Errorf(api.Invalid, "log %q is not a log of an instance; allowed are lxc.log, lxc.conf, console.log and exec_UUID.stdout and .stderr", file)
	}
	dir, err := os.Open(e.path("logs", model.DirName(project, name)))
	if err != nil {
		return nil, logError(name, file, err)
	}
	return dir, nil
}

func logError(name, file string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return api.Errorf(api.NotFound, "instance %s has no log %q", name, file)
	}
	return err
}
