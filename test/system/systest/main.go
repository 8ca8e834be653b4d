//go:build system

package systest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The environment that the outer process hands to the tests.
const (
	envTop    = "CROFT_SYSTEST_TOP"    // directory of everything that the run makes
	envBin    = "CROFT_SYSTEST_BIN"    // directory of croft and croftd
	envImages = "CROFT_SYSTEST_IMAGES" // directory of the images
)

// Main runs the tests of a package. It is called twice: the outer process, in
// the host's namespaces, provides programs and images, for which the network may
// be needed; the inner one runs the tests. The result is for os.Exit.
func Main(m *testing.M) int {
	if os.Getenv(envTop) == "" {
		code, err := outer()
		if err != nil {
			fmt.Fprintln(os.Stderr, "system tests:", err)
			return 1
		}
		return code
	}
	if err := prepareNamespaces(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the namespaces of the tests:", err)
		return 1
	}
	code := m.Run()
	if left := namespaceLeftovers(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "--- FAIL: left in the network namespace after all tests:")
		for _, l := range left {
			fmt.Fprintln(os.Stderr, "\t"+l)
		}
		return max(code, 1)
	}
	return code
}

// outer prepares what the tests need, runs them in namespaces of their own and
// removes what a run that was cut off has left.
func outer() (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("they make containers, which only root may")
	}
	// Not below /tmp, which may be a tmpfs: images would fill the memory.
	top, err := os.MkdirTemp("/var/tmp", "croft-systest-")
	if err != nil {
		return 1, err
	}
	if err := os.Chmod(top, 0o711); err != nil { // container root passes through
		return 1, err
	}
	defer func() { err = errors.Join(err, sweep(top), os.RemoveAll(top)) }()
	bin := filepath.Join(top, "bin")
	if err := provideBinaries(bin); err != nil {
		return 1, err
	}
	images, err := provideImages(top, bin)
	if err != nil {
		return 1, fmt.Errorf("provide images: %w", err)
	}
	return reexec(append(os.Environ(), envTop+"="+top, envBin+"="+bin, envImages+"="+images))
}

// reexec runs the test binary again in new namespaces. The inner process dies
// with this one.
func reexec(env []string) (int, error) {
	// An interrupt reaches the inner process too; stay to clean up after it.
	signal.Ignore(unix.SIGINT)
	runtime.LockOSThread() // the death signal is that of the thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}
