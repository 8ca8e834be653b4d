package linux

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// UserNS makes a user namespace with the maps m and returns a descriptor of it,
// which the caller closes. The namespace has no process in it and lives as long
// as the descriptor or a mount that was given it. It costs about a millisecond.
//
// A process has to be born in the namespace for the maps to be written. It is a
// copy of this program that is traced, so that it stops before its first
// instruction, and is killed there. Where tracing is not possible (Yama's
// strictest mode, or the daemon is itself under strace) true(1) takes its place:
// the namespace of an exited process can be opened until it is reaped.
//
// Errors: Invalid for a bad map. Source: user_namespaces(7), ptrace(2).
func UserNS(m IDMap) (*os.File, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	// The tracer is the thread that forks: it must live until the child is reaped.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	ns, err := userNSOf(m, "/proc/self/exe", true)
	if errors.Is(err, unix.EPERM) {
		ns, err = userNSOf(m, "/bin/true", false)
	}
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	return ns, nil
}

func userNSOf(m IDMap, exe string, trace bool) (*os.File, error) {
	pid, err := syscall.ForkExec(exe, []string{"userns"}, &syscall.ProcAttr{
		Dir: "/",
		Sys: &syscall.SysProcAttr{
			Cloneflags:                 unix.CLONE_NEWUSER,
			UidMappings:                m.sysProc("uid"),
			GidMappings:                m.sysProc("gid"),
			GidMappingsEnableSetgroups: true,
			Ptrace:                     trace,
			Pdeathsig:                  unix.SIGKILL,
		},
	})
	if err != nil {
		return nil, err
	}
	defer reap(pid)
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
}

// reap kills a child and waits for its end, past the stops that tracing reports.
func reap(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL) // not reaped yet, so the pid is still the child's
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || ws.Exited() || ws.Signaled() {
			return
		}
	}
}
