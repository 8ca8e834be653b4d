package catalog

import (
	"context"
	"slices"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

// usePrefix begins the host-local keys that tell when an image was last used.
// They are records of their own: noting a use must not make the image's ETag
// stale.
const usePrefix = store.LocalPrefix + "image/"

func useKey(project, fingerprint string) string { return usePrefix + project + "/" + fingerprint }

type lastUse struct {
	At time.Time `json:"at"`
}

// Resolve finds the image that a new instance is to be made of: by alias, by
// fingerprint or its beginning, or the newest with all of the given properties.
// The record is shared: it must not be modified.
//
// Errors: NotFound; Invalid when nothing or something ambiguous was asked for;
// Unsupported for images of other servers.
func (c *Catalog) Resolve(ctx context.Context, project string, src api.InstanceSource) (img *model.Image, err error) {
	if src.Server != "" {
		return nil, api.Errorf(api.Unsupported, "instance source field server is %q: images of other servers are not supported by this version", src.Server).
			WithHint("import the image first: croft image import")
	}
	err = c.deps.Store.View(ctx, func(tx store.Tx) error {
		switch {
		case src.Alias != "":
			alias, _, err := getAlias(tx, project, src.Alias)
			if err != nil {
				return err
			}
			img, _, err = store.Get[model.Image](tx, model.ImageKey(project, alias.Target))
			return err
		case src.Fingerprint != "":
			img, _, err = find(tx, project, src.Fingerprint)
			return err
		case len(src.Properties) > 0:
			img, err = newest(tx, project, src.Properties)
			return err
		}
		return api.Errorf(api.Invalid, "instance source of type image names no image: give alias, fingerprint or properties")
	})
	return img, err
}

func newest(tx store.Tx, project string, properties map[string]string) (*model.Image, error) {
	records, err := store.List[model.Image](tx, model.ImagePrefix+project+"/")
	if err != nil {
		return nil, err
	}
	var best *model.Image
	for _, r := range records {
		if img := r.Value; hasProperties(img, properties) && (best == nil || img.CreatedAt.After(best.CreatedAt)) {
			best = img
		}
	}
	if best == nil {
		return nil, api.Errorf(api.NotFound, "no image has the properties %v", properties)
	}
	return best, nil
}

func hasProperties(img *model.Image, want map[string]string) bool {
	for k, v := range want {
		if have, ok := img.Properties[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// StorageImage tells a pool what it needs to know of an image.
func (c *Catalog) StorageImage(img *model.Image) storage.Image {
	file, what := c.metaFile(img.Fingerprint), image.RootFS
	if img.Split {
		file, what = c.rootFile(img.Fingerprint), image.Everything
	}
	return storage.Image{
		Fingerprint: img.Fingerprint, RootfsFile: file, Squashfs: img.Squashfs,
		Unpack: func(ctx context.Context, dest string) error {
			_, err := c.deps.Tools.Unpack(ctx, file, what, dest)
			return err
		},
	}
}

// Touch notes within a transaction that an image was used.
func Touch(tx store.Tx, project, fingerprint string) error {
	return store.Put(tx, useKey(project, fingerprint), &lastUse{At: tx.Now()})
}

// NoteUse is the function Touch, for those who know the catalog by an interface.
func (c *Catalog) NoteUse(tx store.Tx, project, fingerprint string) error {
	return Touch(tx, project, fingerprint)
}

// Touch notes that an image was used. Who has a transaction open anyway takes
// the function of the same name.
func (c *Catalog) Touch(ctx context.Context, project, fingerprint string) error {
	return c.deps.Store.Update(ctx, func(tx store.Tx) error { return Touch(tx, project, fingerprint) })
}

// Paths lists the images of a project as URL paths, in order.
func (c *Catalog) Paths(ctx context.Context, project string) ([]string, error) {
	images, err := c.List(ctx, project)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(images))
	for i := range images {
		out[i] = imagePath(images[i].Fingerprint)
	}
	slices.Sort(out)
	return out, nil
}
