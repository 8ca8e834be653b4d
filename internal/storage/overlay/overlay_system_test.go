//go:build system

package overlay_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/storage/overlay"
	"github.com/croft-project/croft/internal/storage/storagetest"
)

func TestMain(m *testing.M) { storagetest.Main(m, overlay.New) }

func TestSuite(t *testing.T) { storagetest.Run(t, overlay.New) }

func BenchmarkSuite(b *testing.B) { storagetest.Benchmark(b, overlay.New) }

var (
	c1     = storage.Ref{Name: "c1"}
	config = storage.PoolConfig{Name: "p", Driver: "overlay"}
)

func newPools(dir string) *storage.Pools {
	return storage.NewPools(storage.Options{
		Dir: filepath.Join(dir, "pools"), StageDir: filepath.Join(dir, "stage"),
		Drivers: map[string]storage.Constructor{"overlay": overlay.New}, Log: slog.New(slog.DiscardHandler),
	})
}

func setUp(t *testing.T) (dir string, pools *storage.Pools, pool *storage.Pool, img storage.Image) {
	t.Helper()
	dir = t.TempDir()
	tree := filepath.Join(dir, "tree")
	must(t, errors.Join(os.Mkdir(tree, 0o755), os.WriteFile(tree+"/file", []byte("image"), 0o644), os.Mkdir(dir+"/stage", 0o711)))
	img = storage.Image{Fingerprint: strings.Repeat("ab", 32), RootfsFile: filepath.Join(dir, "store"), Squashfs: true}
	must(t, exec.Command("mksquashfs", tree, img.RootfsFile, "-noappend", "-quiet", "-no-progress").Run())
	pools = newPools(dir)
	pool, err := pools.Create(t.Context(), config)
	must(t, err)
	t.Cleanup(func() { must(t, pools.Close(context.Background())) })
	return dir, pools, pool, img
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, pool *storage.Pool, ref storage.Ref) {
	t.Helper()
	tree, err := pool.OpenRoot(t.Context(), ref)
	must(t, err)
	defer tree.Close()
	if _, err := linux.StatInRoot(tree, "file", false); err != nil {
		t.Error(err)
	}
}

// A volume needs nothing but the pool.
func TestStoreMayDeleteImage(t *testing.T) {
	_, _, pool, img := setUp(t)
	must(t, pool.Clone(t.Context(), c1, img))
	must(t, os.Remove(img.RootfsFile))
	wantFile(t, pool, c1)
}

func images(t *testing.T, pool *storage.Pool) int {
	t.Helper()
	all, err := pool.Images(t.Context())
	must(t, err)
	return len(all)
}

// Overlayfs remembers inodes: an image that volumes stand on is never replaced.
func TestGivenUpImage(t *testing.T) {
	dir, pools, pool, img := setUp(t)
	ctx := t.Context()
	must(t, pool.Clone(ctx, c1, img))
	layer := func() (path string, ino uint64) {
		root, err := pool.Root(ctx, c1)
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Stat(root.Layers[0].Path, &st))
		return root.Layers[0].Path, st.Ino
	}
	path, ino := layer()
	must(t, pool.DeleteImage(ctx, img.Fingerprint))
	if n := images(t, pool); n != 0 {
		t.Errorf("%d images after it was deleted", n)
	}
	wantFile(t, pool, c1)

	again := img // imported anew: the same bytes in another file
	again.RootfsFile = filepath.Join(dir, "store2")
	must(t, exec.Command("cp", img.RootfsFile, again.RootfsFile).Run())
	must(t, pool.EnsureImage(ctx, again))
	if p, i := layer(); p != path || i != ino || images(t, pool) != 1 {
		t.Errorf("layer %s inode %d became %s inode %d", path, ino, p, i)
	}
	must(t, pool.DeleteVolume(ctx, c1))
	if n := images(t, pool); n != 1 {
		t.Errorf("%d images: the one taken back went with its last volume", n)
	}
	must(t, pool.Clone(ctx, c1, again))
	must(t, pool.DeleteImage(ctx, img.Fingerprint))

	// The daemon dies between taking the last volume and its image away.
	must(t, os.Rename(filepath.Join(pool.Dir, "containers/c1"), filepath.Join(pool.Dir, "containers/.del-c1")))
	must(t, pools.Close(ctx))
	pools = newPools(dir)
	_, err := pools.Open(ctx, config)
	must(t, err)
	must(t, pools.Close(ctx))
	for _, sub := range []string{"containers", "images"} {
		if entries, err := os.ReadDir(filepath.Join(pool.Dir, sub)); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v %v", sub, entries, err)
		}
	}
}

// A squashfs that the kernel cannot use is unpacked, if there is a way.
func TestSquashfsFallback(t *testing.T) {
	dir, _, pool, img := setUp(t)
	must(t, os.WriteFile(img.RootfsFile, []byte("an algorithm this kernel does not know"), 0o600))
	if err := pool.Clone(t.Context(), c1, img); err == nil {
		t.Error("a broken squashfs was accepted")
	}
	if n := images(t, pool); n != 0 {
		t.Errorf("%d images left", n)
	}
	img.Unpack = func(ctx context.Context, dest string) error {
		return exec.CommandContext(ctx, "cp", "-a", filepath.Join(dir, "tree")+"/.", dest).Run()
	}
	must(t, pool.Clone(t.Context(), c1, img))
	wantFile(t, pool, c1)
}

func TestDamagedRecord(t *testing.T) {
	_, _, pool, img := setUp(t)
	must(t, pool.Clone(t.Context(), c1, img))
	root, err := pool.Root(t.Context(), c1)
	must(t, err)
	record := filepath.Join(root.Dir, "layers.json")
	for _, text := range []string{"", "{", `{"version":9}`, `{"version":1,"layers":[{"path":"../../x"}]}`, `{"version":1,"layers":[{"path":"/etc"}]}`} {
		must(t, os.Remove(record)) // the file is shared with the image
		must(t, os.WriteFile(record, []byte(text), 0o600))
		if _, err := pool.Root(t.Context(), c1); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	// What cannot be read may need the image; the volume itself can go.
	must(t, pool.DeleteImage(t.Context(), img.Fingerprint))
	must(t, pool.DeleteVolume(t.Context(), c1))
}
