package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

// The kinds of file that the files API knows.
const (
	TypeFile      = "file"
	TypeDirectory = "directory"
	TypeSymlink   = "symlink"
)

// File is a file of an instance. The caller closes Content.
type File struct {
	Type     string
	UID, GID int64 // in the container
	Mode     uint32
	Modified time.Time
	Size     int64
	Entries  []string      // names in a directory
	Target   string        // of a symbolic link
	Content  io.ReadCloser // of a file, else nil
}

// FilePut is what to write at a path.
type FilePut struct {
	Type     string // empty is TypeFile
	UID, GID int64  // in the container, for what is new; -1: 0
	Mode     int    // for what is new; -1: 0644, 0750 for a directory
	Append   bool
	Content  io.Reader
	Target   string // of a symbolic link
}

// GetFile opens a file, lists a directory or reads a symbolic link, confined to
// the instance's root. Links on the way are followed as the container would; a
// link at the end is followed too, unless it leads nowhere or is asked for.
//
// Errors: NotFound; Invalid for what is neither file, directory nor link.
func (e *Engine) GetFile(ctx context.Context, project, name, file string) (*File, error) {
	t, err := e.openTree(ctx, project, name)
	if err != nil {
		return nil, err
	}
	defer t.done()
	st, err := linux.StatInRoot(t.root, file, false)
	if err != nil {
		return nil, fileError("read", name, file, err)
	}
	f := &File{Mode: st.Mode & 0o7777, Modified: time.Unix(st.Mtim.Unix()), Size: st.Size}
	f.UID, f.GID = t.inside(st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		f.Type = TypeSymlink
		f.Target, err = linux.ReadlinkInRoot(t.root, file)
	case unix.S_IFDIR:
		f.Type = TypeDirectory
		f.Entries, err = names(t.root, file)
	case unix.S_IFREG:
		f.Type = TypeFile
		f.Content, err = linux.OpenRegularInRoot(t.root, file, unix.O_RDONLY, 0)
	default:
		return nil, api.Errorf(api.Invalid, "path %q of instance %s is neither a file, a directory nor a symbolic link", file, name)
	}
	if err != nil {
		return nil, fileError("read", name, file, err)
	}
	return f, nil
}

func names(root *os.File, dir string) ([]string, error) {
	d, err := linux.OpenInRoot(root, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.Readdirnames(-1)
	slices.Sort(list)
	return list, err
}

// fileError names the path and keeps apart what is not there from what cannot be
// done.
func fileError(what, name, file string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return api.Errorf(api.NotFound, "%s of instance %s: no such file or directory", file, name)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return api.Errorf(api.NoSpace, "%s %s of instance %s: %w", what, file, name, err)
	case errors.Is(err, unix.ENOTEMPTY):
		return api.Errorf(api.Invalid, "%s %s of instance %s: the directory is not empty", what, file, name)
	case api.KindOf(err) != api.Internal:
		return fmt.Errorf("%s %s of instance %s: %w", what, file, name, err)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrExist):
		return api.Errorf(api.Invalid, "%s %s of instance %s: %w", what, file, name, err)
	}
	return fmt.Errorf("%s %s of instance %s: %w", what, file, name, err)
}

// PutFile writes a file, makes a directory or a symbolic link, confined to the
// instance's root. The parent directory has to be there.
//
// What is there already keeps its owner and mode, as with LXD: its client always
// sends those of the local file.
//
// The content is streamed without the instance's lock; a reader sees it grow.
func (e *Engine) PutFile(ctx context.Context, project, name, file string, put FilePut) error {
	if path.Clean("/"+file) == "/" {
		return api.Errorf(api.Invalid, "path %q: the root itself cannot be written", file)
	}
	t, err := e.openTree(ctx, project, name)
	if err != nil {
		return err
	}
	f, err := t.put(file, put)
	t.done()
	if err != nil {
		return fileError("write", name, file, err)
	}
	if f == nil {
		return nil
	}
	_, err = io.Copy(f, put.Content)
	if err := errors.Join(err, f.Close()); err != nil {
		return fileError("write", name, file, err)
	}
	return nil
}

// put makes what is to be at path and returns the file that is to be filled.
func (t *tree) put(file string, put FilePut) (*os.File, error) {
	uid, gid, err := t.ids(max(put.UID, 0), max(put.GID, 0))
	if err != nil {
		return nil, err
	}
	switch put.Type {
	case TypeDirectory:
		return nil, t.putDirectory(file, put, uid, gid)
	case TypeSymlink:
		return nil, t.as(func() error {
			if st, err := linux.StatInRoot(t.root, file, false); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
				if err := linux.RemoveInRoot(t.root, file); err != nil {
					return err
				}
			}
			return linux.SymlinkInRoot(t.root, put.Target, file, uid, gid)
		})
	case TypeFile, "":
		return t.putFile(file, put, uid, gid)
	}
	return nil, api.Errorf(api.Invalid, "type %q is not known; allowed are file, directory, symlink", put.Type)
}

func (t *tree) putFile(file string, put FilePut, uid, gid int) (f *os.File, err error) {
	_, statErr := linux.StatInRoot(t.root, file, true)
	fresh := errors.Is(statErr, fs.ErrNotExist)
	flags := unix.O_WRONLY | unix.O_CREAT
	if put.Append {
		flags |= unix.O_APPEND
	} else {
		flags |= unix.O_TRUNC
	}
	err = t.as(func() error {
		f, err = linux.OpenRegularInRoot(t.root, file, flags, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !fresh {
		return f, nil
	}
	mode := put.Mode
	if mode < 0 {
		mode = 0o644
	}
	// Owner before mode: chown(2) clears the set-id bits.
	err = unix.Fchown(int(f.Fd()), uid, gid)
	if err == nil {
		err = unix.Fchmod(int(f.Fd()), uint32(mode)&0o7777)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (t *tree) putDirectory(file string, put FilePut, uid, gid int) error {
	mode := put.Mode
	if mode < 0 {
		mode = 0o750
	}
	if st, err := linux.StatInRoot(t.root, file, true); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	return t.as(func() error { return linux.MkdirInRoot(t.root, file, uint32(mode), uid, gid) })
}

// DeleteFile removes a file, a link or an empty directory.
func (e *Engine) DeleteFile(ctx context.Context, project, name, file string) error {
	if path.Clean("/"+file) == "/" {
		return api.Errorf(api.Invalid, "path %q: the root itself cannot be deleted", file)
	}
	t, err := e.openTree(ctx, project, name)
	if err != nil {
		return err
	}
	defer t.done()
	if err := t.as(func() error { return linux.RemoveInRoot(t.root, file) }); err != nil {
		return fileError("delete", name, file, err)
	}
	return nil
}
