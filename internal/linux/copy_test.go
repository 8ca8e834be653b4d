package linux

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func copyDirs(t *testing.T, src, dst string, skip ...string) error {
	t.Helper()
	from, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := os.Mkdir(dst, 0o700); err != nil {
		t.Fatal(err)
	}
	to, err := os.Open(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	return CopyTree(t.Context(), from, to, skip...)
}

func TestCopyTree(t *testing.T) {
	top := t.TempDir()
	src, dst := filepath.Join(top, "src"), filepath.Join(top, "dst")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB: more than one buffer
	sparse := make([]byte, 3<<20)
	copy(sparse[1<<20:], "data")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(src, "dir/sub"), 0o755),
		os.WriteFile(filepath.Join(src, "dir/big"), big, 0o600),
		os.WriteFile(filepath.Join(src, "skipped"), nil, 0o600),
		os.WriteFile(filepath.Join(src, "dir/skipped"), nil, 0o604),
		os.Link(filepath.Join(src, "dir/big"), filepath.Join(src, "dir/sub/same")),
		os.Symlink("/etc/passwd", filepath.Join(src, "link")),
		unix.Mkfifo(filepath.Join(src, "fifo"), 0o620),
		os.WriteFile(filepath.Join(src, "sparse"), nil, 0o600),
		os.Chmod(filepath.Join(src, "dir"), 0o710),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(src, "sparse"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("data"), 1<<20)
	if err := errors.Join(err, f.Truncate(3<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := copyDirs(t, src, dst, "skipped"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"dir/big": big, "dir/sub/same": big, "sparse": sparse, "dir/skipped": {}} {
		if got, err := os.ReadFile(filepath.Join(dst, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dst, "skipped")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("skipped: %v", err)
	}
	for _, name := range []string{"dir", "dir/big", "link", "fifo", "sparse"} {
		a, aerr := os.Lstat(filepath.Join(src, name))
		b, berr := os.Lstat(filepath.Join(dst, name))
		if aerr != nil || berr != nil || a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) {
			t.Errorf("%s: %v %v became %v %v (%v %v)", name, a.Mode(), a.ModTime(), b.Mode(), b.ModTime(), aerr, berr)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dst, "sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("sparse: %d blocks, %v", st.Blocks, err)
	}
	if err := unix.Stat(filepath.Join(dst, "dir/sub/same"), &st); err != nil || st.Nlink != 2 {
		t.Errorf("hard link: %d names, %v", st.Nlink, err)
	}
}

func TestCopyTreeTooDeep(t *testing.T) {
	top := t.TempDir()
	src := filepath.Join(top, "src")
	if err := os.MkdirAll(filepath.Join(src, strings.Repeat("d/", copyDepth+2)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyDirs(t, src, filepath.Join(top, "dst")); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Error(err)
	}
	if err := RemoveAll(t.Context(), src); err != nil {
		t.Error(err)
	}
}

func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	block := bytes.Repeat([]byte("x"), 1<<20)
	if err := errors.Join(os.WriteFile(dir+"/a", block, 0o600), os.Link(dir+"/a", dir+"/b"), os.Mkdir(dir+"/d", 0o755),
		os.WriteFile(dir+"/d/c", block, 0o600), os.Symlink("/", dir+"/d/l")); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil { // blocks are counted once allocated
		t.Fatal(err)
	}
	n, err := DiskUsage(t.Context(), d)
	if err != nil || n < 2<<20 || n > 3<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestRemoveAll(t *testing.T) {
	top := t.TempDir()
	canary := filepath.Join(top, "canary")
	dir := filepath.Join(top, "dir")
	if err := errors.Join(os.WriteFile(canary, nil, 0o600), os.MkdirAll(dir+"/a/b", 0o755),
		os.Symlink(top, dir+"/a/link"), os.WriteFile(dir+"/a/b/f", nil, 0o400)); err != nil {
		t.Fatal(err)
	}
	deep := dir + "/deep"
	for range 3 * removeDepth {
		deep += "/d"
	}
	if err := errors.Join(os.MkdirAll(deep, 0o755), os.WriteFile(deep+"/f", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 { // more than are read at once
		if err := os.WriteFile(filepath.Join(dir, "a", "f"+strings.Repeat("x", i%100)+string(rune('a'+i/100))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := RemoveAll(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	for range 2 { // the second time it is absent
		if err := RemoveAll(t.Context(), dir); err != nil {
			t.Error(err)
		}
	}
	if err := RemoveAll(t.Context(), dir+"/no/such"); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(top)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v %v", entries, err)
	}
}
