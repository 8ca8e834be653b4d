//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Only one bench runs on a host at a time: two would measure each other. So what an earlier one left is stale.
const (
	lockFile  = "/run/lock/croft-bench"
	dirPrefix = "croft-bench-"
)

// host owns everything that the bench leaves on the host while it runs: a directory, loop devices, cgroups, processes.
type host struct {
	dir   string // all state directories, loop files and logs
	token string // begins the name of every container of this run
	keep  bool
	lock  *os.File

	mu    sync.Mutex
	stops []func() error
}

func newHost(tmp string, keep bool) (*host, error) {
	lock, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another bench runs on this host (lock %s): %w", lockFile, err), lock.Close())
	}
	h := &host{token: fmt.Sprintf("cb%d", os.Getpid()), keep: keep, lock: lock}
	stale, _ := filepath.Glob(filepath.Join(tmp, dirPrefix+"cb*"))
	for _, dir := range stale {
		old := &host{dir: dir, token: strings.TrimPrefix(filepath.Base(dir), dirPrefix)}
		if err := old.sweep(); err != nil {
			progress("left over from an earlier run: %v", err)
		}
	}
	h.dir = filepath.Join(tmp, dirPrefix+h.token)
	if err := os.Mkdir(h.dir, 0o711); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return h, nil
}

// onClose registers what close calls before it removes anything.
func (h *host) onClose(stop func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stops = append(h.stops, stop)
}

// close ends the daemons, all at once, and removes what they left.
func (h *host) close() error {
	progress("cleaning up")
	errs := make([]error, len(h.stops))
	var wg sync.WaitGroup
	for i, stop := range h.stops {
		wg.Go(func() { errs[i] = stop() })
	}
	wg.Wait()
	return errors.Join(append(errs, h.sweep(), h.lock.Close())...)
}

// sweep removes what belongs to h.dir and h.token once no process uses it any more.
func (h *host) sweep() error {
	var errs []error
	// The kernel lets go of loop devices and cgroups a moment after their last user.
	for range 50 {
		errs = append(h.sweepMounts(), h.sweepLoops()...)
		errs = append(errs, h.sweepCgroups()...)
		if len(errs) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if h.keep {
		progress("kept %s", h.dir)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, os.RemoveAll(h.dir))...)
}

// sweepMounts is a safety net: the daemons mount in namespaces of their own, which end with them.
func (h *host) sweepMounts() (errs []error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []error{err}
	}
	for _, m := range topMounts(string(data), h.dir) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	return errs
}

func (h *host) sweepLoops() (errs []error) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(data), h.dir+"/") {
			continue
		}
		name := strings.Split(f, "/")[3]
		dev, err := os.Open("/dev/" + name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0)
		_ = dev.Close()
		// It goes with this close, or stays while something still has it open: the next look tells.
		errs = append(errs, fmt.Errorf("loop device %s of %s was still attached: %v", name, strings.TrimSpace(string(data)), err))
	}
	return errs
}

// sweepCgroups removes the cgroups of this run's containers, deepest first.
func (h *host) sweepCgroups() (errs []error) {
	name := regexp.MustCompile(`\b` + h.token + `[lic]\d+-`)
	var dirs []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && name.MatchString(path) {
			dirs = append(dirs, path)
		}
		return nil // a cgroup may vanish while we look
	})
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) })
	for _, dir := range dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errs
}
