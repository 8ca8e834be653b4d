package lxc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

// Runtime starts containers and exec sessions. Its fields are set once.
type Runtime struct {
	Exe     string // the croftd binary, which holds the helpers
	LXCPath string // directory that names this daemon's containers to liblxc; every user must be able to pass through it and its parents
	BinDir  string // PATH of the start helper: no newuidmap in it, or liblxc would be bound by /etc/subuid
}

// Pids are the two processes that a running container stands on.
type Pids struct {
	Init    linux.Process
	Monitor linux.Process // liblxc's process on the host, parent of init
	BootID  string
}

// ParsePids reads the line that the start helper leaves in its pid file.
func ParsePids(line string) (Pids, error) {
	var p Pids
	n, err := fmt.Sscanf(line, "%d %d %d %d %s", &p.Init.PID, &p.Init.Start, &p.Monitor.PID, &p.Monitor.Start, &p.BootID)
	if err != nil || n != 5 || p.Init.PID <= 1 || p.Monitor.PID <= 1 {
		return Pids{}, fmt.Errorf("malformed record of a container's processes: %q", line)
	}
	return p, nil
}

// StartRequest is what [Runtime.Start] needs.
type StartRequest struct {
	Name    string
	Conf    string       // file with the text of [Render]
	PidFile string       // where the helper records the container's processes
	LogFile string       // liblxc's log, read for the reason of a failure
	Lock    *os.File     // held by the helper until the outcome is recorded
	Stage   func() error // mounts the root file system in the helper's mount namespace
	Keep    []string     // host mounts that the namespace keeps, see linux.DetachHostMounts
}

// Start runs the start helper in a mount namespace of its own, prepared by
// r.Stage, and returns when init runs. The helper is not bound to ctx: once it
// is under way it ends by itself, with the container running or not.
//
// Errors: Internal with the last words of liblxc's log.
func (r *Runtime) Start(ctx context.Context, req StartRequest) (Pids, error) {
	report, w, err := os.Pipe()
	if err != nil {
		return Pids{}, err
	}
	defer report.Close()
	if err := os.Remove(req.LogFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Close()
		return Pids{}, err
	}
	cmd := exec.Command(r.Exe, "forkstart", r.LXCPath, req.Name, req.Conf, req.PidFile)
	cmd.Env = []string{"PATH=" + r.BinDir}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{w, req.Lock}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &limited{w: &stderr, left: 4096}
	err = linux.PrivateNS(ctx, func() error {
		if err := req.Stage(); err != nil {
			return err
		}
		if err := linux.DetachHostMounts(req.Keep); err != nil {
			return err
		}
		return cmd.Start()
	})
	w.Close()
	if err != nil {
		return Pids{}, fmt.Errorf("prepare the mounts of %s: %w", req.Name, err)
	}
	line, readErr := bufio.NewReader(report).ReadString('\n')
	waitErr := cmd.Wait()
	if reason, failed := strings.CutPrefix(line, "F"); failed || waitErr != nil || readErr != nil {
		return Pids{}, startError(reason, req.LogFile, stderr.String())
	}
	return ParsePids(line)
}

// startError makes an error out of what the helper said and liblxc logged.
func startError(reason, logFile, stderr string) error {
	if reason == "" {
		reason = "the start helper ended without a word"
	}
	if last := LastErrors(logFile, 3); last != "" {
		reason += ": " + last
	} else if s := strings.TrimSpace(stderr); s != "" {
		reason += ": " + s
	}
	return api.Errorf(api.Internal, "%s", reason)
}

// LastErrors extracts the messages of the last n ERROR lines of a liblxc log.
func LastErrors(logFile string, n int) string {
	data, err := os.ReadFile(logFile)
	if err != nil {
		return ""
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		// lxc NAME TIMESTAMP ERROR  module - file:function:line - text
		if !strings.Contains(line, " ERROR ") {
			continue
		}
		if i := strings.LastIndex(line, " - "); i >= 0 {
			out = append(out, strings.TrimSpace(line[i+3:]))
		}
	}
	if len(out) == 0 {
		return ""
	}
	// The first error is the cause, what follows are its consequences.
	return strings.Join(out[:min(n, len(out))], "; ")
}

// RemoveLock deletes the lock file that liblxc leaves behind for each container
// it ever opened.
func (r *Runtime) RemoveLock(name string) {
	dir := filepath.Join("/run/lxc/lock", r.LXCPath)
	_ = os.Remove(filepath.Join(dir, "."+name))
	for d := dir; d != "/run/lxc/lock" && len(d) > len("/run/lxc/lock"); d = filepath.Dir(d) {
		if os.Remove(d) != nil {
			return
		}
	}
}

type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > l.left {
		p = p[:l.left]
	}
	l.left -= len(p)
	_, err := l.w.Write(p)
	return n, err
}
