// Package dir is the storage driver that keeps each volume as a directory of its
// own. It needs nothing but a file system with idmapped mounts. Clones are
// copies; they share blocks with the image where the file system can (reflink on
// xfs and btrfs), else they take the image's time and space.
//
//	containers/NAME/rootfs   the container's root, unshifted
//	images/FINGERPRINT/rootfs  an unpacked image: of tarballs always, of squashfs
//	                           only where clones can share its blocks
package dir

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/storage"
)

const rootfs = "rootfs"

// Driver implements [storage.Driver].
type Driver struct {
	*storage.Tree
	reflink atomic.Bool // set by Check
}

// New is the driver's [storage.Constructor].
func New(c storage.Config) storage.Driver { return &Driver{Tree: storage.NewTree(c)} }

// Info implements [storage.Driver].
func (d *Driver) Info() storage.Info { return storage.Info{Name: "dir", Version: "1"} }

// Check implements [storage.Driver].
func (d *Driver) Check(ctx context.Context) error {
	f, err := linux.Probe(ctx, d.Dir)
	if err != nil {
		return err
	}
	d.reflink.Store(f.Reflink == nil)
	if f.IDMapped != nil {
		return api.Errorf(api.Unsupported, "storage driver dir: %s cannot be mounted with a container's ids: %w", d.Dir, f.IDMapped)
	}
	return nil
}

// EnsureImage implements [storage.Driver].
func (d *Driver) EnsureImage(ctx context.Context, img storage.Image) error {
	if !d.cached(img) {
		return nil
	}
	path := d.ImageDir(img.Fingerprint)
	ready := func() bool { _, err := os.Lstat(path); return err == nil }
	return d.AddImage(ctx, img.Fingerprint, ready, func(tmp string) error {
		return unpack(ctx, img, tmp)
	})
}

// cached tells whether an unpacked copy of the image is kept. Copying out of a
// mounted squashfs is as fast as copying a directory, unless the latter can
// share its blocks.
func (d *Driver) cached(img storage.Image) bool { return !img.Squashfs || d.reflink.Load() }

func unpack(ctx context.Context, img storage.Image, dir string) error {
	dest := filepath.Join(dir, rootfs)
	if err := mkdir(dest); err != nil {
		return err
	}
	return storage.UnpackImage(ctx, img, dest)
}

// mkdir makes a directory with the mode of a usual root, whatever the umask is.
func mkdir(path string) error {
	if err := unix.Mkdir(path, 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return os.Chmod(path, 0o755)
}

// DeleteImage implements [storage.Driver]. Volumes do not need their image.
func (d *Driver) DeleteImage(ctx context.Context, fingerprint string) error {
	return d.RemoveImage(fingerprint)
}

// Clone implements [storage.Driver].
func (d *Driver) Clone(ctx context.Context, ref storage.Ref, img storage.Image) error {
	if err := d.EnsureImage(ctx, img); err != nil {
		return err
	}
	return d.AddVolume(ctx, ref, func(tmp string) error {
		if !d.cached(img) {
			return unpack(ctx, img, tmp)
		}
		return fill(ctx, d.ImageDir(img.Fingerprint), tmp)
	})
}

func fill(ctx context.Context, image, dir string) error {
	dest := filepath.Join(dir, rootfs)
	if err := mkdir(dest); err != nil {
		return err
	}
	return storage.FillFrom(ctx, filepath.Join(image, rootfs), dest)
}

// CreateEmpty implements [storage.Driver].
func (d *Driver) CreateEmpty(ctx context.Context, ref storage.Ref) error {
	return d.AddVolume(ctx, ref, func(tmp string) error { return mkdir(filepath.Join(tmp, rootfs)) })
}

// Copy implements [storage.Driver].
func (d *Driver) Copy(ctx context.Context, src, dst storage.Ref) error {
	if _, err := d.Root(ctx, src); err != nil {
		return err
	}
	return d.AddVolume(ctx, dst, func(tmp string) error {
		return storage.FillFrom(ctx, d.VolumeDir(src), tmp)
	})
}

// Usage implements [storage.Driver].
func (d *Driver) Usage(ctx context.Context, ref storage.Ref) (int64, error) {
	return d.MeasureVolume(ctx, ref, rootfs)
}

// Root implements [storage.Driver].
func (d *Driver) Root(ctx context.Context, ref storage.Ref) (storage.Root, error) {
	if err := d.HasVolume(ref); err != nil {
		return storage.Root{}, err
	}
	return storage.Root{Dir: d.VolumeDir(ref), Bind: rootfs}, nil
}
