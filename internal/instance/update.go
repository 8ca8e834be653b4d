package instance

import (
	"context"
	"errors"
	"maps"
	"strings"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/store"
)

// Replace is Update with a whole new configuration, as an operation that has
// ended when the reply goes out: what is refused is refused at once.
func (e *Engine) Replace(ctx context.Context, project, name, ifMatch string, put api.InstancePut) (*operation.Op, error) {
	if put.Restore != "" {
		return nil, api.Errorf(api.Unsupported, "restore: snapshots are not supported by this version")
	}
	err := e.Update(ctx, project, name, ifMatch, func(p *api.InstancePut) error {
		arch := p.Architecture
		*p = put
		if p.Architecture == "" {
			p.Architecture = arch
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return e.Ops.Start(operation.Spec{
		Project: project, Description: "Updating instance", Resources: resources(name), Requestor: requestorOf(ctx),
		Run: func(context.Context, *operation.Op) error { return nil },
	})
}

// Update changes the configuration of an instance. mutate gets it as the API
// shows it, volatile keys included, and may be called again. Live limits of a
// running container are changed with it; if the kernel refuses one, nothing is.
//
// Errors: Precondition if ifMatch is not the current ETag; those of policy;
// BadState for a change that a running instance cannot take.
func (e *Engine) Update(ctx context.Context, project, name, ifMatch string, mutate func(*api.InstancePut) error) error {
	want, err := parseETag(ifMatch)
	if err != nil {
		return err
	}
	if _, err := e.load(ctx, project, name, false); err != nil {
		return err
	}
	release, err := e.Locks.Acquire(ctx, owner("", "being updated"), lockKey(project, name))
	if err != nil {
		return err
	}
	defer release()
	before, err := e.load(ctx, project, name, false)
	if err != nil {
		return err
	}
	if want != 0 && want != before.rev {
		return api.Errorf(api.Precondition, "instance %s has changed since it was read", name)
	}
	after, err := e.updated(ctx, before, mutate)
	if err != nil {
		return err
	}
	undo, err := e.applyLive(before, after)
	if err != nil {
		return err
	}
	err = e.Store.Update(ctx, func(tx store.Tx) error { return e.putUpdate(ctx, tx, before.rev, after) })
	if err != nil {
		return errors.Join(err, undo())
	}
	return nil
}

// updated is the instance as mutate wants it, checked.
func (e *Engine) updated(ctx context.Context, before *loaded, mutate func(*api.InstancePut) error) (*loaded, error) {
	put := before.InstancePut
	put.Config = merge(before.Config, before.local.Volatile)
	put.Devices = maps.Clone(before.Devices)
	put.Profiles = append([]string{}, before.Profiles...)
	if err := mutate(&put); err != nil {
		return nil, err
	}
	put.Devices = withoutEmpty(put.Devices)
	if put.Architecture != before.Architecture {
		return nil, api.Errorf(api.Invalid, "architecture %q: it is the image's and cannot be changed; it is %s", put.Architecture, before.Architecture)
	}
	if put.Profiles == nil {
		put.Profiles = []string{}
	}
	rec := *before.Instance
	rec.InstancePut = put
	user, volatile := model.SplitVolatile(put.Config)
	if err := checkVolatile(volatile); err != nil {
		return nil, err
	}
	dropEmpty(user)
	rec.Config = user
	var after *loaded
	err := e.Store.View(ctx, func(tx store.Tx) (err error) {
		if after, err = expand(tx, &rec, before.rev); err != nil {
			return err
		}
		return e.policy(tx, after)
	})
	if err != nil {
		return nil, err
	}
	if _, root, ok := model.RootDevice(after.devices); ok && root["pool"] != rec.Pool {
		return nil, api.Errorf(api.BadState, "root disk: pool %q is not the one the instance is in, %q; moving between pools is not supported by this version", root["pool"], rec.Pool)
	}
	after.local = keptVolatile(before.local, volatile, after.devices)
	return after, nil
}

// keptVolatile merges volatile keys that a client sent into those the daemon
// has. Keys on which the daemon relies stay what they are.
func keptVolatile(local *model.Local, sent map[string]string, devices map[string]map[string]string) *model.Local {
	out := local.Clone()
	for key, value := range sent {
		if !protectedVolatile(key) {
			out.Volatile[key] = value
		}
	}
	for key := range local.Volatile {
		if _, ok := sent[key]; !ok && strings.HasSuffix(key, ".hwaddr") {
			delete(out.Volatile, key) // unset by the user: a new one is made
		}
	}
	addMACs(out.Volatile, devices)
	return out
}

func protectedVolatile(key string) bool {
	for _, prefix := range []string{"volatile.idmap.", "volatile.last_state.", "volatile.uuid", "volatile.base_image", "volatile.apply_template"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return strings.HasSuffix(key, ".host_name")
}

// withoutEmpty copies devices and leaves out options without a value, which
// means the same as not giving them.
func withoutEmpty(devices map[string]map[string]string) map[string]map[string]string {
	out := make(map[string]map[string]string, len(devices))
	for name, d := range devices {
		out[name] = maps.Clone(d)
		dropEmpty(out[name])
	}
	return out
}

func dropEmpty(config map[string]string) {
	maps.DeleteFunc(config, func(_, v string) bool { return v == "" })
}

func (e *Engine) putUpdate(ctx context.Context, tx store.Tx, rev store.Rev, after *loaded) error {
	// Profiles may have changed since it was checked.
	now, err := expand(tx, after.Instance, rev)
	if err != nil {
		return err
	}
	if err := e.policy(tx, now); err != nil {
		return err
	}
	if err := store.Put(tx, after.Key(), after.Instance, store.IfRev(rev)); err != nil {
		return err
	}
	key := model.LocalKey(after.Project, after.Name)
	local, _, err := store.Edit[model.Local](tx, key)
	if err != nil {
		return err
	}
	local.Volatile = after.local.Volatile
	if err := store.Put(tx, key, local); err != nil {
		return err
	}
	return emit(ctx, tx, "instance-updated", after.Project, after.Name, nil)
}

// applyLive brings a running container from one configuration to another. The
// returned function takes it back.
func (e *Engine) applyLive(before, after *loaded) (undo func() error, err error) {
	l := e.liveOf(before.Project, before.Name)
	if l == nil {
		return func() error { return nil }, nil
	}
	if err := deviceChanges(before, after); err != nil {
		return nil, err
	}
	old, err := e.limits(before.config)
	if err != nil {
		return nil, err
	}
	keepCPUs(old, l)
	now, err := e.limitsLike(old, before.config, after.config)
	if err != nil {
		return nil, err
	}
	if err := e.applyLimits(l, old, now); err != nil {
		return nil, err
	}
	return func() error { return e.applyLimits(l, now, old) }, nil
}

// keepCPUs makes limits name the processors that a container is bound to. Chosen
// afresh they could be others, and a change to just those would be left out.
func keepCPUs(limits []lxc.Limit, l *live) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range limits {
		if limits[i].File == cpusetFile && l.cpus != nil {
			limits[i].Value = cpuList(l.cpus)
		}
	}
}

// limitsLike is limits of a changed configuration; where limits.cpu has not
// changed the container keeps the processors it has.
func (e *Engine) limitsLike(old []lxc.Limit, before, after map[string]string) ([]lxc.Limit, error) {
	now, err := e.limits(after)
	if err != nil || before["limits.cpu"] != after["limits.cpu"] {
		return now, err
	}
	for i := range now {
		for _, o := range old {
			if now[i].File == o.File && o.File == cpusetFile {
				now[i] = o
			}
		}
	}
	return now, nil
}

// deviceChanges refuses changes of devices that would only take effect at the
// next start: this version does not plug devices into running containers.
func deviceChanges(before, after *loaded) error {
	for _, pair := range [][2]map[string]map[string]string{{before.devices, after.devices}, {after.devices, before.devices}} {
		for name, d := range pair[0] {
			if !maps.Equal(d, pair[1][name]) {
				return api.Errorf(api.BadState, "device %s: instance %s is running, and this version changes devices of stopped instances only", name, before.Name).
					WithHint("stop it first: croft stop %s", before.Name)
			}
		}
	}
	return nil
}
