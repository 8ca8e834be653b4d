// Package catalog keeps the images of the daemon: their records and aliases in
// the store, their files in the state directory.
//
//	images/FINGERPRINT          the unified tarball, or the metadata of a split image
//	images/FINGERPRINT.rootfs   the root filesystem of a split image
//	uploads/                    what is being received or built; emptied at start
//
// A file is there, durably, before its record is, and goes after it: a record
// whose files are whole is the only state that a client can see, and what a
// crash leaves over has no record and is removed by [Catalog.Recover].
//
// What is in an image file is for package image to know, what pools make of it
// for package storage.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/store"
)

// Tools looks into image files; *image.Tools is one.
type Tools interface {
	Inspect(ctx context.Context, metaPath, rootPath string) (*image.Info, error)
	Unpack(ctx context.Context, source string, what image.What, dest string) (image.Stats, error)
}

// Builder makes images from a distribution's packages.
type Builder interface {
	// Check tells whether the distribution can be built, without building.
	Check(distribution string) error
	// Build writes the image's files (unified: one, split: metadata and rootfs)
	// into dir, telling now and then in words what it does.
	Build(ctx context.Context, distribution, mirror, dir string, progress func(string)) (files []string, err error)
}

// Pool is a storage pool's side of images; storage.Driver is one.
type Pool interface {
	Images(ctx context.Context) ([]string, error)
	DeleteImage(ctx context.Context, fingerprint string) error
}

// Deps of [New]; all but Log and Now are required.
type Deps struct {
	Store    store.Store
	Ops      *operation.Manager
	Locks    *operation.Locks
	StateDir string
	Tools    Tools
	Builder  Builder
	Pools    func() []Pool // the pools that are open now

	Log *slog.Logger
	Now func() time.Time
}

// Catalog is safe for concurrent use.
type Catalog struct {
	deps Deps

	mu   sync.Mutex
	uses map[string]*use // images that are being read, by fingerprint
}

// use counts the readers of an image's files.
type use struct {
	n    int
	idle chan struct{} // closed when n has dropped to 0
}

// New makes a catalog. [Catalog.Recover] must run before images are imported.
func New(d Deps) *Catalog {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Catalog{deps: d, uses: map[string]*use{}}
}

// TempDir is where uploads are to be written: on the file system of the images,
// so that they can be moved there, and emptied at start.
func (c *Catalog) TempDir() string { return filepath.Join(c.deps.StateDir, "uploads") }

func (c *Catalog) imagesDir() string { return filepath.Join(c.deps.StateDir, "images") }

func (c *Catalog) metaFile(fingerprint string) string {
	return filepath.Join(c.imagesDir(), fingerprint)
}

func (c *Catalog) rootFile(fingerprint string) string {
	return filepath.Join(c.imagesDir(), fingerprint+".rootfs")
}

// List gives the images of a project by fingerprint, with their aliases.
func (c *Catalog) List(ctx context.Context, project string) ([]api.Image, error) {
	out := []api.Image{}
	err := c.deps.Store.View(ctx, func(tx store.Tx) error {
		records, err := store.List[model.Image](tx, model.ImagePrefix+project+"/")
		if err != nil {
			return err
		}
		aliases, err := aliasesByTarget(tx, project)
		if err != nil {
			return err
		}
		used, err := store.List[lastUse](tx, usePrefix+project+"/")
		if err != nil {
			return err
		}
		last := make(map[string]time.Time, len(used))
		for _, u := range used {
			last[u.Key] = u.Value.At
		}
		out = make([]api.Image, 0, len(records))
		for _, r := range records {
			out = append(out, toAPI(r.Value, aliases[r.Value.Fingerprint], last[useKey(project, r.Value.Fingerprint)]))
		}
		return nil
	})
	return out, err
}

// Get gives one image by its fingerprint or an unambiguous beginning of it, and
// the ETag of its writable part. Errors: NotFound; Invalid when it is ambiguous.
func (c *Catalog) Get(ctx context.Context, project, prefix string) (img api.Image, etag string, err error) {
	err = c.deps.Store.View(ctx, func(tx store.Tx) error {
		rec, rev, err := find(tx, project, prefix)
		if err != nil {
			return err
		}
		aliases, err := aliasesByTarget(tx, project)
		if err != nil {
			return err
		}
		used, _, err := store.Get[lastUse](tx, useKey(project, rec.Fingerprint))
		if errors.Is(err, api.NotFound) {
			used, err = &lastUse{}, nil
		}
		img, etag = toAPI(rec, aliases[rec.Fingerprint], used.At), etagOf(rev)
		return err
	})
	return img, etag, err
}

// toAPI shows a record. What is shared with the record must not be changed.
func toAPI(r *model.Image, aliases []api.ImageAlias, used time.Time) api.Image {
	if aliases == nil {
		aliases = []api.ImageAlias{}
	}
	return api.Image{
		ImagePut: r.ImagePut, Aliases: aliases, Architecture: r.Architecture, Cached: r.Cached,
		Filename: r.Filename, Fingerprint: r.Fingerprint, Size: r.Size, Type: api.InstanceTypeContainer,
		CreatedAt: r.CreatedAt, LastUsedAt: used, UploadedAt: r.UploadedAt,
	}
}

// find resolves a fingerprint or its beginning.
func find(tx store.Tx, project, prefix string) (*model.Image, store.Rev, error) {
	base := model.ImagePrefix + project + "/"
	items, err := tx.List(base + prefix)
	if err != nil {
		return nil, 0, err
	}
	all := make([]string, len(items))
	for i, it := range items {
		all[i] = strings.TrimPrefix(it.Key, base)
	}
	fingerprint, err := image.MatchFingerprint(prefix, all)
	if err != nil {
		return nil, 0, err
	}
	return store.Get[model.Image](tx, base+fingerprint)
}

// Update changes the writable part of an image. mutate gets a copy of it and may
// run more than once. Errors: NotFound; Precondition when ifMatch is stale;
// Invalid, naming the field.
func (c *Catalog) Update(ctx context.Context, project, fingerprint, ifMatch string, mutate func(*api.ImagePut) error) error {
	who := auth.From(ctx).Requestor()
	return c.deps.Store.Update(ctx, func(tx store.Tx) error {
		known, rev, err := find(tx, project, fingerprint)
		if err != nil {
			return err
		}
		if err := checkETag(ifMatch, rev, "image "+known.Fingerprint); err != nil {
			return err
		}
		rec, _, err := store.Edit[model.Image](tx, known.Key())
		if err != nil {
			return err
		}
		if err := mutate(&rec.ImagePut); err != nil {
			return err
		}
		if rec.Profiles == nil { // not given
			rec.Profiles = known.Profiles
		}
		if err := checkPut(tx, project, &rec.ImagePut); err != nil {
			return err
		}
		if err := store.Put(tx, rec.Key(), rec); err != nil {
			return err
		}
		return emit(tx, who, project, "image-updated", imagePath(rec.Fingerprint), nil)
	})
}

// checkPut completes and checks what a client wrote.
func checkPut(tx store.Tx, project string, put *api.ImagePut) error {
	if put.Properties == nil {
		put.Properties = map[string]string{}
	}
	// LXD's client unsets a property by emptying it.
	maps.DeleteFunc(put.Properties, func(_, value string) bool { return value == "" })
	for _, k := range slices.Sorted(maps.Keys(put.Properties)) {
		if k == "" || strings.ContainsFunc(k, control) || strings.ContainsRune(put.Properties[k], 0) {
			return api.Errorf(api.Invalid, "image property %q=%q is not allowed: names must not be empty, and neither may hold control characters", k, put.Properties[k])
		}
	}
	for _, p := range put.Profiles {
		switch ok, err := store.Exists(tx, model.ProfileKey(project, p)); {
		case err != nil:
			return err
		case !ok:
			return api.Errorf(api.Invalid, "image field profiles names %q, which is not a profile", p)
		}
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// Use keeps the files of an image from being deleted until release is called,
// for as long as it takes to make an instance of it. Errors: NotFound.
func (c *Catalog) Use(ctx context.Context, project, fingerprint string) (release func(), err error) {
	// The count comes before the look: a delete that removes the record after it
	// sees the count.
	c.mu.Lock()
	u := c.uses[fingerprint]
	if u == nil {
		u = &use{idle: make(chan struct{})}
		c.uses[fingerprint] = u
	}
	u.n++
	c.mu.Unlock()
	release = sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if u.n--; u.n == 0 {
			close(u.idle)
			delete(c.uses, fingerprint)
		}
	})
	err = c.deps.Store.View(ctx, func(tx store.Tx) error {
		_, _, err := store.Get[model.Image](tx, model.ImageKey(project, fingerprint))
		return err
	})
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// waitUnused waits until nobody reads the image.
func (c *Catalog) waitUnused(ctx context.Context, fingerprint string) error {
	c.mu.Lock()
	u := c.uses[fingerprint]
	c.mu.Unlock()
	if u == nil {
		return nil
	}
	select {
	case <-u.idle:
		return nil
	case <-ctx.Done():
		return store.ContextError(ctx, "wait for the instances that are being made of image "+fingerprint)
	}
}

// requestor is who a lifecycle event is attributed to; nil for the daemon itself.
type requestor = *api.EventLifecycleRequestor

func emit(tx store.Tx, who requestor, project, action, source string, more map[string]any) error {
	return store.EmitLifecycle(tx, project, api.EventLifecycleMetadata{
		Action: action, Source: source, Context: more, Requestor: who,
	})
}

func (c *Catalog) lock(ctx context.Context, op *operation.Op, reason, project, fingerprint string) (release func(), err error) {
	return c.deps.Locks.Acquire(ctx, operation.Owner{Operation: op.ID(), Reason: reason}, model.ImageKey(project, fingerprint))
}

func imagePath(fingerprint string) string { return "/1.0/images/" + fingerprint }

func etagOf(rev store.Rev) string { return strconv.FormatUint(uint64(rev), 10) }

func checkETag(ifMatch string, rev store.Rev, what string) error {
	if ifMatch == "" || ifMatch == etagOf(rev) {
		return nil
	}
	return api.Errorf(api.Precondition, "%s has changed: If-Match is %q, its ETag is %q", what, ifMatch, etagOf(rev)).
		WithHint("read it again and repeat the change")
}

// wrap says what was attempted, keeping the kind.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
