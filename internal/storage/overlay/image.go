package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/storage"
)

// image is what is stored beside an image's data.
type image struct {
	Version     int        `json:"version"`
	Fingerprint string     `json:"fingerprint"`
	Layer       layer      `json:"layer"`
	Root        attributes `json:"root"` // of the image's root directory
}

const imageVersion = 1

// probeMap is a map to try mounts with; nothing is ever owned by these ids.
var probeMap = linux.IDMap{{ContainerID: 0, HostID: 1 << 20, Count: 1 << 16, UID: true, GID: true}}

// EnsureImage implements [storage.Driver].
func (d *Driver) EnsureImage(ctx context.Context, img storage.Image) error {
	if _, err := d.image(img.Fingerprint); err == nil {
		return nil
	}
	err := d.AddImage(ctx, img.Fingerprint, func() bool { return d.revive(img.Fingerprint) }, func(tmp string) error {
		return d.fillImage(ctx, img, tmp)
	})
	if err != nil {
		return err
	}
	return d.remember(img.Fingerprint)
}

// image gives a ready image from memory.
func (d *Driver) image(fingerprint string) (*image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if info := d.images[fingerprint]; info != nil {
		return info, nil
	}
	return nil, os.ErrNotExist
}

func (d *Driver) remember(fingerprint string) error {
	var info image
	if err := readJSON(filepath.Join(d.ImageDir(fingerprint), imageFile), &info); err != nil {
		return err
	}
	if info.Version != imageVersion {
		return fmt.Errorf("image %s: record has version %d, this program knows %d", fingerprint, info.Version, imageVersion)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.images[fingerprint] = &info
	return nil
}

// revive reports whether the image is in the pool, and takes it back if it had
// been given up.
func (d *Driver) revive(fingerprint string) bool {
	d.pins.Lock()
	defer d.pins.Unlock()
	if _, err := os.Lstat(d.ImageDir(fingerprint)); err != nil {
		return false
	}
	err := os.Remove(d.mark(fingerprint))
	return err == nil || errors.Is(err, os.ErrNotExist)
}

// fillImage puts the image's data and records into an empty directory.
func (d *Driver) fillImage(ctx context.Context, img storage.Image, tmp string) error {
	info := image{Version: imageVersion, Fingerprint: img.Fingerprint}
	name, squashfs, root, err := d.fillData(ctx, img, tmp)
	if err != nil {
		return err
	}
	info.Root = root
	info.Layer = layer{Path: filepath.Join("images", img.Fingerprint, name), Squashfs: squashfs, Image: img.Fingerprint}
	record := layers{Version: layersVersion, Layers: []layer{info.Layer}}
	return errors.Join(
		writeJSON(filepath.Join(tmp, imageFile), info),
		writeJSON(filepath.Join(tmp, layersFile), record),
	)
}

func (d *Driver) fillData(ctx context.Context, img storage.Image, tmp string) (name string, squashfs bool, root attributes, err error) {
	if img.Squashfs {
		name = img.Fingerprint + ".squashfs"
		file := filepath.Join(tmp, name)
		if err := share(ctx, img.RootfsFile, file); err != nil {
			return "", false, root, err
		}
		root, err := trySquashfs(file)
		if err == nil {
			return name, true, root, nil
		}
		d.Log.Info("squashfs image is unpacked, as it cannot be mounted for containers", "image", img.Fingerprint, "reason", err)
		if err := os.Remove(file); err != nil {
			return "", false, root, err
		}
	}
	dest := filepath.Join(tmp, rootfsDir)
	if err := errors.Join(unix.Mkdir(dest, 0o755), os.Chmod(dest, 0o755)); err != nil {
		return "", false, root, err
	}
	if err := storage.UnpackImage(ctx, img, dest); err != nil {
		return "", false, root, err
	}
	dir, err := os.Open(dest)
	if err != nil {
		return "", false, root, err
	}
	defer dir.Close()
	root, err = attributesOf(dir)
	return rootfsDir, false, root, err
}

// share gives a file a second name, so that the pool's copy outlives the image
// store's and costs nothing; on another file system it is copied.
func share(ctx context.Context, from, to string) error {
	err := unix.Link(from, to)
	if err == nil {
		return nil
	}
	if err != unix.EXDEV && err != unix.EMLINK && err != unix.EPERM {
		return pathError("link", from, err)
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := linux.CopyFile(ctx, src, dst); err != nil {
		return err
	}
	return dst.Sync()
}

// trySquashfs mounts an image as containers will and reads the attributes of its
// root directory.
func trySquashfs(file string) (root attributes, err error) {
	mnt, err := linux.MountImage(file, "squashfs")
	if err != nil {
		return root, err
	}
	defer mnt.Close()
	dir, err := linux.OpenBeneath(mnt, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return root, err
	}
	root, err = attributesOf(dir)
	dir.Close()
	if err != nil {
		return root, err
	}
	userns, err := linux.UserNS(probeMap)
	if err != nil {
		return root, err
	}
	defer userns.Close()
	return root, linux.SetIDMap(mnt, userns, false)
}

// Images implements [storage.Driver].
func (d *Driver) Images(ctx context.Context) ([]string, error) {
	all, err := d.Tree.Images(ctx)
	return slices.DeleteFunc(all, d.isGivenUp), err
}

// DeleteImage implements [storage.Driver].
func (d *Driver) DeleteImage(ctx context.Context, fingerprint string) error {
	if _, err := os.Lstat(d.ImageDir(fingerprint)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return d.removeUnused(fingerprint, true)
}

func (d *Driver) mark(fingerprint string) string {
	return filepath.Join(d.ImageDir(fingerprint), givenUp)
}

func (d *Driver) isGivenUp(fingerprint string) bool {
	_, err := os.Lstat(d.mark(fingerprint))
	return err == nil
}

// removeUnused removes an image, or marks it when a volume stands on it. With
// pending, volumes that are being made count.
func (d *Driver) removeUnused(fingerprint string, pending bool) error {
	d.pins.Lock()
	defer d.pins.Unlock()
	used, err := d.inUse(fingerprint, pending)
	if err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.images, fingerprint)
	d.mu.Unlock()
	if !used {
		return d.RemoveImage(fingerprint)
	}
	f, err := os.OpenFile(d.mark(fingerprint), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("give image %s up: %w", fingerprint, err)
	}
	defer f.Close()
	return f.Sync()
}

// inUse looks through the records of all volumes.
func (d *Driver) inUse(fingerprint string, pending bool) (bool, error) {
	dir := filepath.Dir(d.VolumeDir(storage.Ref{Name: "any"}))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("look for volumes of image %s: %w", fingerprint, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".del-") || strings.HasPrefix(e.Name(), ".tmp-") && !pending {
			continue
		}
		record, err := readLayers(filepath.Join(dir, e.Name(), layersFile))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return true, nil // unreadable: keep what it may need
		}
		if slices.ContainsFunc(record.Layers, func(l layer) bool { return l.Image == fingerprint }) {
			return true, nil
		}
	}
	return false, nil
}
