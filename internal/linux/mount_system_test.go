//go:build system

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

var testMap = IDMap{{ContainerID: 0, HostID: 400_000_000, Count: 1000, UID: true, GID: true}}

func TestUserNS(t *testing.T) {
	ns, err := UserNS(testMap)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	dir := t.TempDir()
	if err := os.Chown(dir, 7, 8); err != nil {
		t.Fatal(err)
	}
	mnt, err := CloneMount(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer mnt.Close()
	if err := SetIDMap(mnt, ns, false); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(mnt.Fd()), &st); err != nil || st.Uid != 400_000_007 || st.Gid != 400_000_008 {
		t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
	}
	if err := SetIDMap(mnt, ns, false); err == nil {
		t.Error("a mount was mapped twice")
	}
	// Neither way of making the namespace leaves a process.
	if ns, err := userNSOf(testMap, "/bin/true", false); err != nil {
		t.Errorf("without tracing: %v", err)
	} else {
		ns.Close()
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("child left: %d, %v", pid, err)
	}
}

func TestPrivateNS(t *testing.T) {
	dir := t.TempDir()
	before, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err = PrivateNS(t.Context(), func() error {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "inside"), nil, 0o600); err != nil {
			return err
		}
		// Children are born in the namespace.
		if out, err := exec.Command("ls", dir).CombinedOutput(); err != nil || string(out) != "inside\n" {
			t.Errorf("child: %q %v", out, err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("mount visible outside: %v %v", entries, err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if now, err := os.Readlink("/proc/thread-self/ns/mnt"); err != nil || now != before {
				t.Errorf("a thread of the program is in %s (%v), want %s", now, err, before)
			}
		})
	}
	all.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := PrivateNS(ctx, func() error { return boom }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestDetachHostMounts(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(PrivateNS(t.Context(), func() error {
		for _, d := range []string{"keep", "keep/below", "go", "go/below"} {
			path := filepath.Join(dir, d)
			must(os.Mkdir(path, 0o700))
			must(unix.Mount("tmpfs", path, "tmpfs", 0, ""))
		}
		must(unix.Mount("tmpfs", filepath.Join(dir, "go"), "tmpfs", 0, "")) // stacked
		if err := DetachHostMounts([]string{"/proc", filepath.Join(dir, "keep")}); err != nil {
			return err
		}
		mounts, err := ThreadMounts()
		must(err)
		var got []string
		for _, m := range mounts {
			if !strings.HasPrefix(m.Target, "/proc") {
				got = append(got, m.Target)
			}
		}
		want := []string{"/", dir + "/keep", dir + "/keep/below"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("left %q, want %q", got, want)
		}
		return nil
	}))
}

func TestAttachLoop(t *testing.T) {
	dir := t.TempDir()
	image := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := image("a"), image("b")
	const n = 20
	devs := make([]*os.File, 2*n)
	errs := make([]error, 2*n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { devs[i], errs[i] = AttachLoop(a) })
		all.Go(func() { devs[n+i], errs[n+i] = AttachLoop(b) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if devs[i].Name() != devs[0].Name() || devs[n+i].Name() != devs[n].Name() || devs[0].Name() == devs[n].Name() {
			t.Errorf("%s, %s: not one device for each file", devs[i].Name(), devs[n+i].Name())
		}
	}
	if err := os.WriteFile(devs[0].Name(), []byte("x"), 0); err == nil {
		t.Error("the device is writable")
	}
	for _, d := range devs {
		d.Close()
	}
	if err := os.Symlink(a, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{dir, filepath.Join(dir, "none"), filepath.Join(dir, "link"), "/dev/null"} {
		if f, err := AttachLoop(bad); err == nil {
			f.Close()
			t.Errorf("%s was attached", bad)
		}
	}
}

func TestMountFSReportsWhy(t *testing.T) {
	if m, err := MountFS("tmpfs", 0, "mode=0711", "bogus=1"); err == nil || !strings.Contains(err.Error(), "bogus") {
		t.Errorf("%v %v", m, err)
	}
	if m, err := MountFS("nosuchfs", 0); !errors.Is(err, unix.ENODEV) {
		t.Errorf("%v %v", m, err)
	}
}

func TestOverlayAwkwardPaths(t *testing.T) {
	dir := t.TempDir()
	err := PrivateNS(t.Context(), func() error {
		at := func(name string) string { return filepath.Join(dir, name) }
		for _, d := range []string{`lo:wer`, `lo,wer2`, `lo\wer3`, `up,p:er\`, `wo,r:k`, "m"} {
			if err := os.Mkdir(at(d), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(at(`lo\wer3/f`), nil, 0o600); err != nil {
			return err
		}
		o := Overlay{Lower: []string{at(`lo:wer`), at(`lo,wer2`), at(`lo\wer3`)}, Upper: at(`up,p:er\`), Work: at(`wo,r:k`), Target: at("m")}
		if err := MountOverlay(o); err != nil {
			return err
		}
		return errors.Join(os.Rename(at("m/f"), at("m/g")), unix.Unmount(at("m"), 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, `up,p:er\/g`)); err != nil {
		t.Error(err)
	}
}

// TestMountOverlayRestoresThread: a process started afterwards must not inherit
// file system ids or securebits.
func TestMountOverlayRestoresThread(t *testing.T) {
	err := OnThread(func() error {
		restore, err := asFSUser(1000, 1001)
		if err != nil {
			return err
		}
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
			return err // capabilities are kept, so root's directory is writable
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "d"), &st); err != nil || st.Uid != 1000 || st.Gid != 1001 {
			t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
		}
		if err := restore(); err != nil {
			return err
		}
		status, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			return err
		}
		bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
		if bits != 0 || err != nil || !strings.Contains(string(status), "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n") {
			t.Errorf("securebits %d (%v), status:\n%s", bits, err, status)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	f, err := Probe(t.Context(), dir)
	if err != nil || f.IDMapped != nil || f.Overlay != nil || f.Squashfs != nil {
		t.Errorf("%+v %v", f, err) // holds on the kernels the tests are run on
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v %v", entries, err)
	}
}

func TestRemoveImmutable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/f", nil, 0o600), os.Mkdir(dir+"/sub", 0), os.WriteFile(dir+"/sub/g", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, flag := range map[string]int{dir + "/f": 0x10, dir + "/sub/g": 0x20, dir + "/sub": 0x10, dir: 0x20} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		f.Close()
	}
	if err := RemoveAll(t.Context(), dir); err != nil {
		t.Error(err)
	}
}
