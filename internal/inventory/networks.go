package inventory

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/store"
)

func networkPath(name string) string { return "/1.0/networks/" + url.PathEscape(name) }

func networkConfig(rec *model.Network) network.Config {
	return network.Config{Name: rec.Name, Description: rec.Description, Config: rec.Config}
}

// Network gives the record of a managed network for who connects to it. It is
// shared: it must not be modified. Errors: NotFound; Unavailable when it is not
// up.
func (i *Inventory) Network(ctx context.Context, name string) (rec *model.Network, err error) {
	err = i.deps.Store.View(ctx, func(tx store.Tx) error {
		rec, _, err = getNetwork(tx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	if rec.Phase != model.Ready {
		return nil, api.Errorf(api.Unavailable, "network %s is not available: it is in phase %s", name, rec.Phase)
	}
	if why := i.downReason(name); why != nil {
		return nil, api.Errorf(api.Unavailable, "network %s could not be started: %w", name, why)
	}
	return rec, nil
}

// SetLeases makes leases the complete set of a network's NICs.
func (i *Inventory) SetLeases(ctx context.Context, name string, leases []network.StaticLease) error {
	return i.deps.Networks.SetLeases(ctx, name, leases)
}

// SetLease adds or replaces what a network knows of one NIC.
func (i *Inventory) SetLease(ctx context.Context, name string, l network.StaticLease) error {
	return i.deps.Networks.SetLease(ctx, name, l)
}

// DeleteLease makes a network forget one NIC.
func (i *Inventory) DeleteLease(ctx context.Context, name string, l network.StaticLease) error {
	return i.deps.Networks.DeleteLease(ctx, name, l)
}

func getNetwork(tx store.Tx, name string) (*model.Network, store.Rev, error) {
	rec, rev, err := store.Get[model.Network](tx, model.NetworkKey(name))
	if errors.Is(err, api.NotFound) {
		err = api.Errorf(api.NotFound, "network %s not found", name)
	}
	return rec, rev, err
}

func (i *Inventory) downReason(name string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.down[name]
}

// setDown notes why a network is not up; nil means that it is.
func (i *Inventory) setDown(name string, why error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if why == nil {
		delete(i.down, name)
		return
	}
	i.down[name] = why
}

// networkToAPI shows a record; what it shares with it must not be changed.
func (i *Inventory) networkToAPI(rec *model.Network, usedBy []string) api.Network {
	status := statusCreated
	switch {
	case rec.Phase == model.Creating:
		status = statusPending
	case i.downReason(rec.Name) != nil:
		status = statusUnavailable
	}
	return api.Network{
		NetworkPut: rec.NetworkPut, Name: rec.Name, Type: rec.Type, UsedBy: sorted(usedBy),
		Managed: true, Status: status, Locations: location(),
	}
}

func hostToAPI(h network.Interface, usedBy []string) api.Network {
	used := sorted(usedBy)
	if used == nil {
		used = []string{}
	}
	return api.Network{
		NetworkPut: api.NetworkPut{Config: map[string]string{}}, Name: h.Name, Type: h.HostType(), UsedBy: used,
	}
}

// ListNetworks gives the managed networks and the other interfaces of the host,
// by name. The host's ends of instances' NICs are left out.
func (i *Inventory) ListNetworks(ctx context.Context) ([]api.Network, error) {
	host, err := i.deps.Networks.HostInterfaces(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Network{}
	err = i.deps.Store.View(ctx, func(tx store.Tx) error {
		records, err := store.List[model.Network](tx, model.NetworkPrefix)
		if err != nil {
			return err
		}
		u, err := findUsers(tx)
		if err != nil {
			return err
		}
		out = make([]api.Network, 0, len(records)+len(host))
		managed := make(map[string]bool, len(records))
		for _, r := range records {
			managed[r.Value.Name] = true
			out = append(out, i.networkToAPI(r.Value, u.networks[r.Value.Name]))
		}
		for _, h := range host {
			if !managed[h.Name] && h.Kind != "veth" {
				out = append(out, hostToAPI(h, u.networks[h.Name]))
			}
		}
		return nil
	})
	slices.SortFunc(out, func(a, b api.Network) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// GetNetwork gives a managed network or an interface of the host. Errors:
// NotFound.
func (i *Inventory) GetNetwork(ctx context.Context, name string) (n api.Network, etag string, err error) {
	var usedBy []string
	err = i.deps.Store.View(ctx, func(tx store.Tx) error {
		u, err := findUsers(tx)
		if err != nil {
			return err
		}
		usedBy = u.networks[name]
		rec, rev, err := getNetwork(tx, name)
		if err != nil {
			return err
		}
		n, etag = i.networkToAPI(rec, usedBy), etagOf(rev)
		return nil
	})
	if !errors.Is(err, api.NotFound) {
		return n, etag, err
	}
	host, hostErr := i.deps.Networks.State(ctx, name)
	if hostErr != nil {
		return n, "", err
	}
	return hostToAPI(host, usedBy), etagOf(0), nil
}

// CreateNetwork makes a bridge. Addresses that are not given are chosen. Errors:
// Invalid, naming the field; Conflict when a network or an interface has that
// name; Unsupported.
func (i *Inventory) CreateNetwork(ctx context.Context, req api.NetworksPost) error {
	if req.Name == "" {
		return api.Errorf(api.Invalid, "network field name is empty")
	}
	if err := network.ValidateName(req.Name); err != nil {
		return err
	}
	if req.Type != "" && req.Type != "bridge" {
		return api.Errorf(api.Invalid, "network %s: type %q is not supported by this version; allowed is bridge", req.Name, req.Type)
	}
	release, err := i.lock(ctx, "being created", model.NetworkKey(req.Name))
	if err != nil {
		return err
	}
	defer release()
	if err := i.nameFree(ctx, req.Name); err != nil {
		return err
	}
	cfg, err := i.deps.Networks.Fill(ctx, compact(req.Config))
	if err != nil {
		return err
	}
	rec := &model.Network{
		Name: req.Name, Type: "bridge", Phase: model.Creating,
		NetworkPut: api.NetworkPut{Config: cfg, Description: req.Description},
	}
	err = i.deps.Store.Update(ctx, func(tx store.Tx) error { return store.Put(tx, rec.Key(), rec, store.IfAbsent()) })
	if err != nil {
		return err
	}
	return i.makeNetwork(ctx, rec)
}

// nameFree refuses the name of a network or of an interface of the host.
func (i *Inventory) nameFree(ctx context.Context, name string) error {
	exists := false
	err := i.deps.Store.View(ctx, func(tx store.Tx) (err error) {
		exists, err = store.Exists(tx, model.NetworkKey(name))
		return err
	})
	if err != nil {
		return err
	}
	if exists {
		return api.Errorf(api.Conflict, "network %s already exists", name)
	}
	if _, err := i.deps.Networks.State(ctx, name); err == nil {
		return api.Errorf(api.Conflict, "network %s: the host has an interface of that name", name)
	}
	return nil
}

// makeNetwork does the work on the host and finishes the record, or undoes both.
func (i *Inventory) makeNetwork(ctx context.Context, rec *model.Network) error {
	err := i.deps.Networks.Start(ctx, networkConfig(rec))
	if err == nil {
		rec.Phase = model.Ready
		err = i.deps.Store.Update(ctx, func(tx store.Tx) error {
			if err := store.Put(tx, rec.Key(), rec); err != nil {
				return err
			}
			return emit(tx, auth.From(ctx).Requestor(), "network-created", networkPath(rec.Name), nil)
		})
	}
	if err == nil {
		return nil
	}
	undo := context.WithoutCancel(ctx)
	stopped := i.deps.Networks.Stop(undo, rec.Name)
	dropped := i.deps.Store.Update(undo, func(tx store.Tx) error { return store.Delete(tx, rec.Key()) })
	if undone := errors.Join(stopped, dropped); undone != nil {
		i.deps.Log.Error("network that failed could not be undone", "network", rec.Name, "err", undone)
	}
	return err
}

// UpdateNetwork changes a network and applies that at once; when the host does
// not take it, everything stays as it was. mutate gets a copy and may run more
// than once. Errors: NotFound, Precondition, Invalid.
func (i *Inventory) UpdateNetwork(ctx context.Context, name, ifMatch string, mutate func(*api.NetworkPut) error) error {
	release, err := i.lock(ctx, "being changed", model.NetworkKey(name))
	if err != nil {
		return err
	}
	defer release()
	var old, rec *model.Network
	err = i.deps.Store.View(ctx, func(tx store.Tx) error {
		var rev store.Rev
		if old, rev, err = getNetwork(tx, name); err != nil {
			return err
		}
		if err := checkETag(ifMatch, rev, "network "+name); err != nil {
			return err
		}
		rec, _, err = store.Edit[model.Network](tx, old.Key())
		return err
	})
	if err != nil {
		return err
	}
	if err := mutate(&rec.NetworkPut); err != nil {
		return err
	}
	if rec.Config, err = i.fillAuto(ctx, compact(rec.Config)); err != nil {
		return err
	}
	if err := i.deps.Networks.Start(ctx, networkConfig(rec)); err != nil {
		i.restart(ctx, old)
		return err
	}
	i.setDown(name, nil)
	err = i.deps.Store.Update(ctx, func(tx store.Tx) error {
		if err := store.Put(tx, rec.Key(), rec); err != nil {
			return err
		}
		return emit(tx, auth.From(ctx).Requestor(), "network-updated", networkPath(name), nil)
	})
	if err != nil {
		i.restart(ctx, old)
	}
	return err
}

// fillAuto replaces addresses that are "auto". One that is absent stays so: in a
// change it means that the network is to have none.
func (i *Inventory) fillAuto(ctx context.Context, cfg map[string]string) (map[string]string, error) {
	if err := network.ValidateConfig(cfg); err != nil {
		return nil, err
	}
	absent := []string{}
	for _, key := range []string{"ipv4.address", "ipv6.address"} {
		if cfg[key] == "" {
			cfg[key] = "none"
			absent = append(absent, key)
		}
	}
	cfg, err := i.deps.Networks.Fill(ctx, cfg)
	for _, key := range absent {
		delete(cfg, key)
	}
	return cfg, err
}

// restart brings a network back to what it was.
func (i *Inventory) restart(ctx context.Context, rec *model.Network) {
	err := i.deps.Networks.Start(context.WithoutCancel(ctx), networkConfig(rec))
	i.setDown(rec.Name, err)
	if err != nil {
		i.deps.Log.Error("network could not be brought back after a failed change", "network", rec.Name, "err", err)
	}
}

// RenameNetwork gives an unused network, and its interface, another name.
// Errors: NotFound, Conflict, InUse, Invalid.
func (i *Inventory) RenameNetwork(ctx context.Context, from, to string) error {
	if err := network.ValidateName(to); err != nil {
		return err
	}
	release, err := i.lock(ctx, "being renamed", model.NetworkKey(from), model.NetworkKey(to))
	if err != nil {
		return err
	}
	defer release()
	if err := i.nameFree(ctx, to); err != nil {
		return err
	}
	old, err := i.unusedNetwork(ctx, from)
	if err != nil {
		return err
	}
	rec := *old
	rec.Name = to
	// The interface goes first, so that a crash leaves either name's record and
	// no interface, which the next start makes.
	if err := i.deps.Networks.Stop(ctx, from); err != nil {
		i.restart(ctx, old)
		return err
	}
	err = i.deps.Store.Update(ctx, func(tx store.Tx) error {
		if err := errors.Join(store.Delete(tx, old.Key()), store.Put(tx, rec.Key(), &rec)); err != nil {
			return err
		}
		return emit(tx, auth.From(ctx).Requestor(), "network-renamed", networkPath(to), map[string]any{"old_name": from})
	})
	if err != nil {
		i.restart(ctx, old)
		return err
	}
	i.setDown(from, nil)
	err = i.deps.Networks.Start(ctx, networkConfig(&rec))
	i.setDown(to, err)
	return err
}

// unusedNetwork reads a network and refuses one in use.
func (i *Inventory) unusedNetwork(ctx context.Context, name string) (rec *model.Network, err error) {
	err = i.deps.Store.View(ctx, func(tx store.Tx) error {
		if rec, _, err = getNetwork(tx, name); err != nil {
			return err
		}
		return networkUnused(tx, name)
	})
	return rec, err
}

func networkUnused(tx store.Tx, name string) error {
	u, err := findUsers(tx)
	if err != nil {
		return err
	}
	if used := u.networks[name]; len(used) > 0 {
		return inUse("network "+name, used)
	}
	return nil
}

// DeleteNetwork removes a network that nothing uses. Errors: NotFound; InUse,
// naming the users.
func (i *Inventory) DeleteNetwork(ctx context.Context, name string) error {
	release, err := i.lock(ctx, "being deleted", model.NetworkKey(name))
	if err != nil {
		return err
	}
	defer release()
	err = i.deps.Store.Update(ctx, func(tx store.Tx) error {
		if _, _, err := getNetwork(tx, name); err != nil {
			return err
		}
		if err := networkUnused(tx, name); err != nil {
			return err
		}
		rec, _, err := store.Edit[model.Network](tx, model.NetworkKey(name))
		if err != nil {
			return err
		}
		if rec.Phase, err = rec.Phase.Next(model.Delete); err != nil {
			return err
		}
		return store.Put(tx, rec.Key(), rec)
	})
	if err != nil {
		return err
	}
	return i.removeNetwork(ctx, name)
}

// removeNetwork removes from the host and then forgets a network in phase
// Deleting.
func (i *Inventory) removeNetwork(ctx context.Context, name string) error {
	if err := i.deps.Networks.Stop(ctx, name); err != nil {
		return err
	}
	i.setDown(name, nil)
	return i.deps.Store.Update(ctx, func(tx store.Tx) error {
		if err := store.Delete(tx, model.NetworkKey(name)); err != nil {
			return err
		}
		return emit(tx, auth.From(ctx).Requestor(), "network-deleted", networkPath(name), nil)
	})
}
