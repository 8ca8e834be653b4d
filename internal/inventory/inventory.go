// Package inventory keeps what instances live on: storage pools, networks, and
// the daemon's own configuration. Records are in the store; package storage and
// package network do the work on the host.
//
// An object is Creating in the store before anything of it is on the host, Ready
// when all is, and Deleting before anything is removed, so that [Inventory.Start]
// can undo or finish what a crash interrupted. What cannot be brought up at start
// is a warning and a status, never a daemon that does not start.
package inventory

import (
	"context"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

// Networks makes networks on the host; *network.Manager is one.
type Networks interface {
	Fill(ctx context.Context, cfg map[string]string) (map[string]string, error)
	Start(ctx context.Context, c network.Config) error
	Stop(ctx context.Context, name string) error
	Down(ctx context.Context, name string) error
	SetLeases(ctx context.Context, network string, leases []network.StaticLease) error
	SetLease(ctx context.Context, network string, l network.StaticLease) error
	DeleteLease(ctx context.Context, network string, l network.StaticLease) error
	Leases(ctx context.Context, network string) ([]network.Lease, error)
	State(ctx context.Context, name string) (network.Interface, error)
	HostInterfaces(ctx context.Context) ([]network.Interface, error)
}

// Deps of [New]; all but Log are required.
type Deps struct {
	Store    store.Store
	Locks    *operation.Locks
	Pools    *storage.Pools
	Networks Networks

	Log *slog.Logger
}

// Inventory is safe for concurrent use.
type Inventory struct {
	deps Deps

	mu   sync.Mutex
	down map[string]error // why a managed network could not be started, by name
}

// New makes an inventory. [Inventory.Start] brings up what the store knows.
func New(d Deps) *Inventory {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Inventory{deps: d, down: map[string]error{}}
}

// The status of an object as LXD words it.
const (
	statusPending     = "Pending"
	statusCreated     = "Created"
	statusUnavailable = "Unavailable"
)

func location() []string { return []string{"none"} }

func etagOf(rev store.Rev) string { return strconv.FormatUint(uint64(rev), 10) }

func checkETag(ifMatch string, rev store.Rev, what string) error {
	if ifMatch == "" || ifMatch == etagOf(rev) {
		return nil
	}
	return api.Errorf(api.Precondition, "%s has changed: If-Match is %q, its ETag is %q", what, ifMatch, etagOf(rev)).
		WithHint("read it again and repeat the change")
}

func (i *Inventory) lock(ctx context.Context, reason string, keys ...string) (release func(), err error) {
	return i.deps.Locks.Acquire(ctx, operation.Owner{Reason: reason}, keys...)
}

// emit adds a lifecycle event. Objects without a project belong to the default
// one here, as in LXD.
func emit(tx store.Tx, who *api.EventLifecycleRequestor, action, source string, more map[string]any) error {
	return store.EmitLifecycle(tx, model.DefaultProject, api.EventLifecycleMetadata{
		Action: action, Source: source, Context: more, Requestor: who,
	})
}

// compact drops the keys that a client has emptied to unset them.
func compact(cfg map[string]string) map[string]string {
	out := make(map[string]string, len(cfg))
	for k, v := range cfg {
		if v != "" {
			out[k] = v
		}
	}
	return out
}

// users are the URL paths of what uses each pool and each network.
type users struct{ pools, networks map[string][]string }

// findUsers goes through all instances and profiles once.
func findUsers(tx store.Tx) (users, error) {
	u := users{pools: map[string][]string{}, networks: map[string][]string{}}
	profiles, err := store.List[model.Profile](tx, model.ProfilePrefix)
	if err != nil {
		return u, err
	}
	byKey := make(map[string]*model.Profile, len(profiles))
	for _, r := range profiles {
		byKey[r.Key] = r.Value
		u.add(objectPath("profiles", r.Value.Project, r.Value.Name), r.Value.Devices, "")
	}
	instances, err := store.List[model.Instance](tx, model.InstancePrefix)
	if err != nil {
		return u, err
	}
	for _, r := range instances {
		inst := r.Value
		u.add(objectPath("instances", inst.Project, inst.Name), expandedDevices(inst, byKey), inst.Pool)
	}
	return u, nil
}

func expandedDevices(inst *model.Instance, profiles map[string]*model.Profile) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, name := range inst.Profiles {
		if p := profiles[model.ProfileKey(inst.Project, name)]; p != nil {
			maps.Copy(out, p.Devices)
		}
	}
	maps.Copy(out, inst.Devices)
	return out
}

// add notes what a set of devices refers to. root is the pool that an instance's
// root volume is in, whatever its profiles say by now; it is empty for profiles.
func (u users) add(path string, devices map[string]map[string]string, root string) {
	pools, networks := map[string]bool{}, map[string]bool{}
	if root != "" {
		pools[root] = true
	}
	for _, d := range devices {
		switch {
		case d["type"] == "disk" && d["pool"] != "" && (d["path"] != "/" || root == ""):
			pools[d["pool"]] = true
		case d["type"] == "nic" && d["network"] != "":
			networks[d["network"]] = true
		case d["type"] == "nic" && d["parent"] != "":
			networks[d["parent"]] = true
		}
	}
	for p := range pools {
		u.pools[p] = append(u.pools[p], path)
	}
	for n := range networks {
		u.networks[n] = append(u.networks[n], path)
	}
}

func objectPath(collection, project, name string) string {
	path := "/1.0/" + collection + "/" + url.PathEscape(name)
	if project != model.DefaultProject {
		path += "?project=" + url.QueryEscape(project)
	}
	return path
}

// sorted copies paths into the order that clients see; nil stays nil, as LXD
// shows an unused object.
func sorted(paths []string) []string {
	out := slices.Clone(paths)
	slices.Sort(out)
	return out
}
