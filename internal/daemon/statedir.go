package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

// The database, in a directory that LXD does not use.
const (
	dbDir     = "db"
	dbFile    = "croft.db"
	dbBackups = 3
)

// SocketName is the API's socket in the state directory.
const SocketName = "unix.socket"

// signsOfLXD are what an LXD server leaves in its state directory.
var signsOfLXD = []string{"database", "lxd.db", "raft"}

// prepareDir makes the state directory, and refuses one that is not ours.
func prepareDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return api.Errorf(api.Invalid, "state directory %q is not an absolute path", dir)
	}
	for _, name := range signsOfLXD {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return api.Errorf(api.Conflict, "directory %s belongs to an LXD server: it has %q in it", dir, name).
				WithHint("set CROFT_DIR to another directory")
		}
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	// Others may pass through, to instances' directories that are open to them,
	// and not look around; whatever the umask was.
	return kindOr(api.Internal, "state directory", os.Chmod(dir, 0o711))
}

// layout is the state directory. Names that scripts look for are LXD's.
var layout = []struct {
	name string
	mode fs.FileMode
}{
	{"containers", 0o711},    // links to the instances' directories in the pools
	{"snapshots", 0o711},     //
	{"devices", 0o711},       // device nodes and sockets of instances
	{"storage-pools", 0o711}, //
	{"images", 0o700},        //
	{"uploads", 0o700},       // half-received images
	{"logs", 0o700},          //
	{"sessions", 0o700},      // sockets of exec sessions
	{"run", 0o700},           // what a restart of the daemon may forget
	{"run/stage", 0o711},     // an empty directory to mount stopped instances on
	{probeDir, 0o700},        // what the kernel can do is tried there; emptied at start
	{"run/bin", 0o755},       // stays empty: the search path of liblxc's helper
}

const probeDir = "run/probe"

func makeDirs(ctx context.Context, state string) error {
	// A daemon that was killed while it tried things has left some.
	if err := linux.RemoveAll(ctx, filepath.Join(state, probeDir)); err != nil {
		return fmt.Errorf("empty %s: %w", probeDir, err)
	}
	for _, d := range layout {
		path := filepath.Join(state, d.name)
		if err := os.Mkdir(path, d.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make state directory: %w", err)
		}
		if err := os.Chmod(path, d.mode); err != nil { // whatever the umask was
			return fmt.Errorf("make state directory: %w", err)
		}
	}
	return nil
}
