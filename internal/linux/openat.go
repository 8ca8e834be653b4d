package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// openAttempts bounds the repetitions after EAGAIN, by which openat2 says that
// somebody renamed something during a confined look-up.
const openAttempts = 128

// OpenInRoot opens path as a process would whose root directory is root: an
// absolute symbolic link or ".." inside it starts or stops at root, nothing
// leads out. Flags are those of open(2); O_CLOEXEC is added. For the content of
// files use [OpenRegularInRoot]: opening a device node or a pipe that a
// container made has side effects on the host.
//
// Source: openat2(2), RESOLVE_IN_ROOT; test TestOpenInRoot.
func OpenInRoot(root *os.File, path string, flags int, mode uint32) (*os.File, error) {
	return openat2(root, path, flags, mode, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// OpenBeneath opens path below root and refuses symbolic links and ".." that
// would leave it. It is for trees that have no business containing links, such
// as an unpacked image's metadata.
//
// Errors: ELOOP for a link, EXDEV for a path that leaves root.
func OpenBeneath(root *os.File, path string, flags int, mode uint32) (*os.File, error) {
	return openat2(root, path, flags, mode,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

func openat2(root *os.File, path string, flags int, mode uint32, resolve uint64) (*os.File, error) {
	defer runtime.KeepAlive(root)
	if strings.ContainsRune(path, 0) {
		return nil, api.Errorf(api.Invalid, "path %q: contains a zero byte", path)
	}
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		how.Mode = uint64(mode & 0o7777)
	}
	for range openAttempts {
		fd, err := unix.Openat2(int(root.Fd()), path, &how)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), path), nil
		case unix.EAGAIN, unix.EINTR:
			continue
		}
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: unix.EAGAIN}
}

// OpenRegularInRoot is OpenInRoot for regular files only: nothing else is ever
// opened, so that no device, pipe or socket of a container is touched. With
// O_CREAT a missing file is made.
//
// Errors: Invalid when path is something else; fs.ErrNotExist in the chain when
// it is absent.
func OpenRegularInRoot(root *os.File, path string, flags int, mode uint32) (*os.File, error) {
	for range openAttempts {
		f, err := reopenRegular(root, path, flags)
		if flags&unix.O_CREAT == 0 || !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
		// O_EXCL does not follow a dangling link as the last part, so resolve that first.
		target, err := danglingTarget(root, path)
		if err != nil {
			return nil, err
		}
		f, err = OpenInRoot(root, target, flags|unix.O_EXCL, mode)
		if !errors.Is(err, os.ErrExist) {
			return f, err
		}
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: unix.EAGAIN}
}

func reopenRegular(root *os.File, path string, flags int) (*os.File, error) {
	p, err := OpenInRoot(root, path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(p.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, api.Errorf(api.Invalid, "path %q: not a regular file", path)
	}
	if flags&unix.O_EXCL != 0 && flags&unix.O_CREAT != 0 {
		return nil, &os.PathError{Op: "open", Path: path, Err: unix.EEXIST}
	}
	flags = flags&^(unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW) | unix.O_CLOEXEC
	fd, err := unix.Open(fmt.Sprintf("/proc/thread-self/fd/%d", p.Fd()), flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// danglingTarget follows symbolic links at the end of path, whose last target
// may be absent.
func danglingTarget(root *os.File, path string) (string, error) {
	for range 40 { // the kernel's own limit on links
		target, err := ReadlinkInRoot(root, path)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, os.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = strings.TrimSuffix(path, filepath.Base(path)) + target
		}
		path = target
	}
	return "", &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

// StatInRoot describes path inside root. The last part is followed when it is a
// symbolic link and follow is set.
func StatInRoot(root *os.File, path string, follow bool) (unix.Stat_t, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	var st unix.Stat_t
	f, err := OpenInRoot(root, path, flags, 0)
	if err != nil {
		return st, err
	}
	defer f.Close()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return st, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st, nil
}

// ReadlinkInRoot gives the target of the symbolic link at path; EINVAL when it
// is not one.
func ReadlinkInRoot(root *os.File, path string) (string, error) {
	f, err := OpenInRoot(root, path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	target, err := readlinkat(int(f.Fd()), "")
	if err == unix.ENOENT {
		err = unix.EINVAL // what readlinkat says of an open file that is no link
	}
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: path, Err: err}
	}
	return target, nil
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// MkdirAllInRoot makes the directory path and the missing ones above it, with
// the given mode and owner. Directories that exist are left as they are.
func MkdirAllInRoot(root *os.File, path string, mode uint32, uid, gid int) error {
	path = strings.TrimPrefix(filepath.Clean("/"+path), "/")
	at := "."
	for _, part := range strings.Split(path, "/") {
		if part == "" {
			continue
		}
		parent := at
		at = filepath.Join(at, part)
		err := mkdirInRoot(root, parent, part, mode, uid, gid)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	d, err := OpenInRoot(root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return d.Close()
}

func mkdirInRoot(root *os.File, parent, name string, mode uint32, uid, gid int) error {
	dir, err := OpenInRoot(root, parent, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: filepath.Join(parent, name), Err: err}
	}
	made, err := OpenBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer made.Close()
	if err := unix.Fchown(int(made.Fd()), uid, gid); err != nil {
		return &os.PathError{Op: "chown", Path: filepath.Join(parent, name), Err: err}
	}
	if err := unix.Fchmod(int(made.Fd()), mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: filepath.Join(parent, name), Err: err}
	}
	return nil
}

// SymlinkInRoot makes a symbolic link at path; target is stored as it is.
func SymlinkInRoot(root *os.File, target, path string, uid, gid int) error {
	dir, name, err := parentInRoot(root, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Symlinkat(target, int(dir.Fd()), name); err != nil {
		return &os.PathError{Op: "symlink", Path: path, Err: err}
	}
	if err := unix.Fchownat(int(dir.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}

// RemoveInRoot removes the file, link or empty directory at path.
func RemoveInRoot(root *os.File, path string) error {
	dir, name, err := parentInRoot(root, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == unix.EISDIR {
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// parentInRoot opens the directory that holds the last part of path.
func parentInRoot(root *os.File, path string) (dir *os.File, name string, err error) {
	trimmed := strings.TrimRight(path, "/")
	name = filepath.Base(trimmed)
	if trimmed == "" || name == "." || name == ".." {
		return nil, "", api.Errorf(api.Invalid, "path %q: names no entry of a directory", path)
	}
	dir, err = OpenInRoot(root, strings.TrimSuffix(trimmed, name), unix.O_PATH|unix.O_DIRECTORY, 0)
	return dir, name, err
}
