package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// regular makes a file. It is made exclusively, so that nothing which is
// already there can be written through.
func (x *extractor) regular(parent int, base string, h *tar.Header, r io.Reader) error {
	if h.Size > x.limits.FileSize {
		return api.Errorf(api.TooLarge, "the file has %d bytes; at most %d are allowed", h.Size, x.limits.FileSize)
	}
	var fd int
	err := x.replacing(parent, base, func() (err error) {
		fd, err = unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	defer unix.Close(fd)
	if err := x.copySparse(fd, r); err != nil {
		return err
	}
	return x.finishFD(fd, h)
}

const holeSize = 4096

var zeroes [holeSize]byte

// copySparse writes r to fd and leaves holes where whole blocks are zero, which
// restores the holes of sparse entries too: package tar gives them as zeroes.
func (x *extractor) copySparse(fd int, r io.Reader) error {
	var size int64
	for {
		n, err := io.ReadFull(r, x.buf)
		if werr := x.writeBlocks(fd, x.buf[:n], size); werr != nil {
			return werr
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && n < len(x.buf) && x.atEnd(r) {
			break
		}
		if err != nil {
			return badArchive(err)
		}
	}
	if err := unix.Ftruncate(fd, size); err != nil { // sets the size when the end is a hole
		return fmt.Errorf("set file size: %w", err)
	}
	return nil
}

// atEnd tells an entry that ended from an archive that was cut off: both make
// ReadFull say ErrUnexpectedEOF.
func (x *extractor) atEnd(r io.Reader) bool {
	_, err := r.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

// writeBlocks writes runs of blocks that are not all zero.
func (x *extractor) writeBlocks(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		hole := leadingHoles(b)
		b, offset = b[hole:], offset+int64(hole)
		data := leadingData(b)
		if x.stats.Bytes += int64(data); x.stats.Bytes > x.limits.Bytes {
			return api.Errorf(api.TooLarge, "the archive unpacks to more than %d bytes", x.limits.Bytes)
		}
		for part := b[:data]; len(part) > 0; {
			n, err := unix.Pwrite(fd, part, offset)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("write file: %w", err)
			}
			n = max(n, 0)
			part, offset = part[n:], offset+int64(n)
		}
		b = b[data:]
	}
	return nil
}

func isHole(b []byte) bool { return bytes.Equal(b, zeroes[:len(b)]) }

func leadingHoles(b []byte) (n int) {
	for n < len(b) && isHole(b[n:min(n+holeSize, len(b))]) {
		n = min(n+holeSize, len(b))
	}
	return n
}

func leadingData(b []byte) (n int) {
	for n < len(b) && !isHole(b[n:min(n+holeSize, len(b))]) {
		n = min(n+holeSize, len(b))
	}
	return n
}

func (x *extractor) symlink(parent int, base string, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) > maxPath || strings.ContainsRune(h.Linkname, 0) {
		return api.Errorf(api.Invalid, "the target of the symbolic link is %q", h.Linkname)
	}
	// The target may be anything: it is a name in the container, and nothing
	// here ever follows it.
	err := x.replacing(parent, base, func() error { return unix.Symlinkat(h.Linkname, parent, base) })
	if err != nil {
		return fmt.Errorf("make symbolic link: %w", err)
	}
	return x.finishAt(parent, base, h)
}

// hardlink links to an entry that came before it. The target's folder is
// resolved like any other, and the target itself is not followed.
func (x *extractor) hardlink(parent int, base string, h *tar.Header) error {
	target, err := cleanName(h.Linkname)
	if err != nil {
		return api.Errorf(api.Invalid, "hard link target: %w", err)
	}
	rel, ok := x.below(target)
	if !ok || rel == "" {
		return api.Errorf(api.Invalid, "hard link target %q is outside of folder %q", h.Linkname, x.opts.Prefix)
	}
	dir, name := path.Split(rel)
	fd, err := openat2(x.root, pathOrDot(strings.TrimSuffix(dir, "/")), dirPath, 0, beneath)
	if err != nil {
		return api.Errorf(api.Invalid, "hard link target %q: %w", h.Linkname, err)
	}
	defer unix.Close(fd)
	if same, err := sameFile(fd, name, parent, base); err != nil || same {
		return err
	}
	err = x.replacing(parent, base, func() error { return unix.Linkat(fd, name, parent, base, 0) })
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM):
		return api.Errorf(api.Invalid, "hard link target %q is no file that came before it: %w", h.Linkname, err)
	case err != nil:
		return fmt.Errorf("make hard link: %w", err)
	}
	return nil
}

// sameFile tells whether both names are one file already; linking it to itself
// would remove it first. An absent second name is another file.
func sameFile(dir1 int, name1 string, dir2 int, name2 string) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Fstatat(dir1, name1, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, api.Errorf(api.Invalid, "hard link target %q is no file that came before it: %w", name1, err)
	}
	if err := unix.Fstatat(dir2, name2, &b, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, nil
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}

// maxMajor and maxMinor are the kernel's ranges (dev_t of 12 and 20 bits).
const maxMajor, maxMinor = 1<<12 - 1, 1<<20 - 1

func (x *extractor) node(parent int, base string, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		mode |= unix.S_IFIFO
	}
	dev := 0
	if h.Typeflag != tar.TypeFifo {
		if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
			return api.Errorf(api.Invalid, "device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	err := x.replacing(parent, base, func() error { return unix.Mknodat(parent, base, mode, dev) })
	if errors.Is(err, unix.EPERM) && h.Typeflag != tar.TypeFifo {
		// Inside a container nobody may make devices. Container managers
		// provide /dev themselves, so images work without.
		x.skip("%s: device %d:%d: not permitted here", h.Name, h.Devmajor, h.Devminor)
		return nil
	}
	if err != nil {
		return fmt.Errorf("make device: %w", err)
	}
	return x.finishAt(parent, base, h)
}

// finishFD sets owner, mode, attributes and time of an open file or folder. The
// order matters: chown clears the set-id bits and the file capability.
func (x *extractor) finishFD(fd int, h *tar.Header) error {
	if !x.opts.Unprivileged {
		if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", h.Uid, h.Gid, err)
		}
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if err := x.setXattrs(fd, h); err != nil {
		return err
	}
	ts := []unix.Timespec{timespec(h.ModTime), timespec(h.ModTime)}
	if err := unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// finishAt does the same for what can't be opened without effect: links,
// devices and pipes. Their extended attributes are dropped.
func (x *extractor) finishAt(parent int, base string, h *tar.Header) error {
	if !x.opts.Unprivileged {
		if err := unix.Fchownat(parent, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", h.Uid, h.Gid, err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		// No later entry could have put a link here: the name was just made.
		if err := unix.Fchmodat(parent, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	ts := []unix.Timespec{timespec(h.ModTime), timespec(h.ModTime)}
	if err := unix.UtimesNanoAt(parent, base, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// timespec clamps a time to what every Linux file system can store.
func timespec(t time.Time) unix.Timespec {
	sec := min(max(t.Unix(), 0), 1<<32-1)
	return unix.Timespec{Sec: sec, Nsec: int64(t.Nanosecond())}
}

const xattrRecord = "SCHILY.xattr."

// setXattrs sets the extended attributes of a pax header.
func (x *extractor) setXattrs(fd int, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || !x.wantXattr(name) {
			continue
		}
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		switch {
		case errors.Is(err, unix.ENOTSUP):
			x.skip("%s: attribute %s: not supported by the file system", h.Name, name)
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.E2BIG):
			return api.Errorf(api.Invalid, "attribute %s: %w", name, err)
		case err != nil:
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}

func (x *extractor) wantXattr(name string) bool {
	if len(name) > 255 || strings.ContainsRune(name, 0) {
		return false
	}
	switch name {
	case "security.capability":
		return !x.opts.Unprivileged
	case "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	// user.overlay.* steers an overlay mounted with userxattr.
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}
