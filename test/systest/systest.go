//go:build system

// This file runs system tests in namespaces of their own, so that bridges,
// addresses and mounts of the host stay as they are, and finds the programs
// under test.
package systest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/internal/linux"
)

const inside = "CROFT_TEST_NAMESPACE"

// Main runs the tests of a package in network and mount namespaces of their own.
// before, which may be nil, runs first and in the host's, where the network is;
// setup runs in the new ones, with a directory that is removed afterwards. The
// result is for os.Exit.
func Main(m *testing.M, before func() error, setup func(dir string) error) int {
	if os.Getenv(inside) == "" {
		if before != nil {
			if err := before(); err != nil {
				fmt.Fprintln(os.Stderr, "prepare the system tests:", err)
				return 1
			}
		}
		return reexec()
	}
	dir, err := os.MkdirTemp("", "croft-systest-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = prepareNamespaces()
	}
	if err == nil {
		err = setup(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare the system tests:", err)
		return 1
	}
	return m.Run()
}

func reexec() int {
	runtime.LockOSThread() // the death signal is the thread's, not the process's
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the system tests need root:", err)
		return 1
	}
	return 0
}

// prepareNamespaces makes the mounts private and shows the new network
// namespace in /sys, where liblxc looks for bridges. What is mounted below /sys
// moves along.
func prepareNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	mounts, err := linux.ThreadMounts()
	if err != nil {
		return err
	}
	below := map[string]*os.File{}
	var order []string
	for _, m := range mounts {
		if !strings.HasPrefix(m.Target, "/sys/") || underAny(m.Target, order) {
			continue
		}
		tree, err := linux.CloneMount(m.Target, true)
		if err != nil {
			return err
		}
		defer tree.Close()
		below[m.Target] = tree
		order = append(order, m.Target)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, target := range order {
		if err := linux.MoveMount(below[target], target); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func underAny(path string, dirs []string) bool {
	for _, d := range dirs {
		if strings.HasPrefix(path, d+"/") {
			return true
		}
	}
	return false
}

// Program puts a copy of croft or croftd into dir: processes are recognised by
// their program, and a rebuild during the test changes nothing. It is taken from
// the directory CROFT_TEST_BIN, or built.
func Program(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	given := os.Getenv("CROFT_TEST_BIN")
	if given == "" {
		out, err := exec.Command("go", "build", "-buildmode=exe", "-o", path, "github.com/croft-project/croft/cmd/"+name).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("go build: %w\n%s", err, out)
		}
		return path, nil
	}
	data, err := os.ReadFile(filepath.Join(given, name))
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, 0o755)
}
