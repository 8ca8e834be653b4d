package helper

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readOnlyExcept gives the thread a private mount namespace in which every
// mount is read-only but the directories writable.
func readOnlyExcept(writable []string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	trees := make([]int, len(writable))
	for i, dir := range writable {
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("clone mount of %s: %w", dir, err)
		}
		defer unix.Close(fd)
		trees[i] = fd
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make mounts read-only: %w", err)
	}
	for i, dir := range writable {
		if err := unix.MoveMount(trees[i], "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount %s writable: %w", dir, err)
		}
	}
	return nil
}

const (
	landRead = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landExec = landRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// The rights that can be given on a file that is no directory.
	landFile = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	landAll2 = unix.LANDLOCK_ACCESS_FS_REFER<<1 - 1 // every right of ABI 2
	landAll3 = landAll2 | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// systemPaths is what any program needs to start and run. All of it is readable
// by every user of the host; the private parts of /proc are not, because
// Landlock forbids tracing processes outside the domain.
var systemPaths = map[string]uint64{
	"/usr": landExec, "/bin": landExec, "/sbin": landExec,
	"/lib": landExec, "/lib32": landExec, "/lib64": landExec,
	"/etc/ld.so.cache": landRead, "/etc/ld.so.preload": landRead,
	"/proc": landRead, "/sys/devices/system/cpu": landRead, "/sys/kernel/mm/transparent_hugepage": landRead,
	"/dev/null": landFile, "/dev/zero": landRead, "/dev/urandom": landRead,
}

// landlock puts the thread into a Landlock domain. Where the kernel has no
// Landlock, or only its first version, it does nothing.
func landlock(exe string, writable, readable []string) error {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || abi < 2 {
		return nil
	}
	handled := uint64(landAll2)
	if abi >= 3 {
		handled = landAll3
	}
	set := unix.LandlockRulesetAttr{Handled_access_fs: handled}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&set)), unsafe.Sizeof(set.Handled_access_fs), 0)
	if errno != 0 {
		return fmt.Errorf("landlock: create rules: %w", errno)
	}
	defer unix.Close(int(fd))

	for path, access := range systemPaths {
		if err := allow(int(fd), path, access&handled); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	rules := []struct {
		paths  []string
		access uint64
	}{
		{[]string{exe}, landExec},
		{readable, landRead},
		{writable, handled &^ unix.LANDLOCK_ACCESS_FS_EXECUTE},
	}
	for _, r := range rules {
		for _, path := range r.paths {
			if err := allow(int(fd), path, r.access); err != nil {
				return err
			}
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("landlock: restrict: %w", errno)
	}
	return nil
}

// allow adds a rule for path and, when it is a directory, all below it.
func allow(ruleset int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "landlock: open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "landlock: stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= landFile
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "landlock: allow", Path: path, Err: errno}
	}
	return nil
}
