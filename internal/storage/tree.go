package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

const (
	volumesDir = "containers"
	imagesDir  = "images"

	tmpPrefix = ".tmp-" // being made
	delPrefix = ".del-" // being removed
)

// Tree is what drivers have in common that keep volumes as directories: it makes
// and removes directories so that a crash never shows a half-made one. A driver
// embeds it and adds how volumes are filled and mounted.
type Tree struct {
	Config
	making keyedMutex // of images, by fingerprint
}

// NewTree makes a Tree; it does no I/O.
func NewTree(c Config) *Tree { return &Tree{Config: c} }

// VolumeDir is the directory of a volume, which need not exist.
func (t *Tree) VolumeDir(ref Ref) string { return filepath.Join(t.Dir, volumesDir, ref.String()) }

// ImageDir is the directory of an image, which need not exist.
func (t *Tree) ImageDir(fingerprint string) string {
	return filepath.Join(t.Dir, imagesDir, fingerprint)
}

// Create implements [Driver].
func (t *Tree) Create(ctx context.Context) error {
	for _, d := range []string{t.Dir, filepath.Join(t.Dir, volumesDir), filepath.Join(t.Dir, imagesDir)} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return wrap("create storage pool "+t.Pool, err)
		}
		if err := os.Chmod(d, 0o711); err != nil { // whatever the umask is
			return wrap("create storage pool "+t.Pool, err)
		}
	}
	return wrap("create storage pool "+t.Pool, syncDir(t.Dir))
}

// Recover implements [Driver]: it makes missing directories of the pool and has
// leftovers removed.
func (t *Tree) Recover(ctx context.Context) error {
	if err := t.Create(ctx); err != nil {
		return err
	}
	for _, sub := range []string{".", volumesDir, imagesDir} {
		dir := filepath.Join(t.Dir, sub)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return wrap("recover storage pool "+t.Pool, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), tmpPrefix) || strings.HasPrefix(e.Name(), delPrefix) {
				t.Trash.Put(filepath.Join(dir, e.Name()))
			}
		}
	}
	return nil
}

// Delete implements [Driver].
func (t *Tree) Delete(ctx context.Context) error {
	refs, err := t.Volumes(ctx)
	if err != nil {
		return err
	}
	if len(refs) > 0 {
		return api.Errorf(api.InUse, "storage pool %s has %d volumes, such as %s", t.Pool, len(refs), refs[0])
	}
	for _, sub := range []string{volumesDir, imagesDir} {
		err := t.discard(filepath.Join(t.Dir, sub), t.Dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return wrap("delete storage pool "+t.Pool, err)
		}
	}
	return wrap("delete storage pool "+t.Pool, t.Trash.Flush(ctx))
}

// Volumes implements [Driver].
func (t *Tree) Volumes(ctx context.Context) ([]Ref, error) {
	names, err := visible(filepath.Join(t.Dir, volumesDir))
	if err != nil {
		return nil, wrap("list volumes of storage pool "+t.Pool, err)
	}
	refs := make([]Ref, len(names))
	for i, n := range names {
		refs[i] = ParseRef(n)
	}
	return refs, nil
}

// Images implements [Driver].
func (t *Tree) Images(ctx context.Context) ([]string, error) {
	names, err := visible(filepath.Join(t.Dir, imagesDir))
	return names, wrap("list images of storage pool "+t.Pool, err)
}

func visible(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// AddVolume makes a volume: fill gets an empty directory of mode 0700, which is
// then given its name. What fill writes to files it also makes durable, names
// need no care.
//
// The mode matters: files are stored unshifted, so a set-user-id program that a
// container's root makes is one of the host's root. No other user of the host
// may reach it.
func (t *Tree) AddVolume(ctx context.Context, ref Ref, fill func(dir string) error) error {
	if err := ref.check(); err != nil {
		return err
	}
	if exists(t.VolumeDir(ref)) {
		return t.conflict(ref)
	}
	err := t.add(ctx, t.VolumeDir(ref), fill)
	if errors.Is(err, unix.EEXIST) {
		return t.conflict(ref)
	}
	return describe("create", ref, err)
}

// AddImage is AddVolume for an image. Concurrent calls for one fingerprint wait
// for the first; ready says, under that lock, that there is nothing to do.
func (t *Tree) AddImage(ctx context.Context, fingerprint string, ready func() bool, fill func(dir string) error) error {
	if err := checkFingerprint(fingerprint); err != nil {
		return err
	}
	unlock, err := t.making.lock(ctx, fingerprint)
	if err != nil {
		return err
	}
	defer unlock()
	if ready() {
		return nil
	}
	err = t.add(ctx, t.ImageDir(fingerprint), fill)
	return wrap("add image "+fingerprint[:12]+" to storage pool "+t.Pool, err)
}

func (t *Tree) add(ctx context.Context, path string, fill func(dir string) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), tmpPrefix+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	err = fill(tmp)
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		t.Trash.Put(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Rename implements [Driver].
func (t *Tree) Rename(ctx context.Context, from, to Ref) error {
	if err := errors.Join(from.check(), to.check()); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, t.VolumeDir(from), unix.AT_FDCWD, t.VolumeDir(to), unix.RENAME_NOREPLACE)
	switch err {
	case nil:
		return describe("rename", from, syncDir(filepath.Join(t.Dir, volumesDir)))
	case unix.ENOENT:
		return t.notFound(from)
	case unix.EEXIST:
		return t.conflict(to)
	}
	return describe("rename", from, err)
}

// DeleteVolume implements [Driver]. It does not matter who still has the volume
// mounted or open: only its name is taken away here.
func (t *Tree) DeleteVolume(ctx context.Context, ref Ref) error {
	if err := ref.check(); err != nil {
		return err
	}
	dir := t.VolumeDir(ref)
	err := t.discard(dir, filepath.Dir(dir))
	if errors.Is(err, os.ErrNotExist) {
		return t.notFound(ref)
	}
	return describe("delete", ref, err)
}

// HasVolume is nil when the volume is there. Errors: Invalid, NotFound.
func (t *Tree) HasVolume(ref Ref) error {
	if err := ref.check(); err != nil {
		return err
	}
	if !exists(t.VolumeDir(ref)) {
		return t.notFound(ref)
	}
	return nil
}

// MeasureVolume adds up what a directory of a volume takes on disk.
func (t *Tree) MeasureVolume(ctx context.Context, ref Ref, sub string) (int64, error) {
	if err := t.HasVolume(ref); err != nil {
		return 0, err
	}
	d, err := os.OpenFile(filepath.Join(t.VolumeDir(ref), sub), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, describe("measure", ref, err)
	}
	defer d.Close()
	n, err := linux.DiskUsage(ctx, d)
	return n, describe("measure", ref, err)
}

// RemoveImage takes an image away at once.
func (t *Tree) RemoveImage(fingerprint string) error {
	if err := checkFingerprint(fingerprint); err != nil {
		return err
	}
	dir := t.ImageDir(fingerprint)
	err := t.discard(dir, filepath.Dir(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return wrap("remove image "+fingerprint[:12]+" from storage pool "+t.Pool, err)
}

// discard takes a path out of sight and has it removed.
func (t *Tree) discard(path, parent string) error {
	// A fresh directory gives the name, so that names never collide.
	bin, err := os.MkdirTemp(parent, delPrefix)
	if err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(bin, filepath.Base(path))); err != nil {
		return errors.Join(err, os.Remove(bin))
	}
	t.Trash.Put(bin)
	return syncDir(parent)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// FillFrom copies the tree src into the existing directory dst and makes it
// durable. Names of src that are in skip are left out.
func FillFrom(ctx context.Context, src, dst string, skip ...string) error {
	from, err := os.OpenFile(src, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	return fill(ctx, from, dst, skip)
}

func fill(ctx context.Context, from *os.File, dst string, skip []string) error {
	to, err := os.OpenFile(dst, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := linux.CopyTree(ctx, from, to, skip...); err != nil {
		return err
	}
	return linux.Sync(to)
}

// UnpackImage writes the root file system of an image into the existing
// directory dest and makes it durable: a squashfs is mounted and copied when the
// kernel can read it, everything else goes through img.Unpack.
func UnpackImage(ctx context.Context, img Image, dest string) error {
	if img.Squashfs {
		root, err := openSquashfs(img.RootfsFile)
		if err == nil {
			defer root.Close()
			return fill(ctx, root, dest, nil)
		}
		if img.Unpack == nil {
			return err
		}
	}
	if img.Unpack == nil {
		return api.Errorf(api.Internal, "image %s: no way to unpack it", img.Fingerprint)
	}
	if err := img.Unpack(ctx, dest); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	d, err := os.Open(dest)
	if err != nil {
		return err
	}
	defer d.Close()
	return linux.Sync(d)
}

// openSquashfs opens the root directory of a squashfs image, through a mount
// that is attached nowhere and ends with the descriptor.
func openSquashfs(path string) (*os.File, error) {
	mnt, err := linux.MountImage(path, "squashfs")
	if err != nil {
		return nil, err
	}
	defer mnt.Close()
	return linux.OpenBeneath(mnt, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// keyedMutex is one lock for each key.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed on release
}

// lock waits for the lock of key, or for ctx to end.
func (k *keyedMutex) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		wait, held := k.held[key]
		if !held {
			if k.held == nil {
				k.held = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			k.held[key] = mine
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, key)
				k.mu.Unlock()
				close(mine)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
