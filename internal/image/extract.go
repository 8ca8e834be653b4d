package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// ExtractOptions say what of an archive [Extract] takes and how.
type ExtractOptions struct {
	// Prefix takes only what is below this folder of the archive, and drops
	// the folder from the names: "rootfs" for a unified image. Empty takes all.
	Prefix string
	// Limits bound the archive.
	Limits Limits
	// Unprivileged keeps the caller as the owner of everything and leaves out
	// devices and privileged extended attributes. For tests and tools without
	// root.
	Unprivileged bool
}

// Stats count what [Extract] did.
type Stats struct {
	Entries int64    `json:"entries"`
	Bytes   int64    `json:"bytes"`             // of file data written, without holes
	Skipped []string `json:"skipped,omitempty"` // what this host could not make; the first few
}

// maxSkipped is how many skipped things are remembered.
const maxSkipped = 20

// Extract unpacks a tarball (not compressed) below dest, an open directory.
// Owners are numeric and as in the archive; modes with set-id bits, modification
// times, hard links, devices, holes, and the extended attributes user.*,
// security.capability and system.posix_acl_* are kept. Others, trusted.* among
// them, are dropped: they would mean something to the host's overlayfs.
//
// Every path is resolved by the kernel beneath dest without following any
// symbolic link. An entry that would lead out — an absolute name, "..", a link
// used as a folder, a hard link to what the archive did not bring — fails the
// whole call with an error that names it. What was unpacked until then is left
// for the caller to remove.
//
// Errors: Invalid and TooLarge for what is wrong with the archive; NoSpace;
// Canceled. Source: openat2(2), tar(5), pax in POSIX.1-2017.
func Extract(ctx context.Context, stream io.Reader, dest *os.File, opts ExtractOptions) (Stats, error) {
	x := &extractor{
		opts:   opts,
		limits: opts.Limits.withDefaults(),
		root:   int(dest.Fd()),
		buf:    make([]byte, copyBuffer),
	}
	defer runtime.KeepAlive(dest) // closed when collected, and x.root with it
	defer x.forgetParent()
	err := eachEntry(ctx, stream, x.limits, func(h *tar.Header, name string, r io.Reader) error {
		rel, ok := x.below(name)
		if !ok {
			return nil
		}
		x.stats.Entries++
		if err := x.entry(h, rel, r); err != nil {
			return entryError(h.Name, err)
		}
		return nil
	})
	if err == nil {
		err = x.finishDirs(ctx)
	}
	return x.stats, err
}

type extractor struct {
	opts   ExtractOptions
	limits Limits
	root   int // not ours to close
	stats  Stats
	buf    []byte

	// The folder of the last entry, open: archives list a folder's files
	// together.
	parentName string
	parent     int
	haveParent bool

	dirs []dirEntry // whose modes and times are set at the end
}

type dirEntry struct {
	name string
	h    *tar.Header
}

const copyBuffer = 256 << 10

// below gives the entry's name below the wanted prefix.
func (x *extractor) below(name string) (string, bool) {
	switch {
	case x.opts.Prefix == "" || name == x.opts.Prefix:
		return strings.TrimPrefix(name, x.opts.Prefix), true
	default:
		return strings.CutPrefix(name, x.opts.Prefix+"/")
	}
}

// entryError names the entry in an error, and finds the kind of a system error.
func entryError(name string, err error) error {
	var known *api.Error
	kind := api.Internal
	switch {
	case errors.As(err, &known):
		kind = known.Kind
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return badArchive(err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		kind = api.NoSpace
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOTDIR),
		errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		kind = api.Invalid
	}
	return api.Errorf(kind, "entry %q: %w", name, err)
}

func (x *extractor) entry(h *tar.Header, name string, r io.Reader) error {
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return api.Errorf(api.Invalid, "the top must be a folder, it is %s", typeName(h.Typeflag))
		}
		x.dirs = append(x.dirs, dirEntry{"", keepHeader(h)})
		return nil
	}
	if err := x.checkOwner(h); err != nil {
		return err
	}
	dir, base := path.Split(name)
	parent, err := x.openParent(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return x.dir(parent, base, name, h)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return x.regular(parent, base, h, r)
	case tar.TypeSymlink:
		return x.symlink(parent, base, h)
	case tar.TypeLink:
		return x.hardlink(parent, base, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.node(parent, base, h)
	}
	return api.Errorf(api.Invalid, "it is %s", typeName(h.Typeflag))
}

func (x *extractor) checkOwner(h *tar.Header) error {
	const noID = 1<<32 - 1 // (uid_t)-1 means "leave as it is" to chown
	if h.Uid < 0 || h.Uid >= noID || h.Gid < 0 || h.Gid >= noID {
		return api.Errorf(api.Invalid, "owner %d:%d is out of range", h.Uid, h.Gid)
	}
	return nil
}

const (
	beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	dirPath = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW
)

// openat2 retries the errors that openat2(2) documents as passing.
func openat2(dirfd int, name string, flags, mode, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags, Mode: mode, Resolve: resolve}
	for {
		fd, err := unix.Openat2(dirfd, name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// openParent opens the folder of an entry, making it and those above it when
// the archive has left them out. The descriptor stays the extractor's.
func (x *extractor) openParent(name string) (int, error) {
	if name == "" {
		return x.root, nil
	}
	if x.haveParent && x.parentName == name {
		return x.parent, nil
	}
	fd, err := openat2(x.root, name, dirPath, 0, beneath)
	if errors.Is(err, unix.ENOENT) {
		fd, err = x.makeParents(name)
	}
	switch {
	case errors.Is(err, unix.ELOOP):
		return -1, api.Errorf(api.Invalid, "a symbolic link stands where folder %q should be: %w", name, err)
	case errors.Is(err, unix.ENOTDIR):
		return -1, api.Errorf(api.Invalid, "a file stands where folder %q should be: %w", name, err)
	case err != nil:
		return -1, fmt.Errorf("open folder %q: %w", name, err)
	}
	x.forgetParent()
	x.parentName, x.parent, x.haveParent = name, fd, true
	return fd, nil
}

func (x *extractor) makeParents(name string) (int, error) {
	fd, err := unix.FcntlInt(uintptr(x.root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for part := range strings.SplitSeq(name, "/") {
		if err := unix.Mkdirat(fd, part, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			unix.Close(fd)
			return -1, err
		}
		next, err := openat2(fd, part, dirPath, 0, beneath)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

func (x *extractor) forgetParent() {
	if x.haveParent {
		unix.Close(x.parent)
		x.haveParent = false
	}
}

// keepHeader copies what finishDirs needs, to not hold each whole header.
func keepHeader(h *tar.Header) *tar.Header {
	return &tar.Header{Name: h.Name, Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime, PAXRecords: h.PAXRecords}
}

// dir makes a folder only its owner can use; its true mode and times come when
// nothing is put into it any more.
func (x *extractor) dir(parent int, base, name string, h *tar.Header) error {
	err := unix.Mkdirat(parent, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err = unix.Unlinkat(parent, base, 0); err == nil {
				err = unix.Mkdirat(parent, base, 0o700)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	x.dirs = append(x.dirs, dirEntry{name, keepHeader(h)})
	return nil
}

// finishDirs sets owners, modes, attributes and times of folders, those further
// down first: a folder's own mode may forbid to enter it.
func (x *extractor) finishDirs(ctx context.Context) error {
	slices.SortStableFunc(x.dirs, func(a, b dirEntry) int { return strings.Compare(b.name, a.name) })
	for i, d := range x.dirs {
		if i%1024 == 0 && ctx.Err() != nil {
			return badArchive(ctx.Err())
		}
		if i+1 < len(x.dirs) && x.dirs[i+1].name == d.name {
			continue // the archive has a later entry of the folder
		}
		fd, err := openat2(x.root, pathOrDot(d.name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0, beneath)
		if err != nil {
			return entryError(d.h.Name, fmt.Errorf("open folder: %w", err))
		}
		err = x.finishFD(fd, d.h)
		unix.Close(fd)
		if err != nil {
			return entryError(d.h.Name, err)
		}
	}
	return nil
}

func pathOrDot(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// replacing runs create, and once more after removing what has the name: the
// last entry of a name counts, as in tar(1). A folder is not replaced.
func (x *extractor) replacing(parent int, base string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := unix.Unlinkat(parent, base, 0); err != nil {
		return fmt.Errorf("replace an earlier entry: %w", err)
	}
	return create()
}

func (x *extractor) skip(format string, args ...any) {
	if len(x.stats.Skipped) < maxSkipped {
		x.stats.Skipped = append(x.stats.Skipped, fmt.Sprintf(format, args...))
	}
}
