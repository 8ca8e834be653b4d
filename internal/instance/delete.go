package instance

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

// Delete starts an operation that removes a stopped instance.
func (e *Engine) Delete(ctx context.Context, project, name string) (*operation.Op, error) {
	l, err := e.loadDoomed(ctx, project, name)
	if err != nil {
		return nil, err
	}
	if err := e.mayDelete(l); err != nil {
		return nil, err
	}
	return e.begin(ctx, operation.Spec{Project: project, Description: "Deleting instance", Resources: resources(name)}, "deleting",
		[]string{lockKey(project, name)}, func(ctx context.Context, _ *operation.Op) error {
			l, err := e.load(ctx, project, name, true)
			if err != nil {
				return err
			}
			if err := e.mayDelete(l); err != nil {
				return err
			}
			return e.remove(ctx, project, name)
		})
}

// loadDoomed reads an instance that is to be deleted. One whose deletion has
// failed half-way is there for a second attempt; one that is being made or
// deleted now is not.
func (e *Engine) loadDoomed(ctx context.Context, project, name string) (*loaded, error) {
	l, err := e.load(ctx, project, name, true)
	if err != nil || visible(l.Instance) {
		return l, err
	}
	if _, busy := e.Locks.Holder(lockKey(project, name)); busy || l.Phase != model.Deleting {
		return nil, api.Errorf(api.NotFound, "instance %s not found", name)
	}
	return l, nil
}

func (e *Engine) mayDelete(l *loaded) error {
	if e.liveOf(l.Project, l.Name) != nil {
		return api.Errorf(api.BadState, "instance %s is running", l.Name).WithHint("stop it first, or: croft delete --force %s", l.Name)
	}
	if option.Bool(l.config, "security.protection.delete") {
		return api.Errorf(api.Forbidden, "instance %s is protected from being deleted", l.Name).WithHint("croft config unset %s security.protection.delete", l.Name)
	}
	return nil
}

// remove deletes a stopped instance whose lock the caller holds. A crash in the
// middle leaves the phase Deleting, which start-up finishes.
func (e *Engine) remove(ctx context.Context, project, name string) error {
	if empty, err := e.Cgroups.Empty(e.payload(project, name)); err != nil || !empty {
		return errors.Join(api.Errorf(api.BadState, "instance %s has processes left from an earlier run", name).WithHint("end them: croft stop --force %s", name), err)
	}
	var inst *model.Instance
	err := e.Store.Update(ctx, func(tx store.Tx) (err error) {
		if inst, _, err = store.Edit[model.Instance](tx, model.InstanceKey(project, name)); err != nil {
			return err
		}
		if inst.Phase, err = inst.Phase.Next(model.Delete); err != nil {
			return err
		}
		return store.Put(tx, inst.Key(), inst)
	})
	if err != nil {
		return err
	}
	// From here on there is no way back, so nobody may stop it half-way.
	return e.finishDelete(context.WithoutCancel(ctx), inst, "instance-deleted")
}

// forget undoes an instance that was being made.
func (e *Engine) forget(ctx context.Context, inst *model.Instance) error {
	return e.finishDelete(ctx, inst, "")
}

// finishDelete removes all that an instance has on this host and then its
// records. It may be repeated after a crash.
func (e *Engine) finishDelete(ctx context.Context, inst *model.Instance, action string) error {
	e.closeRoot(inst.Project, inst.Name)
	ref := storage.Ref{Project: inst.Project, Name: inst.Name}
	driver, err := e.Pools.Pool(ctx, inst.Pool)
	if err == nil {
		err = driver.DeleteVolume(ctx, ref)
	}
	if err != nil && !errors.Is(err, api.NotFound) {
		return err
	}
	return e.dropRecords(ctx, inst, action)
}

// unreserve is forget for an instance that has got no volume of its own.
func (e *Engine) unreserve(ctx context.Context, inst *model.Instance) error {
	return e.dropRecords(ctx, inst, "")
}

// dropRecords removes all of an instance but its volume.
func (e *Engine) dropRecords(ctx context.Context, inst *model.Instance, action string) error {
	ref := storage.Ref{Project: inst.Project, Name: inst.Name}
	e.clean(inst.Project, inst.Name)
	e.Runtime.RemoveLock(ref.String())
	for _, path := range []string{e.linkPath(inst.Project, inst.Name), e.lockFile(inst.Project, inst.Name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.RemoveAll(e.path("logs", ref.String())); err != nil {
		return err
	}
	var base int64
	err := e.Store.Update(ctx, func(tx store.Tx) error {
		if local, _, err := store.Get[model.Local](tx, model.LocalKey(inst.Project, inst.Name)); err == nil {
			base = idBase(local)
		}
		if err := store.Delete(tx, model.LocalKey(inst.Project, inst.Name)); err != nil {
			return err
		}
		if err := store.Delete(tx, inst.Key()); err != nil || action == "" {
			return err
		}
		return emit(ctx, tx, action, inst.Project, inst.Name, nil)
	})
	if err == nil && base != 0 {
		e.ids.give(base)
	}
	return err
}
