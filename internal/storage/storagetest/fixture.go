//go:build system

package storagetest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/storage"
)

// base is the first host id of the containers in tests.
const base = 500_000_000

var idmap = linux.IDMap{{ContainerID: 0, HostID: base, Count: 65536, UID: true, GID: true}}

// fixture is one pool with what goes into it.
type fixture struct {
	pools    *storage.Pools
	pool     *storage.Pool
	dir      string // the state directory
	tree     string // what the images were made of
	squashfs storage.Image
	tarball  storage.Image
}

func newFixture(tb testing.TB, driver storage.Constructor) *fixture {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Fatal("system tests need root")
	}
	f := &fixture{dir: tb.TempDir()}
	// Containers' ids pass through here to reach the stage.
	for d := f.dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		must(tb, os.Chmod(d, 0o711))
	}
	must(tb, os.Mkdir(filepath.Join(f.dir, "stage"), 0o711))
	f.tree = filepath.Join(f.dir, "tree")
	makeTree(tb, f.tree)
	f.squashfs = storage.Image{RootfsFile: filepath.Join(f.dir, "image.squashfs"), Squashfs: true}
	f.squashfs.Fingerprint = makeImage(tb, f.squashfs.RootfsFile, "mksquashfs", f.tree, f.squashfs.RootfsFile, "-noappend", "-quiet", "-no-progress")
	f.tarball = storage.Image{RootfsFile: filepath.Join(f.dir, "image.tar")}
	f.tarball.Fingerprint = makeImage(tb, f.tarball.RootfsFile, "tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse",
		"-C", f.tree, "-cf", f.tarball.RootfsFile, ".")
	f.tarball.Unpack = untar(f.tarball.RootfsFile)
	f.pools = openPools(f.dir, driver)
	var err error
	f.pool, err = f.pools.Create(tb.Context(), poolConfig)
	must(tb, err)
	tb.Cleanup(func() { must(tb, f.pools.Close(context.Background())) })
	return f
}

var poolConfig = storage.PoolConfig{Name: "p1", Driver: "test"}

func openPools(dir string, driver storage.Constructor) *storage.Pools {
	return storage.NewPools(storage.Options{
		Dir: filepath.Join(dir, "storage-pools"), StageDir: filepath.Join(dir, "stage"),
		Drivers: map[string]storage.Constructor{"test": driver},
		Log:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

func makeImage(tb testing.TB, file string, argv ...string) (fingerprint string) {
	tb.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", argv, err, out)
	}
	f, err := os.Open(file)
	must(tb, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(tb, err)
	return hex.EncodeToString(h.Sum(nil))
}

// makeTree makes a root file system that has one of everything.
func makeTree(tb testing.TB, root string) {
	tb.Helper()
	must(tb, os.Mkdir(root, 0o755))
	at := func(name string) string { return filepath.Join(root, name) }
	for name, mode := range map[string]uint32{"etc": 0o755, "etc/deep/er": 0o700, "tmp": 0o1777, "home/user": 0o2750} {
		must(tb, os.MkdirAll(at(name), 0o755))
		must(tb, unix.Chmod(at(name), mode))
	}
	for name, size := range map[string]int{"etc/hostname": 5, "etc/deep/er/file": 70_000, "etc/empty": 0, "home/user/notes": 4096, "su": 100, "ping": 10} {
		must(tb, os.WriteFile(at(name), []byte(strings.Repeat("x", size)), 0o644))
	}
	must(tb, os.Link(at("etc/hostname"), at("etc/deep/hostname2")))
	must(tb, os.Symlink("/etc/hostname", at("etc/abs")))
	must(tb, os.Symlink("../tmp", at("etc/rel")))
	must(tb, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(tb, unix.Mkfifo(at("fifo"), 0o640))
	sparse, err := os.Create(at("sparse"))
	must(tb, err)
	_, err = sparse.WriteAt([]byte("middle"), 1<<20)
	must(tb, err)
	must(tb, sparse.Truncate(4<<20))
	must(tb, sparse.Close())
	must(tb, os.Lchown(at("home/user"), 1000, 1000))
	must(tb, unix.Chmod(at("home/user"), 0o2750))
	must(tb, os.Lchown(at("home/user/notes"), 1000, 100))
	must(tb, os.Lchown(at("etc/rel"), 1000, 1000))
	must(tb, unix.Chmod(at("su"), 0o4755))
	must(tb, unix.Setxattr(at("etc/empty"), "user.note", []byte("hello"), 0))
	// cap_net_raw+ep in the layout of struct vfs_cap_data, version 2.
	must(tb, unix.Setxattr(at("ping"), "security.capability", []byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
	must(tb, unix.Setxattr(root, "user.root", []byte("r"), 0))
	must(tb, os.Lchown(root, 0, 5))
	must(tb, os.Chmod(root, 0o751))
	old := time.Unix(1_000_000_000, 0)
	must(tb, os.Chtimes(at("etc/hostname"), old, old))
}

// describe lists a tree with all that a copy has to keep, owners less shift.
func describe(tb testing.TB, root string, shift uint32) map[string]string {
	tb.Helper()
	out := map[string]string{}
	first := map[uint64]string{}
	must(tb, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if rel == "." {
			path = root + "/."
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		d := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid-shift, st.Gid-shift)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			d += fmt.Sprintf(" %d bytes %x mtime %d sparse %v", st.Size, sha256.Sum256(b), st.Mtim.Sec, st.Blocks*512 < st.Size/2)
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			d += " same as " + first[st.Ino]
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			d += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			d += fmt.Sprintf(" dev %x", st.Rdev)
		}
		for _, name := range []string{"user.note", "user.root", "security.capability"} {
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, name, buf); err == nil {
				d += fmt.Sprintf(" %s=%x", name, unshifted(buf[:n], shift))
			}
		}
		out[rel] = d
		return nil
	}))
	return out
}

// unshifted turns file capabilities that the kernel shows with the id of the
// container's root (version 3 of struct vfs_cap_data) back into what is on disk.
func unshifted(value []byte, shift uint32) []byte {
	if len(value) == 24 && shift != 0 && value[3] == 3 && binary.LittleEndian.Uint32(value[20:]) == shift {
		value = append([]byte{}, value[:20]...)
		value[3] = 2
	}
	return value
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// container is the mounted root of a volume as a container has it.
type container struct {
	tb   testing.TB
	root string
}

// staged runs fn in a private namespace with the volume mounted for a container
// with its own ids.
func (f *fixture) staged(tb testing.TB, ref storage.Ref, fn func(c container)) {
	tb.Helper()
	must(tb, f.stage(tb, ref, storage.StageOptions{}, func(root string) error {
		fn(container{tb, root})
		return nil
	}))
}

var userNS = sync.OnceValues(func() (*os.File, error) { return linux.UserNS(idmap) })

func (f *fixture) stage(tb testing.TB, ref storage.Ref, o storage.StageOptions, fn func(root string) error) error {
	root, err := f.pool.Root(tb.Context(), ref)
	if err != nil {
		return err
	}
	if o.UserNS, err = userNS(); err != nil {
		return err
	}
	o.Dir, o.UID, o.GID = filepath.Join(f.dir, "stage"), base, base
	return linux.PrivateNS(tb.Context(), func() error {
		if err := storage.Stage(tb.Context(), root, o); err != nil {
			return err
		}
		return fn(filepath.Join(o.Dir, storage.StageRootfs))
	})
}

// do runs a shell line of the test binary's own (see Main) as the container's root
// in its user namespace, and fails the test when it fails.
func (c container) do(op string, args ...string) {
	c.tb.Helper()
	if out, err := c.try(op, args...); err != nil {
		c.tb.Errorf("%s %q in the container: %v\n%s", op, args, err, out)
	}
}

func (c container) try(op string, args ...string) (string, error) {
	cmd := exec.Command("/proc/self/exe", append([]string{op, c.root}, args...)...)
	cmd.Env = append(os.Environ(), "CROFT_STORAGETEST=container")
	var ids []syscallIDMap
	for _, e := range idmap {
		ids = append(ids, syscallIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Count)})
	}
	cmd.SysProcAttr = userNSAttr(ids)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
