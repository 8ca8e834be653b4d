package linux

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// DiskUsage adds up the bytes that the blocks of everything below dir take on
// disk, counting a file with several names once. Blocks shared by reflinks count
// for each file. Entries that vanish meanwhile are passed over.
func DiskUsage(ctx context.Context, dir *os.File) (int64, error) {
	u := usage{ctx: ctx, seen: map[inode]bool{}}
	err := u.dir(dir, 0)
	return u.bytes, err
}

type usage struct {
	ctx   context.Context // of the one DiskUsage call that made it
	bytes int64
	seen  map[inode]bool
}

func (u *usage) dir(dir *os.File, depth int) error {
	if depth > copyDepth {
		return &os.PathError{Op: "measure", Path: dir.Name(), Err: unix.ENAMETOOLONG}
	}
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if err := u.entry(dir, name, depth); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (u *usage) entry(dir *os.File, name string, depth int) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return ignoreAbsent(err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir && st.Nlink > 1 {
		if u.seen[inode{st.Dev, st.Ino}] {
			return nil
		}
		u.seen[inode{st.Dev, st.Ino}] = true
	}
	u.bytes += st.Blocks * 512
	if !isDir {
		return nil
	}
	sub, err := openDirAt(dir, name)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // replaced meanwhile
	}
	if err != nil {
		return ignoreAbsent(err)
	}
	defer sub.Close()
	return u.dir(sub, depth+1)
}
