package linux

import (
	"errors"
	"os"
	"path"
)

// AsFSUser runs fn on a thread of its own that acts on file systems as uid and
// gid and keeps its capabilities, so that what it makes below a container's
// root belongs to the container. Files opened by fn may be used anywhere.
func AsFSUser(uid, gid int, fn func() error) error {
	if uid == 0 && gid == 0 {
		return fn()
	}
	return OnThread(func() error {
		restore, err := asFSUser(uid, gid)
		if err != nil {
			return err
		}
		return errors.Join(fn(), restore())
	})
}

// MkdirInRoot makes one directory, whose parent has to be there, with the given
// mode and owner. It is no error when there is a directory already.
func MkdirInRoot(root *os.File, dir string, mode uint32, uid, gid int) error {
	dir = path.Clean("/" + dir)
	return mkdirInRoot(root, path.Dir(dir), path.Base(dir), mode, uid, gid)
}
