// Package overlay is the storage driver that keeps each image once, read-only,
// and of each volume only what differs from it. A clone takes constant time and
// no space.
//
//	images/FINGERPRINT/FINGERPRINT.squashfs  the image, mounted as it is; or
//	images/FINGERPRINT/rootfs/               unpacked, when it is a tarball or the
//	                                         kernel cannot map a squashfs's owners
//	images/FINGERPRINT/image.json            what clones need to know of it
//	containers/NAME/layers.json              the layers below, topmost first
//	containers/NAME/{upper,work}/            the volume's own changes, unshifted
//	containers/NAME/rootfs/                  empty
//
// A layer's path never gets another inode: overlayfs remembers inodes. So an image
// that is given up while volumes stand on it stays (with the mark "given-up")
// until the last of them is deleted.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/storage"
)

const (
	upperDir   = "upper"
	workDir    = "work"
	rootfsDir  = "rootfs"
	layersFile = "layers.json"
	imageFile  = "image.json"
	givenUp    = "given-up"
)

// Driver implements [storage.Driver].
type Driver struct {
	*storage.Tree

	// pins is held for reading while a volume starts to refer to an image, for
	// writing while an image is judged unused and removed.
	pins sync.RWMutex

	mu     sync.Mutex
	images map[string]*image // ready images by fingerprint; guarded by mu
}

// New is the driver's [storage.Constructor].
func New(c storage.Config) storage.Driver {
	return &Driver{Tree: storage.NewTree(c), images: map[string]*image{}}
}

// Info implements [storage.Driver].
func (d *Driver) Info() storage.Info {
	return storage.Info{Name: "overlay", Version: "1", Layered: true}
}

// Check implements [storage.Driver].
func (d *Driver) Check(ctx context.Context) error {
	f, err := linux.Probe(ctx, d.Dir)
	if err != nil {
		return err
	}
	if err := errors.Join(f.IDMapped, f.Overlay); err != nil {
		return api.Errorf(api.Unsupported, "storage driver overlay: does not work on %s: %w", d.Dir, err).
			WithHint("keep the pool on ext4, xfs or btrfs, or use the driver dir")
	}
	if f.Squashfs != nil {
		d.Log.Info("squashfs cannot be mapped here: images are unpacked", "pool", d.Pool, "reason", f.Squashfs)
	}
	return nil
}

// Recover implements [storage.Driver].
func (d *Driver) Recover(ctx context.Context) error {
	if err := d.Tree.Recover(ctx); err != nil {
		return err
	}
	all, err := d.Tree.Images(ctx)
	if err != nil {
		return err
	}
	for _, fingerprint := range all {
		if d.isGivenUp(fingerprint) {
			if err := d.removeUnused(fingerprint, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// Clone implements [storage.Driver].
func (d *Driver) Clone(ctx context.Context, ref storage.Ref, img storage.Image) error {
	if err := d.EnsureImage(ctx, img); err != nil {
		return err
	}
	info, err := d.image(img.Fingerprint)
	if err != nil {
		return err
	}
	return d.AddVolume(ctx, ref, func(tmp string) error {
		// All volumes of an image have the same record, so they share the image's:
		// it is durable already, and a link costs no write of data.
		if err := d.pin(filepath.Join(d.ImageDir(img.Fingerprint), layersFile), tmp); err != nil {
			return err
		}
		return d.makeDirs(tmp, info.Root)
	})
}

// pin makes the new volume in dir refer to the layers that a record lists. From
// then on their images stay.
func (d *Driver) pin(record, dir string) error {
	d.pins.RLock()
	defer d.pins.RUnlock()
	to := filepath.Join(dir, layersFile)
	err := unix.Link(record, to)
	if err != unix.EMLINK {
		return pathError("link", record, err)
	}
	layers, err := readLayers(record)
	if err != nil {
		return err
	}
	return writeJSON(to, layers)
}

// makeDirs makes the empty upper directory and what belongs beside it. Overlayfs
// takes the attributes of the root from the upper directory, so that gets the
// image's.
func (d *Driver) makeDirs(dir string, root attributes) error {
	for _, name := range []string{upperDir, workDir, rootfsDir} {
		if err := unix.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return pathError("mkdir", name, err)
		}
	}
	return root.apply(filepath.Join(dir, upperDir))
}

// CreateEmpty implements [storage.Driver]. Such a volume has no layers: it is its
// upper directory.
func (d *Driver) CreateEmpty(ctx context.Context, ref storage.Ref) error {
	return d.AddVolume(ctx, ref, func(tmp string) error {
		if err := writeJSON(filepath.Join(tmp, layersFile), layers{Version: layersVersion}); err != nil {
			return err
		}
		return d.makeDirs(tmp, attributes{Mode: 0o755})
	})
}

// Copy implements [storage.Driver]: the layers are shared, the changes copied.
func (d *Driver) Copy(ctx context.Context, src, dst storage.Ref) error {
	if err := d.HasVolume(src); err != nil {
		return err
	}
	from := d.VolumeDir(src)
	return d.AddVolume(ctx, dst, func(tmp string) error {
		if err := d.pin(filepath.Join(from, layersFile), tmp); err != nil {
			return err
		}
		if err := storage.FillFrom(ctx, from, tmp, layersFile, workDir); err != nil {
			return err
		}
		if err := unix.Mkdir(filepath.Join(tmp, workDir), 0o700); err != nil {
			return pathError("mkdir", workDir, err)
		}
		// An overlay's identity, if the kernel has stored one, is not copied.
		err := unix.Removexattr(filepath.Join(tmp, upperDir), "trusted.overlay.uuid")
		if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
			return pathError("clear the overlay's id of", upperDir, err)
		}
		return nil
	})
}

// DeleteVolume implements [storage.Driver].
func (d *Driver) DeleteVolume(ctx context.Context, ref storage.Ref) error {
	if err := d.HasVolume(ref); err != nil {
		return err
	}
	record, rerr := readLayers(filepath.Join(d.VolumeDir(ref), layersFile))
	if err := d.Tree.DeleteVolume(ctx, ref); err != nil {
		return err
	}
	if rerr != nil {
		return nil // a damaged volume can be deleted; Recover looks after its image
	}
	for _, l := range record.Layers {
		if l.Image != "" && d.isGivenUp(l.Image) {
			if err := d.removeUnused(l.Image, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// Usage implements [storage.Driver].
func (d *Driver) Usage(ctx context.Context, ref storage.Ref) (int64, error) {
	return d.MeasureVolume(ctx, ref, upperDir)
}

// Root implements [storage.Driver].
func (d *Driver) Root(ctx context.Context, ref storage.Ref) (storage.Root, error) {
	if err := d.HasVolume(ref); err != nil {
		return storage.Root{}, err
	}
	root := storage.Root{Dir: d.VolumeDir(ref), Upper: upperDir, Work: workDir}
	record, err := readLayers(filepath.Join(root.Dir, layersFile))
	if err != nil {
		return storage.Root{}, fmt.Errorf("volume %s: %w", ref, err)
	}
	for _, l := range record.Layers {
		root.Layers = append(root.Layers, storage.Layer{Path: filepath.Join(d.Dir, l.Path), Squashfs: l.Squashfs})
	}
	if len(root.Layers) == 0 {
		root.Bind = upperDir
	}
	return root, nil
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
