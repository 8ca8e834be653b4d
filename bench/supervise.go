//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// superviseArg makes this program the supervisor of one daemon:
//
//	bench supervise-daemon SCRATCH PROGRAM ARG...
//
// It is started in a fresh mount and network namespace. It becomes the reaper of everything that descends from the
// daemon (container monitors double-fork away from it), so that all of it can be counted and ended. It runs until
// its standard input ends: also when the bench dies.
const superviseArg = "supervise-daemon"

// How long a daemon may take to end by itself before everything below the supervisor is killed.
const daemonStopLimit = 20 * time.Second

func supervise(args []string) int {
	if err := superviseDaemon(args); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
		return 1
	}
	return 0
}

func superviseDaemon(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: %s SCRATCH PROGRAM ARG...", superviseArg)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	if err := ownSysfs(args[0]); err != nil {
		return fmt.Errorf("sysfs of the own network namespace: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec(args[1], args[1:], &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), 2, 2}, // stdout is the line to the bench
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", args[1], err)
	}
	fmt.Println(pid)

	daemonEnded, allEnded := reap(pid)
	_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
	_ = unix.Kill(pid, unix.SIGTERM)
	select {
	case <-daemonEnded:
	case <-time.After(daemonStopLimit):
		fmt.Fprintf(os.Stderr, "supervisor: daemon %d did not end after SIGTERM\n", pid)
	}
	for {
		select {
		case <-allEnded:
			return nil
		case <-time.After(20 * time.Millisecond):
			for _, p := range descendants(os.Getpid()) {
				_ = unix.Kill(p, unix.SIGKILL)
			}
		}
	}
}

// reap collects every child that ends. It is the only caller of wait in the supervisor.
func reap(daemon int) (daemonEnded, allEnded chan struct{}) {
	daemonEnded, allEnded = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(allEnded)
		for {
			var ws unix.WaitStatus
			pid, err := unix.Wait4(-1, &ws, 0, nil)
			switch {
			case err == unix.EINTR:
			case err != nil: // ECHILD: nothing is left
				return
			case pid == daemon:
				fmt.Fprintf(os.Stderr, "supervisor: daemon %d ended: exit code %d, signal %d\n", pid, ws.ExitStatus(), ws.Signal())
				close(daemonEnded)
			}
		}
	}()
	return daemonEnded, allEnded
}

// ownSysfs mounts sysfs again, because /sys/class/net shows the network namespace of whoever mounted it, and puts
// what was mounted below it (cgroups, securityfs) back.
func ownSysfs(scratch string) error {
	below, err := mountsBelow("/sys")
	if err != nil {
		return err
	}
	old := filepath.Join(scratch, "sys")
	if err := os.MkdirAll(old, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("/sys", old, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind /sys: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	for _, m := range below {
		// A mount point that the new sysfs does not have belongs to nothing the daemons use.
		err := unix.Mount(filepath.Join(old, strings.TrimPrefix(m, "/sys")), m, "", unix.MS_BIND|unix.MS_REC, "")
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("bind %s: %w", m, err)
		}
	}
	return unix.Unmount(old, unix.MNT_DETACH)
}

// mountsBelow returns the mount points directly below dir, without those below another one.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return topMounts(string(data), dir), nil
}

func topMounts(mountinfo, dir string) []string {
	var top []string
next:
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[4], dir+"/") {
			continue
		}
		for _, t := range top {
			if fields[4] == t || strings.HasPrefix(fields[4], t+"/") {
				continue next
			}
		}
		top = append(top, fields[4])
	}
	return top
}
