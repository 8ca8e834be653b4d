package linux

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// OnThread runs fn on an operating-system thread of its own and returns its
// error. The thread ends with fn, so fn may change what belongs to threads
// (namespaces, credentials, working directory after CLONE_FS) without undoing
// it. Processes started by fn inherit the changes. fn must not start goroutines
// that rely on them.
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end before the process, and /proc/self shows
			// its namespaces: keep it busy here and take another one.
			done <- OnThread(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- fn() // still locked: the runtime ends the thread with the goroutine
	}()
	return <-done
}

// PrivateNS runs fn on a thread that has a mount namespace of its own, with a
// working directory of its own. Mounts of the host propagate into it, none
// propagate out. When PrivateNS returns, the namespace is gone unless fn left
// something that holds it, such as a process it started: whatever was mounted
// is then already unmounted.
//
// Source: mount_namespaces(7).
func PrivateNS(ctx context.Context, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return OnThread(func() error {
		host, err := os.Open("/proc/thread-self/ns/mnt")
		if err != nil {
			return fmt.Errorf("open the host's mount namespace: %w", err)
		}
		defer host.Close()
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the mount namespace: %w", err)
		}
		// Leaving by setns dissolves the namespace now; a thread's end would do it
		// some time after the caller has gone on.
		defer unix.Setns(int(host.Fd()), unix.CLONE_NEWNS)
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("detach the mount namespace from the host's: %w", err)
		}
		return fn()
	})
}

// DetachHostMounts lazily unmounts everything in the calling thread's mount
// namespace but the root, what is at or below a path of keep, and the mounts
// that lead there. A process that lives in the namespace then does not keep the
// host's file systems busy. keep has to list what the process will still look
// for, as /usr or /var may be mounts. Call it inside [PrivateNS] only.
func DetachHostMounts(keep []string) error {
	mounts, err := ThreadMounts()
	if err != nil {
		return err
	}
	for _, target := range toDetach(mounts, keep) {
		// Repeated, as mounts may be stacked on one directory; EINVAL says that
		// none is left there.
		for unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
		}
	}
	return nil
}

// toDetach lists the topmost mount points that may go: detaching one takes all
// below it along.
func toDetach(mounts []MountInfo, keep []string) []string {
	var out []string
	for _, m := range mounts {
		if m.Target == "/" || leads(m.Target, keep) {
			continue
		}
		covered := false
		for _, o := range out {
			covered = covered || within(m.Target, o)
		}
		if !covered {
			out = append(out, m.Target)
		}
	}
	return out
}

// leads reports whether path is at, above or below one of keep.
func leads(path string, keep []string) bool {
	for _, k := range keep {
		k = filepath.Clean(k)
		if within(path, k) || within(k, path) {
			return true
		}
	}
	return false
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// MountInfo is one line of a mountinfo file; proc_pid_mountinfo(5).
type MountInfo struct {
	ID, Parent int
	Root       string // the directory of the file system that is mounted
	Target     string // where, as seen from the reader's root
	Options    string // of the mount, comma-separated
	FSType     string
	Source     string
	SuperOpts  string // of the file system, comma-separated
}

// ThreadMounts lists the mounts of the calling thread's namespace, parents
// before children.
func ThreadMounts() ([]MountInfo, error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return ParseMountInfo(string(b))
}

// ParseMountInfo reads the text of a mountinfo file.
func ParseMountInfo(text string) ([]MountInfo, error) {
	var out []MountInfo
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		head, tail, ok := strings.Cut(line, " - ")
		h, t := strings.Split(head, " "), strings.SplitN(tail, " ", 3)
		if !ok || len(h) < 6 || len(t) < 2 {
			return nil, fmt.Errorf("mount table: cannot read line %q", line)
		}
		m := MountInfo{
			Root: unescapeOctal(h[3]), Target: unescapeOctal(h[4]), Options: h[5],
			FSType: t[0], Source: unescapeOctal(t[1]),
		}
		if len(t) == 3 {
			m.SuperOpts = t[2]
		}
		if _, err := fmt.Sscan(h[0]+" "+h[1], &m.ID, &m.Parent); err != nil {
			return nil, fmt.Errorf("mount table: cannot read line %q: %w", line, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// unescapeOctal undoes the \ooo form in which the kernel prints blanks and
// backslashes.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
