package daemon

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// seccomp is the system call; sizes is struct seccomp_notif_sizes.
func seccomp(operation uintptr, sizes *[3]uint16) error {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, operation, 0, uintptr(unsafe.Pointer(sizes)))
	if errno != 0 {
		return errno
	}
	return nil
}
