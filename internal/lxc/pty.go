package lxc

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// NewTerminal opens a terminal in the devpts of the container whose init is
// given, so that its name makes sense inside, and gives it to the host ids uid
// and gid. Nothing enters the container: the multiplexer is opened through
// init's root, and both ends are checked to be what they claim, since the
// container decides what lies at that path.
func NewTerminal(init int, uid, gid int, width, height int) (*Stdio, error) {
	root, err := unix.Open("/proc/"+strconv.Itoa(init)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	how := unix.OpenHow{
		Flags:   unix.O_RDWR | unix.O_NOCTTY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(root, "dev/pts/ptmx", &how)
	if err != nil {
		return nil, api.Errorf(api.BadState, "open a terminal in the container: %w", err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	slave, err := openPeer(fd)
	if err != nil {
		master.Close()
		return nil, err
	}
	s := &Stdio{Inner: [3]*os.File{slave, slave, slave}, Outer: []*os.File{master}, TTY: true}
	if err := unix.Fchown(int(slave.Fd()), uid, gid); err != nil {
		s.Close()
		return nil, fmt.Errorf("give the terminal to its user: %w", err)
	}
	if width > 0 && height > 0 {
		if err := Resize(master, width, height); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// openPeer opens the other end of a terminal by its descriptor (TIOCGPTPEER,
// ioctl_tty(2)), without a path that the container could have replaced.
func openPeer(fd int) (*os.File, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return nil, api.Errorf(api.BadState, "the container's /dev/pts/ptmx is not a terminal multiplexer")
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, fmt.Errorf("open the terminal: %w", errno)
	}
	return os.NewFile(peer, "pts"), nil
}

// Resize sets a terminal's size in characters.
func Resize(master *os.File, width, height int) error {
	if width < 0 || height < 0 || width > 1<<15 || height > 1<<15 {
		return api.Errorf(api.Invalid, "terminal size %dx%d is not possible; allowed are 0 to 32768 each", width, height)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
	})
	if err == nil {
		err = ierr
	}
	return err
}
