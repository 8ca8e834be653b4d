package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	copyDepth  = 1000    // directories held open in each tree
	copyBuffer = 1 << 20 // bytes
	zeroBlock  = 4096    // bytes; the unit in which holes are looked for
)

// CopyTree copies what is in the directory src into the directory dst, which is
// empty, and gives dst the attributes of src. It keeps owners, modes, times,
// extended attributes (capabilities, access lists, the marks of an overlay),
// hard links, holes, device nodes, pipes and sockets, and shares blocks with the
// source where the file system can (reflink). Symbolic links are copied, never
// followed. src may change meanwhile, with the usual result of a torn copy, but
// nothing outside it is ever read.
//
// Entries of src itself that are named in skip are left out. It stops with ctx's
// error when ctx ends. Call [Sync] to make the copy durable.
func CopyTree(ctx context.Context, src, dst *os.File, skip ...string) error {
	defer runtime.KeepAlive(src)
	defer runtime.KeepAlive(dst)
	c := copier{ctx: ctx, dst: dst, skip: skip, links: map[inode]string{}}
	if err := c.dir(src, dst, ".", 0); err != nil {
		return fmt.Errorf("copy %s: %w", src.Name(), err)
	}
	return nil
}

// CopyFile copies the content of src to dst, which is empty, sharing blocks
// where the file system can and keeping holes.
func CopyFile(ctx context.Context, src, dst *os.File) error {
	defer runtime.KeepAlive(src)
	defer runtime.KeepAlive(dst)
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: src.Name(), Err: err}
	}
	c := copier{ctx: ctx}
	return c.data(int(src.Fd()), int(dst.Fd()), &st)
}

// Sync writes everything out that belongs to the file system of f; syncfs(2).
func Sync(f *os.File) error {
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "sync the file system of", Path: f.Name(), Err: err}
	}
	return nil
}

type inode struct{ dev, ino uint64 }

type copier struct {
	ctx       context.Context // of the one call that made the copier
	dst       *os.File
	skip      []string
	links     map[inode]string // where in dst a file with several names was first put
	buf       []byte
	noReflink bool // the file system said so once
	noRange   bool // neither does it have copy_file_range
}

func (c *copier) dir(src, dst *os.File, path string, depth int) error {
	if depth > copyDepth {
		return fmt.Errorf("%s: directories nested more than %d deep: %w", path, copyDepth, unix.ENAMETOOLONG)
	}
	for {
		names, err := src.Readdirnames(1024)
		for _, name := range names {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			if depth == 0 && slices.Contains(c.skip, name) {
				continue
			}
			if err := c.entry(src, dst, name, filepath.Join(path, name), depth); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return c.attributesOfFile(int(src.Fd()), int(dst.Fd()), &st, path)
}

// entry copies one name of a directory.
func (c *copier) entry(src, dst *os.File, name, path string, depth int) error {
	s, d := int(src.Fd()), int(dst.Fd())
	var st unix.Stat_t
	err := unix.Fstatat(s, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil // gone meanwhile
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		return c.subdir(src, dst, name, path, depth)
	}
	if st.Nlink > 1 {
		first, seen := c.links[inode{st.Dev, st.Ino}]
		if seen {
			return pathError("link", path, unix.Linkat(int(c.dst.Fd()), first, d, name, 0))
		}
		c.links[inode{st.Dev, st.Ino}] = path
	}
	switch kind {
	case unix.S_IFREG:
		return c.regular(s, d, name, path)
	case unix.S_IFLNK:
		target, err := readlinkat(s, name)
		if err == nil {
			err = unix.Symlinkat(target, d, name)
		}
		if err != nil {
			return &os.PathError{Op: "copy link", Path: path, Err: err}
		}
	default:
		if err := unix.Mknodat(d, name, st.Mode, int(st.Rdev)); err != nil {
			return &os.PathError{Op: "mknod", Path: path, Err: err}
		}
	}
	return c.attributesOfName(s, d, name, &st, path)
}

func (c *copier) subdir(src, dst *os.File, name, path string, depth int) error {
	from, err := openDirAt(src, name)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer from.Close()
	if err := unix.Mkdirat(int(dst.Fd()), name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	to, err := openDirAt(dst, name)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer to.Close()
	return c.dir(from, to, path, depth+1)
}

func (c *copier) regular(s, d int, name, path string) error {
	// O_NONBLOCK: should the name have become a pipe, do not wait for its writer.
	from, err := unix.Openat(s, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return &os.PathError{Op: "copy", Path: path, Err: unix.ESTALE}
	}
	to, err := unix.Openat(d, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	defer unix.Close(to)
	if err := c.data(from, to, &st); err != nil {
		return &os.PathError{Op: "copy", Path: path, Err: err}
	}
	return c.attributesOfFile(from, to, &st, path)
}

// data copies the content of a regular file by the cheapest means that works.
func (c *copier) data(from, to int, st *unix.Stat_t) error {
	if st.Size == 0 {
		return nil
	}
	if !c.noReflink {
		err := unix.IoctlFileClone(to, from)
		switch err {
		case nil:
			return nil
		case unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.ENOSYS:
			c.noReflink = err != unix.EINVAL // EINVAL is about this file
		default:
			return err
		}
	}
	sparse := st.Blocks*512 < st.Size
	if !sparse {
		return c.extent(from, to, 0, st.Size, false)
	}
	for off := int64(0); off < st.Size; {
		start, err := unix.Seek(from, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // only a hole follows
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(from, start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		// A file system that does not know its holes (squashfs) calls all of it
		// data: there holes are found by their zeros.
		if err := c.extent(from, to, start, end, start == 0 && end >= st.Size); err != nil {
			return err
		}
		off = end
	}
	return unix.Ftruncate(to, st.Size)
}

// extent copies the bytes from start to end.
func (c *copier) extent(from, to int, start, end int64, findHoles bool) error {
	for start < end && !c.noRange && !findHoles {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		in, out := start, start
		n, err := unix.CopyFileRange(from, &in, to, &out, int(min(end-start, 64<<20)), 0)
		switch {
		case err == unix.EXDEV || err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL:
			c.noRange = true
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return nil // the source became shorter
		default:
			start += int64(n)
		}
	}
	if c.buf == nil && start < end {
		c.buf = make([]byte, copyBuffer)
	}
	for start < end {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Pread(from, c.buf[:min(int64(len(c.buf)), end-start)], start)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		if err := writeAt(to, c.buf[:n], start, findHoles); err != nil {
			return err
		}
		start += int64(n)
	}
	return nil
}

// writeAt writes b at off, leaving out blocks of zeros when skipZeros is set.
func writeAt(fd int, b []byte, off int64, skipZeros bool) error {
	var zeros [zeroBlock]byte
	for len(b) > 0 {
		n := len(b)
		if skipZeros {
			n = min(zeroBlock, len(b))
			if bytes.Equal(b[:n], zeros[:n]) {
				b, off = b[n:], off+int64(n)
				continue
			}
		}
		w, err := unix.Pwrite(fd, b[:n], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, off = b[w:], off+int64(w)
	}
	return nil
}

// attributesOfFile sets owner, mode, extended attributes and times, in this
// order: chown clears set-user-id bits and capabilities.
func (c *copier) attributesOfFile(from, to int, st *unix.Stat_t, path string) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	if err := copyXattrs(fileXattrs(from), fileXattrs(to)); err != nil {
		return &os.PathError{Op: "copy attributes of", Path: path, Err: err}
	}
	return pathError("set times of", path, futimens(to, st))
}

// attributesOfName is attributesOfFile for what cannot be opened: links, nodes.
func (c *copier) attributesOfName(s, d int, name string, st *unix.Stat_t, path string) error {
	if err := unix.Fchownat(d, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(d, name, st.Mode&0o7777, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	if err := copyXattrs(nameXattrs(s, name), nameXattrs(d, name)); err != nil {
		return &os.PathError{Op: "copy attributes of", Path: path, Err: err}
	}
	err := unix.UtimesNanoAt(d, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	return pathError("set times of", path, err)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

func futimens(fd int, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

// xattrs are the extended attributes of one inode; xattr(7).
type xattrs struct {
	list func(buf []byte) (int, error)
	get  func(name string, buf []byte) (int, error)
	set  func(name string, value []byte) error
}

func fileXattrs(fd int) xattrs {
	return xattrs{
		list: func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		get:  func(n string, b []byte) (int, error) { return unix.Fgetxattr(fd, n, b) },
		set:  func(n string, v []byte) error { return unix.Fsetxattr(fd, n, v, 0) },
	}
}

// nameXattrs reaches an entry through its directory's descriptor, without
// following a link.
func nameXattrs(dir int, name string) xattrs {
	path := fmt.Sprintf("/proc/thread-self/fd/%d/%s", dir, name)
	return xattrs{
		list: func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		get:  func(n string, b []byte) (int, error) { return unix.Lgetxattr(path, n, b) },
		set:  func(n string, v []byte) error { return unix.Lsetxattr(path, n, v, 0) },
	}
}

func copyXattrs(from, to xattrs) error {
	names, err := grow(256, from.list)
	if errors.Is(err, unix.EOPNOTSUPP) || len(names) == 0 && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		value, err := grow(256, func(b []byte) (int, error) { return from.get(name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err == nil {
			err = to.set(name, value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// grow calls read with larger buffers until the answer fits.
func grow(size int, read func([]byte) (int, error)) ([]byte, error) {
	for {
		buf := make([]byte, size)
		n, err := read(buf)
		if err != unix.ERANGE || size > 1<<20 {
			return buf[:max(n, 0)], err
		}
		size *= 4
	}
}
