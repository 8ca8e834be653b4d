package instance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/store"
)

// ListProfiles gives the profiles of a project, by name, with their users.
func (e *Engine) ListProfiles(ctx context.Context, project string) ([]api.Profile, error) {
	var out []api.Profile
	err := e.Store.View(ctx, func(tx store.Tx) error {
		users, err := profileUsers(tx, project)
		if err != nil {
			return err
		}
		records, err := store.List[model.Profile](tx, model.ProfileKey(project, ""))
		if err != nil {
			return err
		}
		out = make([]api.Profile, 0, len(records))
		for _, r := range records {
			out = append(out, showProfile(r.Value, users[r.Value.Name]))
		}
		return nil
	})
	return out, err
}

// GetProfile gives one profile and its ETag.
func (e *Engine) GetProfile(ctx context.Context, project, name string) (out api.Profile, tag string, err error) {
	err = e.Store.View(ctx, func(tx store.Tx) error {
		p, rev, err := store.Get[model.Profile](tx, model.ProfileKey(project, name))
		if err != nil {
			return err
		}
		users, err := profileUsers(tx, project)
		out, tag = showProfile(p, users[name]), etag(rev)
		return err
	})
	return out, tag, err
}

func showProfile(p *model.Profile, users []string) api.Profile {
	out := api.Profile{ProfilePut: p.ProfilePut, Name: p.Name, UsedBy: []string{}}
	if out.Config == nil {
		out.Config = map[string]string{}
	}
	if out.Devices == nil {
		out.Devices = map[string]map[string]string{}
	}
	for _, u := range users {
		out.UsedBy = append(out.UsedBy, "/1.0/instances/"+u)
	}
	return out
}

// profileUsers lists the instances of each profile, in one pass.
func profileUsers(tx store.Tx, project string) (map[string][]string, error) {
	records, err := store.List[model.Instance](tx, model.InstanceKey(project, ""))
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, r := range records {
		for _, p := range r.Value.Profiles {
			out[p] = append(out[p], r.Value.Name)
		}
	}
	return out, nil
}

// CreateProfile makes a profile.
func (e *Engine) CreateProfile(ctx context.Context, project string, req api.ProfilesPost) error {
	if err := checkProfile(req.Name, &req.ProfilePut); err != nil {
		return err
	}
	p := &model.Profile{Project: project, Name: req.Name, ProfilePut: req.ProfilePut}
	return e.Store.Update(ctx, func(tx store.Tx) error {
		if exists, err := store.Exists(tx, p.Key()); err != nil || exists {
			return errors.Join(err, profileExists(p.Name))
		}
		if err := store.Put(tx, p.Key(), p); err != nil {
			return err
		}
		return emitProfile(ctx, tx, "profile-created", project, p.Name, nil)
	})
}

func profileExists(name string) error {
	return api.Errorf(api.Conflict, "profile %s already exists", name)
}

func checkProfile(name string, put *api.ProfilePut) error {
	if err := model.CheckName("profile", name); err != nil {
		return err
	}
	put.Config, put.Devices = maps.Clone(put.Config), withoutEmpty(put.Devices)
	dropEmpty(put.Config)
	for key := range put.Config {
		if strings.HasPrefix(key, "volatile.") || strings.HasPrefix(key, "image.") {
			return api.Errorf(api.Invalid, "key %s: it belongs to instances and cannot be in a profile", key)
		}
	}
	if err := CheckConfig(put.Config); err != nil {
		return err
	}
	return CheckDevices(put.Devices)
}

func emitProfile(ctx context.Context, tx store.Tx, action, project, name string, details map[string]any) error {
	return store.EmitLifecycle(tx, project, api.EventLifecycleMetadata{
		Action: action, Source: "/1.0/profiles/" + name, Context: details, Requestor: requestorOf(ctx),
	})
}

// UpdateProfile changes a profile and, with it, all instances that use it. If
// one of them cannot have the new configuration, nothing changes.
//
// Errors: those of Update, naming the instance.
func (e *Engine) UpdateProfile(ctx context.Context, project, name, ifMatch string, mutate func(*api.ProfilePut) error) error {
	want, err := parseETag(ifMatch)
	if err != nil {
		return err
	}
	users, release, err := e.lockUsers(ctx, project, name)
	if err != nil {
		return err
	}
	defer release()
	var undo []func() error
	rollback := func(err error) error {
		for _, u := range slices.Backward(undo) {
			err = errors.Join(err, u())
		}
		return err
	}
	var rev store.Rev
	var p *model.Profile
	err = e.Store.View(ctx, func(tx store.Tx) error {
		var err error
		if p, rev, err = store.Edit[model.Profile](tx, model.ProfileKey(project, name)); err != nil {
			return err
		}
		if want != 0 && want != rev {
			return api.Errorf(api.Precondition, "profile %s has changed since it was read", name)
		}
		if err := mutate(&p.ProfilePut); err != nil {
			return err
		}
		if err := checkProfile(name, &p.ProfilePut); err != nil {
			return err
		}
		return e.withProfile(tx, p, func(before, after *loaded) error {
			u, err := e.applyLive(before, after)
			if err != nil {
				return fmt.Errorf("instance %s: %w", before.Name, err)
			}
			undo = append(undo, u)
			return nil
		})
	})
	if err != nil {
		return rollback(err)
	}
	err = e.Store.Update(ctx, func(tx store.Tx) error {
		if err := e.withProfile(tx, p, func(l, _ *loaded) error { return e.stillUser(l, users) }); err != nil {
			return err
		}
		if err := store.Put(tx, p.Key(), p, store.IfRev(rev)); err != nil {
			return err
		}
		return emitProfile(ctx, tx, "profile-updated", project, name, nil)
	})
	if err != nil {
		return rollback(err)
	}
	return nil
}

// stillUser refuses a running instance that has begun to use a profile while the
// profile was about to change: its limits are those of before.
func (e *Engine) stillUser(l *loaded, users []string) error {
	if !slices.Contains(users, l.Name) && e.liveOf(l.Project, l.Name) != nil {
		return api.Errorf(api.Conflict, "instance %s has begun to use the profile meanwhile", l.Name).WithHint("try again")
	}
	return nil
}

// lockUsers takes the locks of all instances that use a profile, and names them.
func (e *Engine) lockUsers(ctx context.Context, project, name string) (names []string, release func(), err error) {
	var keys []string
	err = e.Store.View(ctx, func(tx store.Tx) error {
		if _, _, err := store.Get[model.Profile](tx, model.ProfileKey(project, name)); err != nil {
			return err
		}
		users, err := profileUsers(tx, project)
		names = users[name]
		for _, u := range names {
			keys = append(keys, lockKey(project, u))
		}
		return err
	})
	if err != nil || len(keys) == 0 {
		return nil, func() {}, err
	}
	release, err = e.Locks.Acquire(ctx, owner("", "having profile "+name+" changed"), keys...)
	return names, release, err
}

// withProfile calls fn for each user of a profile, with the instance as it is
// and as it would be with p in the place of the stored profile, after the
// policy has agreed to that.
func (e *Engine) withProfile(tx store.Tx, p *model.Profile, fn func(before, after *loaded) error) error {
	records, err := store.List[model.Instance](tx, model.InstanceKey(p.Project, ""))
	if err != nil {
		return err
	}
	for _, r := range records {
		if !slices.Contains(r.Value.Profiles, p.Name) {
			continue
		}
		before, err := expand(tx, r.Value, r.Rev)
		if err != nil {
			return err
		}
		after := *before
		after.profiles = slices.Clone(before.profiles)
		for i, old := range after.profiles {
			if old.Name == p.Name {
				after.profiles[i] = p
			}
		}
		after.config, after.devices = model.Expand(after.profiles, after.Config, after.Devices)
		if err := e.policy(tx, &after); err != nil {
			return fmt.Errorf("instance %s: %w", before.Name, err)
		}
		if _, root, ok := model.RootDevice(after.devices); ok && root["pool"] != before.Pool {
			return api.Errorf(api.BadState, "instance %s: its root disk would move from pool %q to %q", before.Name, before.Pool, root["pool"])
		}
		if err := fn(before, &after); err != nil {
			return err
		}
	}
	return nil
}

// RenameProfile gives a profile another name, also in the instances that use it.
func (e *Engine) RenameProfile(ctx context.Context, project, from, to string) error {
	if err := model.CheckName("profile", to); err != nil {
		return err
	}
	if from == "default" {
		return api.Errorf(api.Forbidden, "profile default cannot be renamed")
	}
	return e.Store.Update(ctx, func(tx store.Tx) error {
		p, _, err := store.Edit[model.Profile](tx, model.ProfileKey(project, from))
		if err != nil {
			return err
		}
		if exists, err := store.Exists(tx, model.ProfileKey(project, to)); err != nil || exists {
			return errors.Join(err, profileExists(to))
		}
		if err := store.Delete(tx, p.Key()); err != nil {
			return err
		}
		p.Name = to
		if err := store.Put(tx, p.Key(), p); err != nil {
			return err
		}
		if err := renameInUsers(tx, project, from, to); err != nil {
			return err
		}
		return emitProfile(ctx, tx, "profile-renamed", project, to, map[string]any{"old_name": from})
	})
}

func renameInUsers(tx store.Tx, project, from, to string) error {
	users, err := profileUsers(tx, project)
	if err != nil {
		return err
	}
	for _, u := range users[from] {
		inst, _, err := store.Edit[model.Instance](tx, model.InstanceKey(project, u))
		if err != nil {
			return err
		}
		for i, name := range inst.Profiles {
			if name == from {
				inst.Profiles[i] = to
			}
		}
		if err := store.Put(tx, inst.Key(), inst); err != nil {
			return err
		}
	}
	return nil
}

// DeleteProfile removes a profile that no instance uses.
func (e *Engine) DeleteProfile(ctx context.Context, project, name string) error {
	if name == "default" {
		return api.Errorf(api.Forbidden, "profile default cannot be deleted")
	}
	return e.Store.Update(ctx, func(tx store.Tx) error {
		if _, _, err := store.Get[model.Profile](tx, model.ProfileKey(project, name)); err != nil {
			return err
		}
		users, err := profileUsers(tx, project)
		if err != nil {
			return err
		}
		if u := users[name]; len(u) > 0 {
			return api.Errorf(api.InUse, "profile %s is used by %s", name, strings.Join(u, ", ")).WithHint("croft profile remove %s %s", u[0], name)
		}
		if err := store.Delete(tx, model.ProfileKey(project, name)); err != nil {
			return err
		}
		return emitProfile(ctx, tx, "profile-deleted", project, name, nil)
	})
}
