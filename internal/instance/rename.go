package instance

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

// Rename starts an operation that gives a stopped instance another name. Its
// MAC addresses and other volatile keys stay.
func (e *Engine) Rename(ctx context.Context, project, name string, req api.InstancePost) (*operation.Op, error) {
	if req.Migration || req.Target != nil || req.Pool != "" || req.Project != "" && req.Project != project {
		return nil, api.Errorf(api.Unsupported, "moving an instance to another host, pool or project is not supported by this version")
	}
	if err := model.CheckInstanceName(req.Name); err != nil {
		return nil, err
	}
	if _, err := e.load(ctx, project, name, false); err != nil {
		return nil, err
	}
	err := e.Store.View(ctx, func(tx store.Tx) error {
		taken, err := nameTaken(tx, project, req.Name)
		if taken {
			return alreadyExists(req.Name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := e.mustBeStopped(project, name, "renamed"); err != nil {
		return nil, err
	}
	return e.begin(ctx, operation.Spec{Project: project, Description: "Renaming instance", Resources: resources(name)}, "renaming",
		[]string{lockKey(project, name), lockKey(project, req.Name)}, func(ctx context.Context, _ *operation.Op) error {
			if err := e.mustBeStopped(project, name, "renamed"); err != nil {
				return err
			}
			return e.rename(ctx, project, name, req.Name)
		})
}

func (e *Engine) mustBeStopped(project, name, what string) error {
	if e.liveOf(project, name) != nil {
		return api.Errorf(api.BadState, "instance %s is running and cannot be %s", name, what).WithHint("stop it first: croft stop %s", name)
	}
	return nil
}

// rename marks the record, moves what is on disk, and then the record. After a
// crash in between, start-up finds the mark and goes on.
func (e *Engine) rename(ctx context.Context, project, from, to string) error {
	var inst *model.Instance
	err := e.Store.Update(ctx, func(tx store.Tx) (err error) {
		if inst, _, err = store.Edit[model.Instance](tx, model.InstanceKey(project, from)); err != nil {
			return err
		}
		if taken, err := nameTaken(tx, project, to); err != nil || taken {
			return errors.Join(err, alreadyExists(to))
		}
		if inst.Phase, err = inst.Phase.Next(model.Rename); err != nil {
			return err
		}
		inst.RenameTo = to
		return store.Put(tx, inst.Key(), inst)
	})
	if err != nil {
		return err
	}
	return e.finishRename(context.WithoutCancel(ctx), inst)
}

func (e *Engine) finishRename(ctx context.Context, inst *model.Instance) error {
	from, to := inst.Name, inst.RenameTo
	e.closeRoot(inst.Project, from)
	driver, err := e.Pools.Pool(ctx, inst.Pool)
	if err != nil {
		return err
	}
	oldRef, newRef := storage.Ref{Project: inst.Project, Name: from}, storage.Ref{Project: inst.Project, Name: to}
	if err := driver.Rename(ctx, oldRef, newRef); err != nil {
		// After a crash it may have been moved before. While the old name is there
		// it was not, and what is at the new one is not ours.
		if _, oldErr := driver.Root(ctx, oldRef); oldErr == nil {
			return errors.Join(err, e.cancelRename(ctx, inst))
		}
	}
	root, err := driver.Root(ctx, newRef)
	if err != nil {
		return errors.Join(err, e.cancelRename(ctx, inst))
	}
	if err := e.moveFiles(oldRef.String(), newRef.String(), root.Dir); err != nil {
		return err
	}
	e.Runtime.RemoveLock(oldRef.String())
	return e.Store.Update(ctx, func(tx store.Tx) error {
		return moveRecords(ctx, tx, inst, to)
	})
}

func (e *Engine) cancelRename(ctx context.Context, inst *model.Instance) error {
	return e.Store.Update(ctx, func(tx store.Tx) error {
		rec, _, err := store.Edit[model.Instance](tx, inst.Key())
		if err != nil {
			return err
		}
		if rec.Phase, err = rec.Phase.Next(model.Finish); err != nil {
			return err
		}
		rec.RenameTo = ""
		return store.Put(tx, rec.Key(), rec)
	})
}

// moveFiles renames what the state directory has under an instance's name.
func (e *Engine) moveFiles(from, to, volume string) error {
	for _, link := range []string{from, to} {
		if err := os.Remove(e.path("containers", link)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Symlink(volume, e.path("containers", to)); err != nil {
		return err
	}
	if err := os.Rename(e.path("logs", from), e.path("logs", to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(e.path("run", from+".lock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func moveRecords(ctx context.Context, tx store.Tx, inst *model.Instance, to string) error {
	rec, _, err := store.Edit[model.Instance](tx, inst.Key())
	if err != nil {
		return err
	}
	local, _, err := store.Edit[model.Local](tx, model.LocalKey(inst.Project, inst.Name))
	if err != nil {
		return err
	}
	if rec.Phase, err = rec.Phase.Next(model.Finish); err != nil {
		return err
	}
	for _, key := range []string{inst.Key(), model.LocalKey(inst.Project, inst.Name)} {
		if err := store.Delete(tx, key); err != nil {
			return err
		}
	}
	old := rec.Name
	rec.Name, rec.RenameTo = to, ""
	if local.Volatile["volatile.apply_template"] == "" {
		local.Volatile["volatile.apply_template"] = "rename"
	}
	if err := store.Put(tx, rec.Key(), rec); err != nil {
		return err
	}
	if err := store.Put(tx, model.LocalKey(rec.Project, rec.Name), local); err != nil {
		return err
	}
	return emit(ctx, tx, "instance-renamed", rec.Project, to, map[string]any{"old_name": old})
}
