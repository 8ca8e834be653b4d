package helper

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Confine limits what a helper may do. Setting it up needs root (or root of a
// user namespace that allows mounts). Every confined helper has
// PR_SET_NO_NEW_PRIVS, no core dumps, and exactly the capabilities in Caps.
type Confine struct {
	// UID and GID the helper runs as, without supplementary groups. 0 is root
	// without any rights but Caps and those of a file's owner.
	UID, GID uint32
	// Caps are the capabilities (unix.CAP_…) it keeps.
	Caps []uintptr
	// NoNetwork gives it an empty network namespace, and IPC and UTS
	// namespaces of its own.
	NoNetwork bool
	// PIDs makes it the first process of a PID namespace: what it starts dies
	// with it, and it can signal nothing else.
	PIDs bool
	// Files limits the file system to what Writable and Readable name, besides
	// programs and libraries. Two layers do it: a private mount namespace in
	// which everything but Writable is read-only (mount_setattr(2), Linux
	// 5.12), and Landlock where the kernel has it (landlock(7), ABI 2 or
	// later, because ABI 1 forbids hard links between directories).
	Files bool
	// Writable are existing directories in which files may be made and changed.
	Writable []string
	// Readable are further files, or directories with all below them, that may
	// be read. Files that are passed open need no mention.
	Readable []string
	// Limits are resource limits, soft and hard alike, by unix.RLIMIT_…; they
	// can only lower what the caller has. Beware of RLIMIT_AS and RLIMIT_DATA:
	// a Go program reserves more than it uses.
	Limits map[int]uint64
}

// start is cmd.Start under c's limits.
func (c *Confine) start(cmd *exec.Cmd) error {
	if c == nil {
		return cmd.Start()
	}
	flags := uintptr(0)
	if c.NoNetwork {
		flags |= unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	}
	if c.PIDs {
		flags |= unix.CLONE_NEWPID
	}
	cmd.SysProcAttr.Cloneflags = flags
	if c.UID != 0 || c.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID}
		cmd.SysProcAttr.AmbientCaps = c.Caps
	} else {
		cmd.SysProcAttr.Credential = &syscall.Credential{} // drops supplementary groups
	}
	errc := make(chan error, 1)
	onDiscardedThread(func() { errc <- c.startHere(cmd) })
	return <-errc
}

// onDiscardedThread runs fn on an operating-system thread that ends with it, so
// that fn may change what a thread has for itself: its mount namespace, its
// Landlock domain, its capability bounding set. The thread is never the
// process's first, whose view /proc/self shows.
func onDiscardedThread(fn func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			fn()
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			fn()
		}()
		<-done // holding the first thread meanwhile
		runtime.UnlockOSThread()
	}()
}

// startHere limits the calling thread and forks from it; the child inherits.
func (c *Confine) startHere(cmd *exec.Cmd) error {
	if c.Files {
		if err := readOnlyExcept(c.Writable); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if c.Files {
		if err := landlock(cmd.Path, c.Writable, c.Readable); err != nil {
			return err
		}
	}
	if err := boundCapabilities(c.Caps); err != nil {
		return err
	}
	return cmd.Start()
}

// limits is what the request carries for the child to set on itself before it
// works. A parent without CAP_SYS_RESOURCE can't set them for another user.
func (c *Confine) limits() map[int]uint64 {
	if c == nil {
		return nil
	}
	all := map[int]uint64{unix.RLIMIT_CORE: 0}
	maps.Copy(all, c.Limits)
	return all
}

func setLimits(limits map[int]uint64) error {
	for res, value := range limits {
		lim := unix.Rlimit{Cur: value, Max: value}
		if err := unix.Setrlimit(res, &lim); err != nil {
			return fmt.Errorf("set resource limit %d to %d: %w", res, value, err)
		}
	}
	return nil
}

// boundCapabilities drops all capabilities but keep from the thread's bounding
// set: what execve(2) gives back to root is what is left there.
func boundCapabilities(keep []uintptr) error {
	kept := make(map[uintptr]bool, len(keep))
	for _, c := range keep {
		kept[c] = true
	}
	for c := uintptr(0); ; c++ {
		if kept[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last capability of this kernel
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
}
