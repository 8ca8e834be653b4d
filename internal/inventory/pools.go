package inventory

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

func poolPath(name string) string { return "/1.0/storage-pools/" + url.PathEscape(name) }

// poolConfig is what package storage needs of a record.
func poolConfig(rec *model.Pool) storage.PoolConfig {
	return storage.PoolConfig{Name: rec.Name, Driver: rec.Driver, Source: rec.Config["source"]}
}

// Pool gives an open pool. Errors: NotFound; Unavailable when it could not be
// opened at start or is being made or removed.
func (i *Inventory) Pool(ctx context.Context, name string) (*storage.Pool, error) {
	err := i.deps.Store.View(ctx, func(tx store.Tx) error {
		rec, _, err := getPool(tx, name)
		if err == nil && rec.Phase != model.Ready {
			err = api.Errorf(api.Unavailable, "storage pool %s is not available: it is in phase %s", name, rec.Phase)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	pool, err := i.deps.Pools.Get(name)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "storage pool %s could not be opened; the daemon's log says why", name)
	}
	return pool, nil
}

func getPool(tx store.Tx, name string) (*model.Pool, store.Rev, error) {
	rec, rev, err := store.Get[model.Pool](tx, model.PoolKey(name))
	if errors.Is(err, api.NotFound) {
		err = api.Errorf(api.NotFound, "storage pool %s not found", name)
	}
	return rec, rev, err
}

// poolToAPI shows a record; what it shares with it must not be changed.
func (i *Inventory) poolToAPI(rec *model.Pool, usedBy []string) api.StoragePool {
	status := statusCreated
	if rec.Phase == model.Creating {
		status = statusPending
	} else if _, err := i.deps.Pools.Get(rec.Name); err != nil {
		status = statusUnavailable
	}
	return api.StoragePool{
		StoragePoolPut: rec.StoragePoolPut, Name: rec.Name, Driver: rec.Driver,
		UsedBy: sorted(usedBy), Status: status, Locations: location(),
	}
}

// ListPools gives all pools by name.
func (i *Inventory) ListPools(ctx context.Context) ([]api.StoragePool, error) {
	out := []api.StoragePool{}
	err := i.deps.Store.View(ctx, func(tx store.Tx) error {
		records, err := store.List[model.Pool](tx, model.PoolPrefix)
		if err != nil {
			return err
		}
		u, err := findUsers(tx)
		if err != nil {
			return err
		}
		out = make([]api.StoragePool, 0, len(records))
		for _, r := range records {
			out = append(out, i.poolToAPI(r.Value, u.pools[r.Value.Name]))
		}
		return nil
	})
	return out, err
}

// GetPool gives one pool. Errors: NotFound.
func (i *Inventory) GetPool(ctx context.Context, name string) (pool api.StoragePool, etag string, err error) {
	err = i.deps.Store.View(ctx, func(tx store.Tx) error {
		rec, rev, err := getPool(tx, name)
		if err != nil {
			return err
		}
		u, err := findUsers(tx)
		if err != nil {
			return err
		}
		pool, etag = i.poolToAPI(rec, u.pools[name]), etagOf(rev)
		return nil
	})
	return pool, etag, err
}

// CreatePool makes a pool. Errors: Invalid, naming the field; Conflict;
// Unsupported when the driver does not work on this host.
func (i *Inventory) CreatePool(ctx context.Context, req api.StoragePoolsPost) error {
	if err := model.CheckName("storage pool", req.Name); err != nil {
		return err
	}
	drivers := i.deps.Pools.DriverNames()
	switch {
	case req.Driver == "":
		return api.Errorf(api.Invalid, "storage pool %s: field driver is empty; allowed are %s", req.Name, strings.Join(drivers, ", "))
	case i.deps.Pools.Drivers[req.Driver] == nil:
		return api.Errorf(api.Invalid, "storage pool %s: driver %q is not known; allowed are %s", req.Name, req.Driver, strings.Join(drivers, ", "))
	}
	cfg := compact(req.Config)
	if err := option.Pool(req.Driver).Validate(cfg); err != nil {
		return err
	}
	rec := &model.Pool{
		Name: req.Name, Driver: req.Driver, Phase: model.Creating,
		StoragePoolPut: api.StoragePoolPut{Config: cfg, Description: req.Description},
	}
	release, err := i.lock(ctx, "being created", rec.Key())
	if err != nil {
		return err
	}
	defer release()
	err = i.deps.Store.Update(ctx, func(tx store.Tx) error { return store.Put(tx, rec.Key(), rec, store.IfAbsent()) })
	if errors.Is(err, api.Conflict) {
		return api.Errorf(api.Conflict, "storage pool %s already exists", req.Name)
	}
	if err != nil {
		return err
	}
	return i.makePool(ctx, rec)
}

// makePool does the work on disk and finishes the record, or undoes both.
func (i *Inventory) makePool(ctx context.Context, rec *model.Pool) error {
	pool, err := i.deps.Pools.Create(ctx, poolConfig(rec))
	if err == nil {
		rec.Config["source"] = pool.Dir
		rec.Phase = model.Ready
		err = i.deps.Store.Update(ctx, func(tx store.Tx) error {
			if err := store.Put(tx, rec.Key(), rec); err != nil {
				return err
			}
			return emit(tx, auth.From(ctx).Requestor(), "storage-pool-created", poolPath(rec.Name), map[string]any{"driver": rec.Driver})
		})
		if err != nil {
			undo := context.WithoutCancel(ctx)
			err = errors.Join(err, i.deps.Pools.Delete(undo, rec.Name))
		}
	}
	if err == nil {
		return nil
	}
	undo := context.WithoutCancel(ctx)
	dropped := i.deps.Store.Update(undo, func(tx store.Tx) error { return store.Delete(tx, rec.Key()) })
	if dropped != nil {
		i.deps.Log.Error("storage pool that failed could not be forgotten", "pool", rec.Name, "err", dropped)
	}
	return err
}

// UpdatePool changes a pool's configuration and description. mutate gets a copy
// and may run more than once. Errors: NotFound; Precondition; Invalid, also for
// a change of source.
func (i *Inventory) UpdatePool(ctx context.Context, name, ifMatch string, mutate func(*api.StoragePoolPut) error) error {
	who := auth.From(ctx).Requestor()
	return i.deps.Store.Update(ctx, func(tx store.Tx) error {
		known, rev, err := getPool(tx, name)
		if err != nil {
			return err
		}
		if err := checkETag(ifMatch, rev, "storage pool "+name); err != nil {
			return err
		}
		rec, _, err := store.Edit[model.Pool](tx, known.Key())
		if err != nil {
			return err
		}
		if err := mutate(&rec.StoragePoolPut); err != nil {
			return err
		}
		rec.Config = compact(rec.Config)
		if err := option.Pool(rec.Driver).Validate(rec.Config); err != nil {
			return err
		}
		if err := keepSource(known, rec); err != nil {
			return err
		}
		if err := store.Put(tx, rec.Key(), rec); err != nil {
			return err
		}
		return emit(tx, who, "storage-pool-updated", poolPath(name), nil)
	})
}

// keepSource refuses another source; one that is not given stays.
func keepSource(known, rec *model.Pool) error {
	was := known.Config["source"]
	if is := rec.Config["source"]; is != "" && filepath.Clean(is) != filepath.Clean(was) {
		return api.Errorf(api.Invalid, "storage pool key source is %q: it cannot be changed, it is %q", is, was)
	}
	if was != "" {
		rec.Config["source"] = was
	}
	return nil
}

// DeletePool removes a pool that nothing uses, with the images in it. Errors:
// NotFound; InUse, naming the users.
func (i *Inventory) DeletePool(ctx context.Context, name string) error {
	release, err := i.lock(ctx, "being deleted", model.PoolKey(name))
	if err != nil {
		return err
	}
	defer release()
	err = i.deps.Store.Update(ctx, func(tx store.Tx) error {
		if _, _, err := getPool(tx, name); err != nil {
			return err
		}
		u, err := findUsers(tx)
		if err != nil {
			return err
		}
		if used := u.pools[name]; len(used) > 0 {
			return inUse("storage pool "+name, used)
		}
		return setPoolPhase(tx, name, model.Delete)
	})
	if err != nil {
		return err
	}
	return i.removePool(ctx, name)
}

func setPoolPhase(tx store.Tx, name string, a model.Action) error {
	rec, _, err := store.Edit[model.Pool](tx, model.PoolKey(name))
	if err != nil {
		return err
	}
	if rec.Phase, err = rec.Phase.Next(a); err != nil {
		return err
	}
	return store.Put(tx, rec.Key(), rec)
}

// removePool removes the data and then the record of a pool in phase Deleting.
func (i *Inventory) removePool(ctx context.Context, name string) error {
	err := i.deps.Pools.Delete(ctx, name)
	if err != nil && !errors.Is(err, api.NotFound) { // NotFound: it could not be opened, its disk is gone
		return err
	}
	return i.deps.Store.Update(ctx, func(tx store.Tx) error {
		if err := store.Delete(tx, model.PoolKey(name)); err != nil {
			return err
		}
		return emit(tx, auth.From(ctx).Requestor(), "storage-pool-deleted", poolPath(name), nil)
	})
}

// inUse refuses with the names of the first users.
func inUse(what string, paths []string) error {
	paths = sorted(paths)
	const shown = 5
	more := ""
	if len(paths) > shown {
		paths, more = paths[:shown], ", …"
	}
	for k, p := range paths {
		p = strings.TrimPrefix(p, "/1.0/")
		paths[k] = strings.Replace(strings.Replace(p, "instances/", "instance ", 1), "profiles/", "profile ", 1)
	}
	return api.Errorf(api.InUse, "%s is in use by %s%s", what, strings.Join(paths, ", "), more)
}

// PoolResources tells the space of a pool. Errors: NotFound, Unavailable.
func (i *Inventory) PoolResources(ctx context.Context, name string) (api.ResourcesStoragePool, error) {
	pool, err := i.Pool(ctx, name)
	if err != nil {
		return api.ResourcesStoragePool{}, err
	}
	s, err := pool.Space()
	return api.ResourcesStoragePool{
		Space:  api.ResourcesStoragePoolSpace{Used: s.Used, Total: s.Total},
		Inodes: api.ResourcesStoragePoolSpace{Used: s.InodesUsed, Total: s.Inodes},
	}, err
}

// Volumes lists the roots of instances and the images in a pool. Errors:
// NotFound, Unavailable.
func (i *Inventory) Volumes(ctx context.Context, name string) ([]api.StorageVolume, error) {
	pool, err := i.Pool(ctx, name)
	if err != nil {
		return nil, err
	}
	images, err := pool.Images(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.StorageVolume{}
	err = i.deps.Store.View(ctx, func(tx store.Tx) error {
		instances, err := store.List[model.Instance](tx, model.InstancePrefix)
		if err != nil {
			return err
		}
		out = make([]api.StorageVolume, 0, len(instances)+len(images))
		for _, r := range instances {
			if inst := r.Value; inst.Pool == name {
				out = append(out, volume("container", inst.Project, inst.Name, objectPath("instances", inst.Project, inst.Name)))
			}
		}
		return nil
	})
	for _, f := range images {
		out = append(out, volume("image", model.DefaultProject, f, objectPath("images", model.DefaultProject, f)))
	}
	return out, err
}

func volume(kind, project, name, usedBy string) api.StorageVolume {
	return api.StorageVolume{
		Config: map[string]string{}, Name: name, Type: kind, UsedBy: []string{usedBy},
		Location: "none", ContentType: "filesystem", Project: project,
	}
}
