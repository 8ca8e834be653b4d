package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// maxSocketPath is the room in sockaddr_un (unix(7)) less the final NUL and the
// character that the temporary name adds.
const maxSocketPath = 106

// listen gives the inherited socket or makes one. The database lock is held, so
// a socket that is there is nobody's.
func (d *Daemon) listen() (net.Listener, error) {
	if l := d.opts.Inherited; l != nil {
		if ul, ok := l.(*net.UnixListener); ok {
			ul.SetUnlinkOnClose(false)
		}
		return l, nil
	}
	gid, err := groupID(d.opts.Group)
	if err != nil {
		return nil, err
	}
	return listenUnix(filepath.Join(d.opts.StateDir, SocketName), gid)
}

// groupID looks a group up; -1 for none.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, api.Errorf(api.Invalid, "group %q for the socket: %w", name, err).WithHint("groupadd --system %s", name)
	}
	return strconv.Atoi(g.Gid)
}

// listenUnix makes a socket that its owner and a group may use. It gets its
// rights under another name before it takes its place, so that nobody else can
// ever connect.
func listenUnix(path string, gid int) (*net.UnixListener, error) {
	if len(path) > maxSocketPath {
		return nil, api.Errorf(api.Invalid, "socket path %s has %d characters, the system allows %d", path, len(path), maxSocketPath).
			WithHint("set CROFT_DIR to a shorter path")
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != fs.ModeSocket {
		return nil, api.Errorf(api.Conflict, "%s is in the way: it is not a socket", path)
	}
	tmp := path + "~"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	umask := unix.Umask(0o177) // connecting takes the right to write
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	unix.Umask(umask)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // it would unlink the temporary name
	err = os.Chmod(tmp, 0o600)
	if gid >= 0 {
		err = errors.Join(os.Chown(tmp, -1, gid), os.Chmod(tmp, 0o660))
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, fmt.Errorf("make socket: %w", err)
	}
	return l, nil
}

// closeListener closes the socket and unlinks it, unless it was inherited.
func (d *Daemon) closeListener() error {
	err := d.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // Serve has closed it
	}
	if d.opts.Inherited == nil {
		err = errors.Join(err, os.Remove(filepath.Join(d.opts.StateDir, SocketName)))
	}
	return err
}
