package catalog

import (
	"context"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/store"
)

// Delete removes an image with its aliases. Instances made of it are not
// touched: pools keep what those need. Errors: NotFound; Invalid for an
// ambiguous beginning of a fingerprint.
func (c *Catalog) Delete(ctx context.Context, project, fingerprint string) (*operation.Op, error) {
	img, _, err := c.Get(ctx, project, fingerprint)
	if err != nil {
		return nil, err
	}
	return c.deps.Ops.Start(operation.Spec{
		Project: project, Description: "Deleting image", Requestor: auth.From(ctx).Requestor(),
		Resources: map[string][]string{"images": {imagePath(img.Fingerprint)}},
		Run: func(ctx context.Context, op *operation.Op) error {
			return c.delete(ctx, op, project, img.Fingerprint)
		},
	})
}

func (c *Catalog) delete(ctx context.Context, op *operation.Op, project, fingerprint string) error {
	release, err := c.lock(ctx, op, "being deleted", project, fingerprint)
	if err != nil {
		return err
	}
	defer release()
	shared := false
	err = c.deps.Store.Update(ctx, func(tx store.Tx) error {
		if err := dropRecord(tx, op.Requestor(), project, fingerprint); err != nil {
			return err
		}
		shared, err = inAnyProject(tx, fingerprint)
		return err
	})
	if err != nil || shared {
		return err
	}
	// From here on the image is gone for everybody; what cannot be removed now
	// is removed at the next start.
	if err := c.waitUnused(ctx, fingerprint); err != nil {
		return err
	}
	c.removeFiles(ctx, fingerprint)
	return nil
}

// dropRecord removes an image's record, its aliases and what is known of its use.
func dropRecord(tx store.Tx, who requestor, project, fingerprint string) error {
	if err := store.Delete(tx, model.ImageKey(project, fingerprint), store.IfPresent()); err != nil {
		return err
	}
	if err := store.Delete(tx, useKey(project, fingerprint)); err != nil {
		return err
	}
	aliases, err := store.List[model.Alias](tx, model.AliasPrefix+project+"/")
	if err != nil {
		return err
	}
	for _, a := range aliases {
		if a.Value.Target != fingerprint {
			continue
		}
		if err := dropAlias(tx, who, a.Value); err != nil {
			return err
		}
	}
	return emit(tx, who, project, "image-deleted", imagePath(fingerprint), map[string]any{"type": api.InstanceTypeContainer})
}

// inAnyProject tells whether another project's record needs the files.
func inAnyProject(tx store.Tx, fingerprint string) (bool, error) {
	all, err := store.List[model.Image](tx, model.ImagePrefix)
	for _, r := range all {
		if r.Value.Fingerprint == fingerprint {
			return true, err
		}
	}
	return false, err
}

// removeFiles removes an image's own files and its trees in the pools.
func (c *Catalog) removeFiles(ctx context.Context, fingerprint string) {
	for _, p := range c.deps.Pools() {
		if err := p.DeleteImage(ctx, fingerprint); err != nil {
			c.deps.Log.Warn("image could not be removed from a storage pool", "image", fingerprint, "err", err)
		}
	}
	removeAll([]string{c.metaFile(fingerprint), c.rootFile(fingerprint)})
}
