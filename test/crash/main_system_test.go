//go:build system

package crash

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

// croftd is the daemon under test.
var croftd string

// TestMain runs the tests again in network and mount namespaces of their own.
func TestMain(m *testing.M) {
	const inside = "CROFT_TEST_CRASH_NS"
	if os.Getenv(inside) == "" {
		os.Exit(reexec(inside))
	}
	if err := prepareNamespaces(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the namespaces of the test:", err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "croft-crash-bin")
	if err == nil {
		croftd, err = findDaemon(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "find the daemon to test:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func reexec(inside string) int {
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

// findDaemon puts a copy of the daemon into dir: processes are recognised by
// their program, and a rebuild during the test changes nothing.
func findDaemon(dir string) (string, error) {
	path := filepath.Join(dir, "croftd")
	given := os.Getenv("CROFT_TEST_BIN")
	if given == "" {
		out, err := exec.Command("go", "build", "-buildmode=exe", "-o", path, "github.com/croft-project/croft/cmd/croftd").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("go build: %w\n%s", err, out)
		}
		return path, nil
	}
	data, err := os.ReadFile(given)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, 0o755)
}
