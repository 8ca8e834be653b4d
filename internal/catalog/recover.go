package catalog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/store"
)

// Recover makes files and records agree after a crash: half-received uploads and
// builds, and files without a record, are removed; records whose files are gone
// are dropped with a warning; pools give up images that have no record. It is
// called once, with the pools open, before anything else.
func (c *Catalog) Recover(ctx context.Context) error {
	if err := c.emptyUploads(ctx); err != nil {
		return err
	}
	var images []store.Record[model.Image]
	err := c.deps.Store.View(ctx, func(tx store.Tx) (err error) {
		images, err = store.List[model.Image](tx, model.ImagePrefix)
		return err
	})
	if err != nil {
		return err
	}
	known := map[string]bool{} // fingerprints
	for _, r := range images {
		ok, err := c.whole(r.Value)
		if err != nil {
			return err
		}
		if ok {
			known[r.Value.Fingerprint] = true
			continue
		}
		if err := c.dropLost(ctx, r.Value); err != nil {
			return err
		}
	}
	if err := c.removeStrays(known); err != nil {
		return err
	}
	return c.recoverPools(ctx, known)
}

// whole tells whether all files of an image are there.
func (c *Catalog) whole(img *model.Image) (bool, error) {
	ok, err := fileExists(c.metaFile(img.Fingerprint))
	if err != nil || !ok || !img.Split {
		return ok, err
	}
	return fileExists(c.rootFile(img.Fingerprint))
}

func (c *Catalog) dropLost(ctx context.Context, img *model.Image) error {
	c.deps.Log.Warn("image is dropped: its files are missing", "image", img.Fingerprint, "project", img.Project)
	return c.deps.Store.Update(ctx, func(tx store.Tx) error {
		return dropRecord(tx, nil, img.Project, img.Fingerprint)
	})
}

func (c *Catalog) emptyUploads(ctx context.Context) error {
	entries, err := os.ReadDir(c.TempDir())
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("empty the upload directory: %w", err)
	}
	for _, e := range entries {
		if err := linux.RemoveAll(ctx, filepath.Join(c.TempDir(), e.Name())); err != nil {
			return fmt.Errorf("empty the upload directory: %w", err)
		}
	}
	return nil
}

// removeStrays removes the files of images that have no record. Other files are
// not ours to touch.
func (c *Catalog) removeStrays(known map[string]bool) error {
	entries, err := os.ReadDir(c.imagesDir())
	if err != nil {
		return fmt.Errorf("look for image files: %w", err)
	}
	for _, e := range entries {
		fingerprint := strings.TrimSuffix(e.Name(), ".rootfs")
		if known[fingerprint] || image.CheckFingerprint(fingerprint) != nil {
			continue
		}
		c.deps.Log.Info("image file without an image is removed", "file", e.Name())
		if err := os.Remove(filepath.Join(c.imagesDir(), e.Name())); err != nil && !isAbsent(err) {
			return fmt.Errorf("remove image file: %w", err)
		}
	}
	return nil
}

// recoverPools lets pools give up images that were deleted in a crash. A pool
// that does not answer keeps its images for the next start.
func (c *Catalog) recoverPools(ctx context.Context, known map[string]bool) error {
	for _, p := range c.deps.Pools() {
		images, err := p.Images(ctx)
		if err != nil {
			c.deps.Log.Warn("images of a storage pool could not be listed", "err", err)
			continue
		}
		for _, f := range slices.DeleteFunc(slices.Clone(images), func(f string) bool { return known[f] }) {
			if err := p.DeleteImage(ctx, f); err != nil {
				c.deps.Log.Warn("image could not be removed from a storage pool", "image", f, "err", err)
			}
		}
	}
	return store.ContextError(ctx, "recover images")
}
