//go:build system

package storagetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/storage"
)

// Run runs the whole suite on a driver.
func Run(t *testing.T, driver storage.Constructor) {
	for name, test := range map[string]func(*testing.T, *fixture){
		"Clone": testClone, "Write": testWrite, "Isolation": testIsolation, "Copy": testCopy, "Empty": testEmpty,
		"Rename": testRename, "Delete": testDelete, "DeleteWhileHeld": testDeleteWhileHeld, "Errors": testErrors,
		"Concurrent": testConcurrent, "HostTable": testHostTable, "Privileged": testPrivileged, "NoDev": testNoDev,
		"Modes": testModes, "Cancel": testCancel, "DeepTree": testDeepTree, "Pools": testPools,
	} {
		t.Run(name, func(t *testing.T) { test(t, newFixture(t, driver)) })
	}
	t.Run("Crash", func(t *testing.T) { testCrash(t, newFixture(t, driver), driver) })
}

var c1 = storage.Ref{Project: "default", Name: "c1"}
var c2 = storage.Ref{Project: "team", Name: "c2"}

func (f *fixture) images() map[string]storage.Image {
	return map[string]storage.Image{"squashfs": f.squashfs, "tarball": f.tarball}
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// stopped runs fn with the tree of a stopped instance.
func (f *fixture) stopped(t *testing.T, ref storage.Ref, fn func(tree *os.File, path string)) {
	t.Helper()
	tree, err := f.pool.OpenRoot(t.Context(), ref)
	must(t, err)
	defer tree.Close()
	fn(tree, fmt.Sprintf("/proc/self/fd/%d/.", tree.Fd()))
}

func testClone(t *testing.T, f *fixture) {
	want := describe(t, f.tree, 0)
	for name, img := range f.images() {
		ref := storage.Ref{Name: name}
		must(t, f.pool.Clone(t.Context(), ref, img))
		f.staged(t, ref, func(c container) { same(t, name+" in the container", describe(t, c.root, base), want) })
		f.stopped(t, ref, func(_ *os.File, path string) { same(t, name+" stopped", describe(t, path, 0), want) })
	}
}

func testWrite(t *testing.T, f *fixture) {
	for name, img := range f.images() {
		ref := storage.Ref{Name: name}
		must(t, f.pool.Clone(t.Context(), ref, img))
		f.staged(t, ref, func(c container) {
			c.do("mkdir", "new/dir")
			c.do("write", "new/dir/file", "text")
			c.do("chown", "new/dir/file", "1000")
			c.do("write", "etc/hostname", "changed")
			c.do("rename", "etc/deep", "home/moved")
			c.do("rename", "etc", "etc2")
			c.do("link", "etc2/hostname", "linked")
			c.do("remove", "tmp")
			c.do("chown", "home/user/notes", "65535")
			if out, err := c.try("chown", "new", "65536"); err == nil {
				t.Errorf("an id outside the map was accepted: %s", out)
			}
		})
		// Mounted again, and seen without a map.
		f.staged(t, ref, func(c container) { c.do("write", "second", "start") })
		f.stopped(t, ref, func(tree *os.File, path string) {
			for file, want := range map[string][2]uint32{
				"new/dir": {0, 0}, "new/dir/file": {1000, 1000}, "etc2/hostname": {0, 0}, "linked": {0, 0},
				"home/moved/er/file": {0, 0}, "home/user/notes": {65535, 65535}, "second": {0, 0},
			} {
				st, err := linux.StatInRoot(tree, file, true)
				if err != nil || st.Uid != want[0] || st.Gid != want[1] {
					t.Errorf("%s: %s on disk: owner %d:%d, want %v, error %v", name, file, st.Uid, st.Gid, want, err)
				}
			}
			for _, file := range []string{"etc", "tmp"} {
				if _, err := linux.StatInRoot(tree, file, false); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: %s is still there: %v", name, file, err)
				}
			}
			b, err := os.ReadFile(path + "/linked")
			if err != nil || string(b) != "changed" {
				t.Errorf("%s: linked = %q, %v", name, b, err)
			}
			if err := os.WriteFile(path+"/pushed", nil, 0o644); err != nil {
				t.Errorf("%s: write to a stopped instance: %v", name, err)
			}
		})
		if n, err := f.pool.Usage(t.Context(), ref); err != nil || n < 4096 {
			t.Errorf("%s: usage %d, %v", name, n, err)
		}
	}
}

func testIsolation(t *testing.T, f *fixture) {
	want := describe(t, f.tree, 0)
	for name, img := range f.images() {
		a, b := storage.Ref{Name: name + "-a"}, storage.Ref{Name: name + "-b"}
		must(t, f.pool.Clone(t.Context(), a, img))
		must(t, f.pool.Clone(t.Context(), b, img))
		f.staged(t, a, func(c container) {
			c.do("write", "etc/hostname", "mine")
			c.do("remove", "home")
		})
		f.stopped(t, b, func(_ *os.File, path string) { same(t, name+": the other clone", describe(t, path, 0), want) })
		late := storage.Ref{Name: name + "-late"}
		must(t, f.pool.Clone(t.Context(), late, img))
		f.stopped(t, late, func(_ *os.File, path string) { same(t, name+": a later clone", describe(t, path, 0), want) })
	}
}

func testCopy(t *testing.T, f *fixture) {
	for name, img := range f.images() {
		src, dst := storage.Ref{Name: name}, storage.Ref{Project: "other", Name: name}
		must(t, f.pool.Clone(t.Context(), src, img))
		f.staged(t, src, func(c container) {
			c.do("write", "etc/hostname", "changed")
			c.do("remove", "tmp")
			c.do("rename", "home", "homes")
		})
		must(t, f.pool.Copy(t.Context(), src, dst))
		var want map[string]string
		f.stopped(t, src, func(_ *os.File, path string) { want = describe(t, path, 0) })
		f.stopped(t, dst, func(_ *os.File, path string) { same(t, name+": the copy", describe(t, path, 0), want) })
		f.staged(t, dst, func(c container) { c.do("write", "etc/hostname", "the copy's") })
		f.stopped(t, src, func(_ *os.File, path string) { same(t, name+": the source", describe(t, path, 0), want) })
	}
}

func testEmpty(t *testing.T, f *fixture) {
	must(t, f.pool.CreateEmpty(t.Context(), c1))
	f.staged(t, c1, func(c container) {
		c.do("write", "file", "x")
		if got := len(describe(t, c.root, base)); got != 2 {
			t.Errorf("%d entries, want the root and one file", got)
		}
	})
	must(t, f.pool.Copy(t.Context(), c1, c2))
	f.stopped(t, c2, func(tree *os.File, _ string) {
		if st, err := linux.StatInRoot(tree, "file", false); err != nil || st.Uid != 0 {
			t.Errorf("file: uid %d, %v", st.Uid, err)
		}
	})
}

func testRename(t *testing.T, f *fixture) {
	must(t, f.pool.Clone(t.Context(), c1, f.squashfs))
	f.staged(t, c1, func(c container) { c.do("write", "mark", "x") })
	must(t, f.pool.Rename(t.Context(), c1, c2))
	f.staged(t, c2, func(c container) { c.do("open", "mark") })
	refs, err := f.pool.Volumes(t.Context())
	if diff := cmp.Diff([]storage.Ref{c2}, refs); diff != "" || err != nil {
		t.Errorf("volumes (-want +got):\n%s%v", diff, err)
	}
	if _, err := os.Stat(filepath.Join(f.pool.Dir, "containers", "team_c2")); err != nil {
		t.Error(err)
	}
}

func (f *fixture) wantEmpty(t *testing.T) {
	t.Helper()
	must(t, f.pools.Flush(t.Context()))
	for _, sub := range []string{"containers", "images"} {
		entries, err := os.ReadDir(filepath.Join(f.pool.Dir, sub))
		if err != nil || len(entries) != 0 {
			t.Errorf("%s is not empty: %v %v", sub, entries, err)
		}
	}
}

func testDelete(t *testing.T, f *fixture) {
	for name, img := range f.images() {
		ref := storage.Ref{Name: name}
		must(t, f.pool.Clone(t.Context(), ref, img))
		f.staged(t, ref, func(c container) { c.do("write", "etc/hostname", "x") })
		must(t, f.pool.DeleteImage(t.Context(), img.Fingerprint)) // a volume may outlive its image
		f.staged(t, ref, func(c container) { c.do("open", "su") })
		must(t, f.pool.DeleteVolume(t.Context(), ref))
	}
	f.wantEmpty(t)
	wantNoLoop(t, f.dir)
}

func testDeleteWhileHeld(t *testing.T, f *fixture) {
	must(t, f.pool.Clone(t.Context(), c1, f.squashfs))
	f.staged(t, c1, func(c container) {
		held, err := os.Open(filepath.Join(c.root, "etc/hostname"))
		must(t, err)
		defer held.Close()
		c.do("write", "etc/empty", "x")
		must(t, f.pool.DeleteVolume(t.Context(), c1))
		must(t, f.pool.DeleteImage(t.Context(), f.squashfs.Fingerprint))
		f.wantEmpty(t)
	})
}

func testErrors(t *testing.T, f *fixture) {
	ctx := t.Context()
	must(t, f.pool.Clone(ctx, c1, f.squashfs))
	_, rootErr := f.pool.Root(ctx, c2)
	_, usageErr := f.pool.Usage(ctx, c2)
	bad := f.squashfs
	bad.Fingerprint = "../../" + bad.Fingerprint[6:]
	for what, c := range map[string]struct {
		err  error
		want api.Kind
	}{
		"clone twice":    {f.pool.Clone(ctx, c1, f.squashfs), api.Conflict},
		"create twice":   {f.pool.CreateEmpty(ctx, c1), api.Conflict},
		"copy on itself": {f.pool.Copy(ctx, c1, c1), api.Conflict},
		"copy nothing":   {f.pool.Copy(ctx, c2, storage.Ref{Name: "c3"}), api.NotFound},
		"rename nothing": {f.pool.Rename(ctx, c2, c1), api.NotFound},
		"rename onto":    {f.pool.Rename(ctx, c1, c1), api.Conflict},
		"delete nothing": {f.pool.DeleteVolume(ctx, c2), api.NotFound},
		"root":           {rootErr, api.NotFound},
		"usage":          {usageErr, api.NotFound},
		"name":           {f.pool.CreateEmpty(ctx, storage.Ref{Name: "../x"}), api.Invalid},
		"dots":           {f.pool.DeleteVolume(ctx, storage.Ref{Name: ".."}), api.Invalid},
		"project":        {f.pool.CreateEmpty(ctx, storage.Ref{Project: "a/b", Name: "x"}), api.Invalid},
		"no name":        {f.pool.DeleteVolume(ctx, storage.Ref{}), api.Invalid},
		"fingerprint":    {f.pool.EnsureImage(ctx, asTarball(bad)), api.Invalid},
		"pool in use":    {f.pools.Delete(ctx, f.pool.Name), api.InUse},
	} {
		if what == "rename onto" && c.err == nil {
			continue // renaming to the same name changes nothing
		}
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: got %v, want %s", what, c.err, c.want)
		}
	}
	must(t, f.pool.DeleteImage(ctx, strings.Repeat("0", 64)))
}

func asTarball(img storage.Image) storage.Image {
	img.Squashfs = false
	img.Unpack = func(context.Context, string) error { return nil }
	return img
}

// testConcurrent starts many clones of one image at once. All of them are served
// by at most one loop device, which goes away with the last.
func testConcurrent(t *testing.T, f *fixture) {
	const n = 8
	want := describe(t, f.tree, 0)
	var all, mounted sync.WaitGroup
	mounted.Add(n)
	errs := make([]error, n)
	for i := range n {
		all.Go(func() {
			ref := storage.Ref{Name: fmt.Sprint("c", i)}
			arrived := sync.OnceFunc(mounted.Done)
			defer arrived()
			if errs[i] = f.pool.Clone(t.Context(), ref, f.squashfs); errs[i] != nil {
				return
			}
			errs[i] = f.stage(t, ref, storage.StageOptions{}, func(root string) error {
				arrived()
				mounted.Wait() // all of them are up now
				if got := loops(t, f.dir); got > 1 {
					return fmt.Errorf("%d loop devices for one image", got)
				}
				if diff := cmp.Diff(want, describe(t, root, base)); diff != "" {
					return errors.New(diff)
				}
				return nil
			})
		})
	}
	all.Wait()
	must(t, errors.Join(errs...))
	wantNoLoop(t, f.dir)
}

// loops counts the loop devices of files below dir.
func loops(tb testing.TB, dir string) int {
	nodes, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(tb, err)
	n := 0
	for _, node := range nodes {
		b, err := os.ReadFile(node)
		if err == nil && strings.HasPrefix(string(b), dir) {
			n++
		}
	}
	return n
}

// wantNoLoop fails when a loop device stays. The kernel takes one away some time
// after its last user is gone.
func wantNoLoop(t *testing.T, dir string) {
	t.Helper()
	for range 500 {
		if loops(t, dir) == 0 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Error("a loop device was left behind")
}

func testHostTable(t *testing.T, f *fixture) {
	table := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", os.Getppid())) // a process that is not ours
		must(t, err)
		return string(b)
	}
	before := table()
	must(t, f.pool.Clone(t.Context(), c1, f.squashfs))
	f.stopped(t, c1, func(*os.File, string) {
		if after := table(); strings.Contains(after, f.dir) {
			t.Errorf("mounts of a stopped instance in the host's table:\n%s", after)
		}
	})
	f.staged(t, c1, func(container) {
		if after := table(); after != before {
			t.Errorf("the host's mounts changed from\n%s\nto\n%s", before, after)
		}
	})
	self, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(self), f.dir) {
		t.Errorf("mounts left in our own namespace:\n%s", self)
	}
}

func testPrivileged(t *testing.T, f *fixture) {
	must(t, f.pool.Clone(t.Context(), c1, f.squashfs))
	want := describe(t, f.tree, 0)
	root, err := f.pool.Root(t.Context(), c1)
	must(t, err)
	dir := filepath.Join(f.dir, "stage")
	must(t, linux.PrivateNS(t.Context(), func() error {
		if err := storage.Stage(t.Context(), root, storage.StageOptions{Dir: dir}); err != nil {
			return err
		}
		at := filepath.Join(dir, storage.StageRootfs)
		same(t, "privileged", describe(t, at, 0), want)
		return os.WriteFile(filepath.Join(at, "etc/hostname"), []byte("p"), 0o644)
	}))
}

func testNoDev(t *testing.T, f *fixture) {
	must(t, f.pool.Clone(t.Context(), c1, f.squashfs))
	for _, noDev := range []bool{false, true} {
		must(t, f.stage(t, c1, storage.StageOptions{NoDev: noDev}, func(root string) error {
			_, err := (container{t, root}).try("open", "null")
			if (err != nil) != noDev {
				t.Errorf("NoDev %v: open a device node: %v", noDev, err)
			}
			return nil
		}))
	}
}

// testModes checks that no other user of the host reaches a volume, where a
// container's root may have left set-user-id programs.
func testModes(t *testing.T, f *fixture) {
	must(t, f.pool.Clone(t.Context(), c1, f.squashfs))
	must(t, f.pool.EnsureImage(t.Context(), f.tarball))
	for path, want := range map[string]os.FileMode{
		".": 0o711, "containers": 0o711, "images": 0o711, "containers/c1": 0o700, "images/" + f.tarball.Fingerprint: 0o700,
	} {
		st, err := os.Stat(filepath.Join(f.pool.Dir, path))
		if path == "images/"+f.tarball.Fingerprint && err != nil {
			t.Error(err)
			continue
		}
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v, error %v", path, st.Mode().Perm(), want, err)
		}
	}
}

func testCancel(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	img := f.tarball
	img.Unpack = func(ctx context.Context, dest string) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	if err := f.pool.Clone(ctx, c1, img); !errors.Is(err, api.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	f.wantEmpty(t)
	must(t, f.pool.Clone(t.Context(), c1, f.tarball))
}

// testDeepTree deletes directories nested deeper than a path can be long.
func testDeepTree(t *testing.T, f *fixture) {
	must(t, f.pool.CreateEmpty(t.Context(), c1))
	root, err := f.pool.Root(t.Context(), c1)
	must(t, err)
	must(t, linux.PrivateNS(t.Context(), func() error {
		if err := unix.Chdir(filepath.Join(root.Dir, root.Bind)); err != nil {
			return err
		}
		for range 3000 {
			if err := errors.Join(unix.Mkdir("directory", 0), unix.Chdir("directory")); err != nil {
				return err
			}
		}
		return os.WriteFile("file", nil, 0o644)
	}))
	must(t, f.pool.DeleteVolume(t.Context(), c1))
	f.wantEmpty(t)
}

func testPools(t *testing.T, f *fixture) {
	ctx := t.Context()
	source := t.TempDir()
	elsewhere := storage.PoolConfig{Name: "p2", Driver: "test", Source: source}
	p2, err := f.pools.Create(ctx, elsewhere)
	must(t, err)
	if p2.Dir != source {
		t.Errorf("pool directory %s, want %s", p2.Dir, source)
	}
	if got := f.pools.List(); len(got) != 2 || got[0].Name != "p1" || got[1].Name != "p2" {
		t.Errorf("list: %v", got)
	}
	if s, err := p2.Space(); err != nil || s.Total == 0 || s.Used > s.Total {
		t.Errorf("space: %+v %v", s, err)
	}
	must(t, p2.Clone(ctx, c1, f.squashfs))
	for what, c := range map[string]storage.PoolConfig{
		"name": {Name: "a/b", Driver: "test"}, "driver": {Name: "x", Driver: "zfs"},
		"relative": {Name: "x", Driver: "test", Source: "x"}, "full source": {Name: "x", Driver: "test", Source: f.dir},
		"absent source": {Name: "x", Driver: "test", Source: source + "/none"},
	} {
		if _, err := f.pools.Create(ctx, c); !errors.Is(err, api.Invalid) {
			t.Errorf("%s: got %v, want invalid", what, err)
		}
	}
	if _, err := f.pools.Create(ctx, poolConfig); !errors.Is(err, api.Conflict) {
		t.Errorf("create twice: got %v, want conflict", err)
	}
	if err := f.pools.Delete(ctx, "p2"); !errors.Is(err, api.InUse) {
		t.Errorf("delete a pool with a volume: got %v, want in-use", err)
	}
	must(t, p2.DeleteVolume(ctx, c1))
	must(t, f.pools.Delete(ctx, "p2"))
	must(t, f.pools.Delete(ctx, "p1"))
	for _, dir := range []string{source, filepath.Join(f.dir, "storage-pools")} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s is not empty: %v %v", dir, entries, err)
		}
	}
	if _, err := f.pools.Open(ctx, poolConfig); !errors.Is(err, api.NotFound) {
		t.Errorf("open a deleted pool: got %v, want not-found", err)
	}
}

// testCrash kills a process that works in the pool at arbitrary points and checks
// each time that what is there is whole and nothing else is left.
func testCrash(t *testing.T, f *fixture, driver storage.Constructor) {
	want := describe(t, f.tree, 0)
	images, err := json.Marshal([]imageFile{
		{f.squashfs.Fingerprint, f.squashfs.RootfsFile, true}, {f.tarball.Fingerprint, f.tarball.RootfsFile, false},
	})
	must(t, err)
	for round := range 15 {
		cmd := exec.Command("/proc/self/exe", f.dir, string(images))
		cmd.Env = append(os.Environ(), "CROFT_STORAGETEST=churn")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = bufio.NewReader(out).ReadString('\n')
		must(t, err)
		<-time.After(time.Duration(round*7) * time.Millisecond)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()

		pools := openPools(f.dir, driver)
		f.pool, err = pools.Open(t.Context(), poolConfig)
		must(t, err)
		must(t, pools.Flush(t.Context()))
		refs, err := f.pool.Volumes(t.Context())
		must(t, err)
		for _, ref := range refs {
			f.stopped(t, ref, func(_ *os.File, path string) { same(t, "volume "+ref.String(), describe(t, path, 0), want) })
			must(t, f.pool.DeleteVolume(t.Context(), ref))
		}
		for _, img := range f.images() {
			must(t, f.pool.DeleteImage(t.Context(), img.Fingerprint))
		}
		must(t, pools.Close(t.Context()))
		f.wantEmpty(t)
	}
	wantNoLoop(t, f.dir)
}
