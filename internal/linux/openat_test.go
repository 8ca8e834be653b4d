package linux

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// hostile makes a directory with a canary file, and in it a root whose links try
// to reach the canary.
func hostile(t *testing.T) (root *os.File, canary string) {
	t.Helper()
	top := t.TempDir()
	canary = filepath.Join(top, "canary")
	dir := filepath.Join(top, "root")
	for _, err := range []error{
		os.WriteFile(canary, []byte("host"), 0o600),
		os.MkdirAll(filepath.Join(dir, "etc/sub"), 0o755),
		os.WriteFile(filepath.Join(dir, "etc/file"), []byte("inside"), 0o644),
		os.Symlink("/etc/file", filepath.Join(dir, "abs")),
		os.Symlink("../../../../../etc/file", filepath.Join(dir, "etc/sub/up")),
		os.Symlink(canary, filepath.Join(dir, "out")),
		os.Symlink("../canary", filepath.Join(dir, "out2")),
		os.Symlink(top, filepath.Join(dir, "outdir")),
		os.Symlink("/etc/new", filepath.Join(dir, "dangling")),
		os.Symlink("rel", filepath.Join(dir, "etc/dangling2")),
		os.Symlink("loop", filepath.Join(dir, "loop")),
		os.Symlink("/proc/self/root"+canary, filepath.Join(dir, "magic")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, canary
}

func TestOpenInRoot(t *testing.T) {
	root, canary := hostile(t)
	for path, good := range map[string]bool{
		"etc/file": true, "/etc/file": true, "abs": true, "etc/sub/up": true, "../../etc/file": true, "/../etc//file": true,
		"out": false, "out2": false, "outdir/canary": false, "../canary": false, "magic": false, "loop": false, "fifo": false,
		"etc": false, "": false, "a\x00b": false, canary: false,
	} {
		f, err := OpenRegularInRoot(root, path, os.O_RDONLY, 0)
		if (err == nil) != good {
			t.Errorf("%q: %v", path, err)
		}
		if err != nil {
			continue
		}
		if b, err := io.ReadAll(f); err != nil || string(b) != "inside" {
			t.Errorf("%q: %q, %v", path, b, err)
		}
		f.Close()
	}
	if _, err := OpenRegularInRoot(root, "fifo", os.O_RDONLY, 0); !errors.Is(err, api.Invalid) {
		t.Errorf("a pipe: %v", err)
	}
}

func TestOpenBeneath(t *testing.T) {
	root, _ := hostile(t)
	for path, good := range map[string]bool{
		"etc/file": true, "etc/sub/../file": true, ".": true,
		"/etc/file": false, "abs": false, "etc/sub/up": false, "../canary": false, "out": false, "outdir/canary": false,
	} {
		f, err := OpenBeneath(root, path, os.O_RDONLY, 0)
		if (err == nil) != good {
			t.Errorf("%q: %v", path, err)
		}
		if err == nil {
			f.Close()
		}
	}
}

func TestCreateInRoot(t *testing.T) {
	root, canary := hostile(t)
	for path, want := range map[string]string{
		"etc/made": "etc/made", "dangling": "etc/new", "etc/dangling2": "etc/rel", "/etc/file": "etc/file",
	} {
		f, err := OpenRegularInRoot(root, path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		_, err = f.WriteString(path)
		f.Close()
		b, rerr := os.ReadFile(filepath.Join(root.Name(), want))
		if err != nil || rerr != nil || string(b) != path {
			t.Errorf("%s: %q, %v, %v", path, b, err, rerr)
		}
	}
	for _, path := range []string{"out", "out2", "outdir/made", "loop", "no/such/dir"} {
		if f, err := OpenRegularInRoot(root, path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err == nil {
			f.Close()
			if b, _ := os.ReadFile(canary); string(b) != "host" {
				t.Fatalf("%s: reached the host", path)
			}
		}
	}
	if _, err := OpenRegularInRoot(root, "etc/file", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0); !errors.Is(err, os.ErrExist) {
		t.Errorf("O_EXCL: %v", err)
	}
	entries, _ := os.ReadDir(filepath.Dir(canary))
	if b, err := os.ReadFile(canary); err != nil || string(b) != "host" || len(entries) != 2 {
		t.Errorf("the host was touched: %q %v %v", b, err, entries)
	}
}

func TestChangeInRoot(t *testing.T) {
	root, canary := hostile(t)
	uid, gid := os.Getuid(), os.Getgid()
	if err := MkdirAllInRoot(root, "/etc/a/../b/c", 0o1750, uid, gid); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(filepath.Join(root.Name(), "etc/b/c")); err != nil || st.Mode() != os.ModeDir|os.ModeSticky|0o750 {
		t.Error(st, err)
	}
	if err := MkdirAllInRoot(root, "outdir/x", 0o755, uid, gid); err == nil {
		t.Error("made a directory through a link to the outside")
	}
	if err := MkdirAllInRoot(root, "etc/file/x", 0o755, uid, gid); err == nil {
		t.Error("made a directory in a file")
	}
	if err := SymlinkInRoot(root, "/x", "etc/b/link", uid, gid); err != nil {
		t.Error(err)
	}
	if target, err := ReadlinkInRoot(root, "etc/b/link"); err != nil || target != "/x" {
		t.Error(target, err)
	}
	if _, err := ReadlinkInRoot(root, "etc/file"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("readlink of a file: %v", err)
	}
	for _, c := range []struct {
		path string
		good bool
	}{
		{"etc/b", false}, {"etc/b/link", true}, {"etc/b/c/", true}, {"etc/b", true}, {"out", true},
		{"etc", false}, {"outdir/canary", false}, {"..", false}, {".", false}, {"/", false}, {"", false}, {"etc/..", false},
	} {
		if err := RemoveInRoot(root, c.path); (err == nil) != c.good {
			t.Errorf("remove %q: %v", c.path, err)
		}
	}
	if _, err := os.Stat(canary); err != nil {
		t.Error(err)
	}
}

func FuzzOpenInRoot(f *testing.F) {
	for _, p := range []string{"etc/file", "out", "outdir/../canary", strings.Repeat("../", 50) + "canary", "magic"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		root, canary := hostile(t)
		file, err := OpenRegularInRoot(root, path, os.O_RDWR|os.O_CREATE, 0o644)
		if err == nil {
			_, _ = file.WriteString("x")
			file.Close()
		}
		entries, _ := os.ReadDir(filepath.Dir(canary))
		if b, err := os.ReadFile(canary); err != nil || string(b) != "host" || len(entries) != 2 {
			t.Fatalf("%q reached the host: %q %v %v", path, b, err, entries)
		}
	})
}
