package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// removeDepth is how many directories are held open at once. A container can
// nest directories without end to use up the daemon's descriptors, so what is
// deeper is first moved up.
const removeDepth = 64

// RemoveAll removes path and everything below it, following no symbolic link.
// Trees of any depth, work directories of an overlay and files that were made
// immutable inside a privileged container are removed too. That path is absent
// is no error. It stops with ctx's error when ctx ends; calling it again goes on.
func RemoveAll(ctx context.Context, path string) error {
	parent, err := os.Open(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	name := filepath.Base(path)
	err = unlink(parent, name, 0)
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR:
	default:
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	top, err := openDirAt(parent, name)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer top.Close()
	r := remover{ctx: ctx, top: top}
	if err := r.empty(top, 0); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := unlink(parent, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

type remover struct {
	ctx   context.Context // of the one RemoveAll call that made the remover
	top   *os.File
	moved int
}

// empty removes all entries of dir.
func (r *remover) empty(dir *os.File, depth int) error {
	for {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		entries, err := dir.ReadDir(1024)
		if len(entries) == 0 {
			if err == io.EOF {
				return nil
			}
			return err
		}
		for _, e := range entries {
			if err := r.remove(dir, e, depth); err != nil {
				return fmt.Errorf("%s: %w", e.Name(), err)
			}
		}
	}
}

func (r *remover) remove(dir *os.File, e os.DirEntry, depth int) error {
	name := e.Name()
	if !e.IsDir() {
		if err := unlink(dir, name, 0); err != unix.EISDIR {
			return ignoreAbsent(err)
		}
	}
	if err := unlink(dir, name, unix.AT_REMOVEDIR); err != unix.ENOTEMPTY && err != unix.EEXIST {
		return ignoreAbsent(err)
	}
	if depth >= removeDepth {
		r.moved++
		up := fmt.Sprintf(".deep-%d-%d", os.Getpid(), r.moved)
		err := unix.Renameat2(int(dir.Fd()), name, int(r.top.Fd()), up, unix.RENAME_NOREPLACE)
		if err == nil || err == unix.EEXIST {
			return nil // met again: at the top under the new name, or here
		}
		return err
	}
	sub, err := openDirAt(dir, name)
	if err != nil {
		return ignoreAbsent(err)
	}
	defer sub.Close()
	if err := r.empty(sub, depth+1); err != nil {
		return err
	}
	return ignoreAbsent(unlink(dir, name, unix.AT_REMOVEDIR))
}

func ignoreAbsent(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}

func openDirAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// unlink removes one entry, after taking the immutable and append-only flags off
// when they are in the way.
func unlink(dir *os.File, name string, flags int) error {
	err := unix.Unlinkat(int(dir.Fd()), name, flags)
	if err != unix.EPERM {
		return err
	}
	clearInodeFlags(int(dir.Fd()))
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		(st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&unix.S_IFMT == unix.S_IFDIR) {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			clearInodeFlags(fd)
			unix.Close(fd)
		}
	}
	return unix.Unlinkat(int(dir.Fd()), name, flags)
}

// clearInodeFlags takes FS_IMMUTABLE_FL and FS_APPEND_FL off an open inode, where
// the file system has them; ioctl_iflags(2). What fails shows at the next attempt
// to remove the entry.
func clearInodeFlags(fd int) {
	const immutable, appendOnly = 0x10, 0x20
	attr, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && attr&(immutable|appendOnly) != 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(attr&^uint32(immutable|appendOnly)))
	}
}
