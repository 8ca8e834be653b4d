package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/store"
)

// Upload is an image that a client has sent.
type Upload struct {
	// Files are on the file system of [Catalog.TempDir]: one for a unified image,
	// metadata and rootfs for a split one. The catalog takes them over, and
	// removes them if it fails.
	Files       []string
	Filename    string // what the client calls it
	Public      bool
	AutoUpdate  bool
	Properties  map[string]string // win over those in the image
	Profiles    []string          // nil: the default profile
	Aliases     []api.ImageAlias
	Fingerprint string // what the client expects, or empty
}

// Import makes an image of uploaded files. What can be checked without reading
// them is checked before it returns. Errors of the operation: Invalid for the
// files; Conflict when the image exists.
func (c *Catalog) Import(ctx context.Context, project string, up Upload) (*operation.Op, error) {
	op, err := c.startImport(ctx, project, up)
	if err != nil {
		removeAll(up.Files)
	}
	return op, err
}

func (c *Catalog) startImport(ctx context.Context, project string, up Upload) (*operation.Op, error) {
	if len(up.Files) < 1 || len(up.Files) > 2 {
		return nil, api.Errorf(api.Internal, "image import: %d files given, want 1 or 2", len(up.Files))
	}
	if strings.ContainsFunc(up.Filename, control) || len(up.Filename) > 255 {
		return nil, api.Errorf(api.Invalid, "image file name %q is not allowed: use at most 255 characters and no control character", up.Filename)
	}
	if err := c.checkAliases(ctx, project, up.Aliases); err != nil {
		return nil, err
	}
	who := auth.From(ctx).Requestor()
	return c.deps.Ops.Start(operation.Spec{
		Project: project, Description: "Downloading image", Requestor: who,
		Run: func(ctx context.Context, op *operation.Op) error {
			defer removeAll(up.Files) // those that have not been moved
			return c.add(ctx, op, project, up, false)
		},
	})
}

// checkAliases refuses early what the final transaction would refuse.
func (c *Catalog) checkAliases(ctx context.Context, project string, aliases []api.ImageAlias) error {
	seen := map[string]bool{}
	for _, a := range aliases {
		if err := model.CheckAliasName(a.Name); err != nil {
			return err
		}
		if seen[a.Name] {
			return api.Errorf(api.Invalid, "image alias %q is given twice", a.Name)
		}
		seen[a.Name] = true
	}
	return c.deps.Store.View(ctx, func(tx store.Tx) error {
		for _, a := range aliases {
			if err := aliasFree(tx, project, a.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// add inspects files, moves them into place and makes the record. With again, an
// image that is there already just gets the aliases.
func (c *Catalog) add(ctx context.Context, op *operation.Op, project string, up Upload, again bool) error {
	root := ""
	if len(up.Files) == 2 {
		root = up.Files[1]
	}
	info, err := c.deps.Tools.Inspect(ctx, up.Files[0], root)
	if err != nil {
		return err
	}
	if up.Fingerprint != "" && up.Fingerprint != info.Fingerprint {
		return api.Errorf(api.Invalid, "image fingerprint is %s, but %q was expected", info.Fingerprint, up.Fingerprint)
	}
	op.ExtendMetadata(map[string]any{"fingerprint": info.Fingerprint, "size": strconv.FormatInt(info.Size, 10)})

	release, err := c.lock(ctx, op, "importing", project, info.Fingerprint)
	if err != nil {
		return err
	}
	defer release()
	rec := c.record(project, up, info)
	exists, err := c.exists(ctx, rec.Key())
	switch {
	case err != nil:
		return err
	case exists && again:
		return c.deps.Store.Update(ctx, func(tx store.Tx) error {
			return putAliases(tx, op.Requestor(), rec, up.Aliases)
		})
	case exists:
		return api.Errorf(api.Conflict, "image %s already exists", info.Fingerprint)
	}
	return c.commit(ctx, op, rec, up)
}

func (c *Catalog) exists(ctx context.Context, key string) (exists bool, err error) {
	err = c.deps.Store.View(ctx, func(tx store.Tx) error {
		exists, err = store.Exists(tx, key)
		return err
	})
	return exists, err
}

func (c *Catalog) record(project string, up Upload, info *image.Info) *model.Image {
	properties := map[string]string{}
	maps.Copy(properties, info.Metadata.Properties)
	maps.Copy(properties, up.Properties)
	profiles := up.Profiles
	if profiles == nil {
		profiles = []string{"default"}
	}
	return &model.Image{
		Project: project, Fingerprint: info.Fingerprint,
		ImagePut: api.ImagePut{
			AutoUpdate: up.AutoUpdate, Properties: properties, Public: up.Public,
			ExpiresAt: time.Unix(info.Metadata.ExpiryDate, 0).UTC(), Profiles: profiles,
		},
		Filename: up.Filename, Architecture: info.Metadata.Architecture, Size: info.Size,
		Split: info.Split, Squashfs: info.Squashfs(), Metadata: *info.Metadata, Templates: info.Templates,
		CreatedAt: time.Unix(info.Metadata.CreationDate, 0).UTC(), UploadedAt: c.deps.Now().UTC(),
	}
}

// commit puts the files in place, durably, and then makes them an image.
func (c *Catalog) commit(ctx context.Context, op *operation.Op, rec *model.Image, up Upload) error {
	places := []string{c.metaFile(rec.Fingerprint), c.rootFile(rec.Fingerprint)}[:len(up.Files)]
	err := moveFiles(up.Files, places)
	if err == nil {
		err = c.deps.Store.Update(ctx, func(tx store.Tx) error {
			if err := checkPut(tx, rec.Project, &rec.ImagePut); err != nil {
				return err
			}
			if err := store.Put(tx, rec.Key(), rec, store.IfAbsent()); err != nil {
				return err
			}
			meta := map[string]any{"type": api.InstanceTypeContainer}
			if err := emit(tx, op.Requestor(), rec.Project, "image-created", imagePath(rec.Fingerprint), meta); err != nil {
				return err
			}
			return putAliases(tx, op.Requestor(), rec, up.Aliases)
		})
	}
	if err != nil {
		removeAll(places)
		return wrap(err, "keep image %s", rec.Fingerprint)
	}
	return nil
}

func putAliases(tx store.Tx, who requestor, rec *model.Image, aliases []api.ImageAlias) error {
	for _, a := range aliases {
		if err := model.CheckAliasName(a.Name); err != nil {
			return err
		}
		if err := putAlias(tx, who, rec.Project, rec.Fingerprint, a); err != nil {
			return err
		}
	}
	return nil
}

// moveFiles brings files to the disk and renames them: they are in place as a
// whole or, after an error or a crash, without a record.
func moveFiles(from, to []string) error {
	for i := range from {
		if err := syncFile(from[i]); err != nil {
			return diskError(err)
		}
		if err := os.Chmod(from[i], 0o600); err != nil {
			return diskError(err)
		}
		if err := os.Rename(from[i], to[i]); err != nil {
			return diskError(err)
		}
	}
	return diskError(syncFile(filepath.Dir(to[0])))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// diskError gives a full disk its kind.
func diskError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return api.Errorf(api.NoSpace, "%w", err)
	}
	return err
}

// removeAll removes files that may be gone already; what cannot be removed now
// is removed at the next start.
func removeAll(paths []string) {
	for _, p := range paths {
		_ = os.Remove(p)
	}
}

func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func fileExists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if isAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for image file: %w", err)
	}
	return true, nil
}
