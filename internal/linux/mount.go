package linux

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// CloneMount makes a detached copy of the mount that path is on, with path as
// its root: a bind mount that is attached nowhere. With recursive the mounts
// below path come along. Closing the descriptor dissolves the copy unless
// [MoveMount] has attached it.
//
// Source: open_tree(2).
func CloneMount(path string, recursive bool) (*os.File, error) {
	return cloneMount(unix.AT_FDCWD, path, 0, recursive)
}

// CloneMountAt is CloneMount of an open file or directory.
func CloneMountAt(f *os.File, recursive bool) (*os.File, error) {
	defer runtime.KeepAlive(f)
	m, err := cloneMount(int(f.Fd()), "", unix.AT_EMPTY_PATH, recursive)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return m, nil
}

func cloneMount(dir int, path string, flags uint, recursive bool) (*os.File, error) {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_SYMLINK_NOFOLLOW
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return nil, &os.PathError{Op: "clone the mount of", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// SetIDMap gives a detached mount the maps of a user namespace: a file that the
// disk says is owned by the container's id N is seen with the host id that N
// maps to, and files made through the mount are stored the other way round. The
// mount must not have been attached or mapped before.
//
// It fails with EINVAL where the file system cannot be mapped and with EPERM
// where the mount belongs to a user namespace other than the first.
// Source: mount_setattr(2), MOUNT_ATTR_IDMAP.
func SetIDMap(mnt, userns *os.File, recursive bool) error {
	defer runtime.KeepAlive(userns) // its number is all that is left of it below
	return setattr(mnt, recursive, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())})
}

// SetMountAttr sets and clears attributes (unix.MOUNT_ATTR_RDONLY and the like)
// of a mount.
func SetMountAttr(mnt *os.File, set, clear uint64, recursive bool) error {
	return setattr(mnt, recursive, &unix.MountAttr{Attr_set: set, Attr_clr: clear})
}

func setattr(mnt *os.File, recursive bool, attr *unix.MountAttr) error {
	defer runtime.KeepAlive(mnt)
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(int(mnt.Fd()), "", flags, attr); err != nil {
		return &os.PathError{Op: "set the attributes of the mount of", Path: mnt.Name(), Err: err}
	}
	return nil
}

// MoveMount attaches a detached mount at target in the calling thread's
// namespace. A symbolic link as the last part of target is not followed.
// Source: move_mount(2).
func MoveMount(mnt *os.File, target string) error {
	defer runtime.KeepAlive(mnt)
	if err := unix.MoveMount(int(mnt.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "attach a mount at", Path: target, Err: err}
	}
	return nil
}

// MoveMountAt is MoveMount with an open directory as target.
func MoveMountAt(mnt, target *os.File) error {
	defer runtime.KeepAlive(mnt)
	defer runtime.KeepAlive(target)
	err := unix.MoveMount(int(mnt.Fd()), "", int(target.Fd()), "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return &os.PathError{Op: "attach a mount at", Path: target.Name(), Err: err}
	}
	return nil
}

// MountFS makes a detached mount of a file system. params are KEY=VALUE, or KEY
// for a flag; attrs are unix.MOUNT_ATTR_* flags. The error carries what the file
// system itself reported. Source: fsopen(2), fsconfig(2), fsmount(2).
func MountFS(fstype string, attrs int, params ...string) (*os.File, error) {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open file system type %s: %w", fstype, err)
	}
	defer unix.Close(fd)
	for _, p := range params {
		key, value, ok := strings.Cut(p, "=")
		if ok {
			err = unix.FsconfigSetString(fd, key, value)
		} else {
			err = unix.FsconfigSetFlag(fd, key)
		}
		if err != nil {
			return nil, fmt.Errorf("mount %s: option %q: %w", fstype, p, fsLog(fd, err))
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fmt.Errorf("mount %s: %w", fstype, fsLog(fd, err))
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", fstype, fsLog(fd, err))
	}
	return os.NewFile(uintptr(mnt), fstype), nil
}

// fsLog adds the messages waiting in a file system context to err.
func fsLog(fd int, err error) error {
	buf := make([]byte, 1024)
	for {
		n, rerr := unix.Read(fd, buf)
		if rerr != nil || n <= 2 {
			return err
		}
		err = fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[2:n])))
	}
}

// Overlay describes an overlay mount. Its paths may be relative to the calling
// thread's working directory, which keeps the option text short and free of the
// host's paths.
type Overlay struct {
	Lower       []string // read-only layers, topmost first; at least one
	Upper, Work string   // on one mount; both empty for a read-only overlay
	Index       bool     // index=on,nfs_export=on instead of index=off
	Flags       uintptr  // unix.MS_NODEV and the like
	Target      string

	// UID and GID are the host's ids of the user who is root inside. The overlay
	// does its own work (work directory, copy-up) as that user, because host root
	// does not exist on an upper that is mapped to a container.
	UID, GID int
}

// MountOverlay attaches an overlay in the calling thread's namespace. When UID or
// GID is not 0 it changes the thread's file system ids for the length of the
// call, so call it on a thread of your own ([OnThread], [PrivateNS]).
//
// Source: the kernel's Documentation/filesystems/overlayfs.rst.
func MountOverlay(o Overlay) (err error) {
	if o.UID != 0 || o.GID != 0 {
		restore, ferr := asFSUser(o.UID, o.GID)
		if ferr != nil {
			return ferr
		}
		defer func() { err = errors.Join(err, restore()) }()
	}
	if err := unix.Mount("overlay", o.Target, "overlay", o.Flags, o.options()); err != nil {
		return fmt.Errorf("mount overlay of %d layers: %w", len(o.Lower), err)
	}
	return nil
}

func (o Overlay) options() string {
	lower := make([]string, len(o.Lower))
	for i, l := range o.Lower {
		lower[i] = escapeOverlay(l)
	}
	// metacopy is switched off by name: a host may have made it the default, and
	// with it a layer could say whose data a file has.
	opts := []string{"lowerdir=" + strings.Join(lower, ":"), "metacopy=off"}
	if o.Upper == "" {
		return strings.Join(opts, ",")
	}
	opts = append(opts, "upperdir="+escapeOverlay(o.Upper), "workdir="+escapeOverlay(o.Work), "redirect_dir=on")
	if o.Index {
		return strings.Join(append(opts, "index=on", "nfs_export=on"), ",")
	}
	return strings.Join(append(opts, "index=off", "nfs_export=off"), ",")
}

// escapeOverlay protects the characters that separate options and layers.
func escapeOverlay(path string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}

const secbitNoSetuidFixup = 1 << 2 // linux/securebits.h

// asFSUser makes the thread act on file systems as uid and gid while it keeps
// its capabilities, and returns the way back. Source: setfsuid(2),
// capabilities(7) on SECBIT_NO_SETUID_FIXUP.
func asFSUser(uid, gid int) (restore func() error, err error) {
	old, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("read securebits: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, uintptr(old|secbitNoSetuidFixup), 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set securebits: %w", err)
	}
	// setfsuid and setfsgid report failure only by not changing the id.
	gid0, _ := unix.SetfsgidRetGid(gid)
	uid0, _ := unix.SetfsuidRetUid(uid)
	restore = func() error {
		_, _ = unix.SetfsuidRetUid(uid0)
		_, _ = unix.SetfsgidRetGid(gid0)
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, uintptr(old), 0, 0, 0); err != nil {
			return fmt.Errorf("restore securebits: %w", err)
		}
		return nil
	}
	u, _ := unix.SetfsuidRetUid(-1)
	g, _ := unix.SetfsgidRetGid(-1)
	if u != uid || g != gid {
		return nil, errors.Join(fmt.Errorf("act as uid %d gid %d: not permitted", uid, gid), restore())
	}
	return restore, nil
}
