package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	loopMajor    = 7   // the kernel's Documentation/admin-guide/devices.txt
	loopAttempts = 100 // free devices lost to others before giving up
)

// AttachLoop returns the loop device that shows the file at path, read-only. One
// device serves all users of a file: the kernel then has one super block and one
// page cache for it in all mount namespaces. The device goes away by itself
// (AUTOCLEAR) when the last mount and descriptor are gone, so the caller keeps
// the descriptor open until the device is mounted, then closes it.
//
// It is safe for concurrent use by several processes.
// Source: loop(4), Documentation/admin-guide/devices.txt.
func AttachLoop(path string) (*os.File, error) {
	dev, err := attachLoop(path)
	if err != nil {
		return nil, fmt.Errorf("attach %s to a loop device: %w", path, err)
	}
	return dev, nil
}

func attachLoop(path string) (*os.File, error) {
	backing, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	// Two threads that look at once would make two devices: the lock is on the
	// image, so that it also holds between processes. It has an open file of its
	// own, as the device keeps backing open and would keep its lock too.
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	defer lock.Close()

	var st unix.Stat_t
	if err := unix.Fstat(int(backing.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("not a regular file")
	}
	if dev := findLoop(filepath.Base(path), st.Dev, st.Ino); dev != nil {
		return dev, nil
	}
	return newLoop(backing)
}

// lockFile takes the exclusive lock of a file; closing the result gives it back.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, &os.PathError{Op: "lock", Path: path, Err: err}
		}
	}
}

// findLoop opens the device whose backing file has the given inode, or returns
// nil. Devices of other files are not opened where sysfs tells their names:
// opening one that is being detached would delay that.
func findLoop(base string, dev, ino uint64) *os.File {
	sys, err := os.Open("/sys/block")
	if err != nil {
		return nil
	}
	defer sys.Close()
	names, _ := sys.Readdirnames(-1)
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "loop"))
		if err != nil || backingName(sys, name) != base {
			continue
		}
		f, err := openLoop(n)
		if err != nil {
			continue
		}
		// Checked after opening: an open device cannot be detached or reused.
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		if err == nil && info.Device == dev && info.Inode == ino && info.Offset == 0 && info.Sizelimit == 0 &&
			info.Flags&unix.LO_FLAGS_READ_ONLY != 0 && info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0 {
			return f
		}
		f.Close()
	}
	return nil
}

// backingName is the last part of the path of a device's file, or "" when the
// device is free.
func backingName(sys *os.File, dev string) string {
	fd, err := unix.Openat(int(sys.Fd()), dev+"/loop/backing_file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax+16)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return ""
	}
	path := strings.TrimSuffix(string(buf[:n]), "\n")
	return filepath.Base(strings.TrimSuffix(path, " (deleted)"))
}

func newLoop(backing *os.File) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	for range loopAttempts {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		f, err := configureLoop(n, backing)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENOENT):
			return nil, err
		}
		// Somebody else took or removed device n in between: ask for another.
	}
	return nil, fmt.Errorf("no free loop device after %d attempts: %w", loopAttempts, unix.EBUSY)
}

func configureLoop(n int, backing *os.File) (*os.File, error) {
	f, err := openLoop(n)
	if err != nil {
		return nil, err
	}
	cfg := unix.LoopConfig{Fd: uint32(backing.Fd())}
	cfg.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	copy(cfg.Info.File_name[:len(cfg.Info.File_name)-1], backing.Name())
	if err := unix.IoctlLoopConfigure(int(f.Fd()), &cfg); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openLoop opens device n, making its node where /dev is not a devtmpfs.
func openLoop(n int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	merr := unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(loopMajor, uint32(n))))
	if merr != nil && merr != unix.EEXIST {
		return nil, merr
	}
	return os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
}
