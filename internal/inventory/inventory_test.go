package inventory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
	"github.com/croft-project/croft/internal/store/bolt"
)

// plain is a storage driver that keeps directories and works without root. Only
// what package inventory needs does anything.
type plain struct{ *storage.Tree }

func (plain) Info() storage.Info                                   { return storage.Info{Name: "plain", Version: "1"} }
func (plain) Check(context.Context) error                          { return nil }
func (plain) EnsureImage(context.Context, storage.Image) error     { return nil }
func (p plain) DeleteImage(_ context.Context, f string) error      { return p.RemoveImage(f) }
func (plain) Copy(context.Context, storage.Ref, storage.Ref) error { return nil }
func (plain) Usage(context.Context, storage.Ref) (int64, error)    { return 0, nil }
func (plain) Root(context.Context, storage.Ref) (storage.Root, error) {
	return storage.Root{}, nil
}
func (p plain) Clone(ctx context.Context, ref storage.Ref, _ storage.Image) error {
	return p.CreateEmpty(ctx, ref)
}
func (p plain) CreateEmpty(ctx context.Context, ref storage.Ref) error {
	return p.AddVolume(ctx, ref, func(string) error { return nil })
}

// broken is a driver that does not work here.
type broken struct{ plain }

func (broken) Check(context.Context) error {
	return api.Errorf(api.Unsupported, "storage driver broken: does not work here")
}

// fakeNetworks stands for the host.
type fakeNetworks struct {
	Networks
	mu    sync.Mutex
	up    map[string]map[string]string // started networks and their configuration
	fail  error                        // of the next Start
	extra []string                     // other interfaces of the host
}

func (f *fakeNetworks) Fill(_ context.Context, cfg map[string]string) (map[string]string, error) {
	return network.FillConfig(cfg, nil)
}

func (f *fakeNetworks) Start(_ context.Context, c network.Config) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail; err != nil {
		f.fail = nil
		return err
	}
	f.up[c.Name] = maps.Clone(c.Config)
	return nil
}

func (f *fakeNetworks) Stop(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.up, name)
	return nil
}

func (f *fakeNetworks) Down(ctx context.Context, name string) error { return f.Stop(ctx, name) }

func (f *fakeNetworks) Leases(context.Context, string) ([]network.Lease, error) {
	return []network.Lease{{Hostname: "c1", MAC: "00:16:3e:00:00:01", Address: netip.MustParseAddr("10.0.0.2"), Type: "static"}}, nil
}

func (f *fakeNetworks) HostInterfaces(context.Context) ([]network.Interface, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []network.Interface
	for _, name := range append(slices.Sorted(maps.Keys(f.up)), f.extra...) {
		i := network.Interface{NetLink: linux.NetLink{Name: name, MAC: "00:16:3e:00:00:09", MTU: 1500, Flags: 1}}
		if strings.HasPrefix(name, "veth") {
			i.Kind = "veth"
		}
		out = append(out, i)
	}
	return out, nil
}

func (f *fakeNetworks) State(ctx context.Context, name string) (network.Interface, error) {
	all, _ := f.HostInterfaces(ctx)
	for _, i := range all {
		if i.Name == name {
			return i, nil
		}
	}
	return network.Interface{}, api.Errorf(api.NotFound, "network interface %s does not exist", name)
}

type world struct {
	*Inventory
	t    *testing.T
	db   store.Store
	dir  string
	nets *fakeNetworks
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), nets: &fakeNetworks{up: map[string]map[string]string{}, extra: []string{"eth0", "vethabc"}}}
	db, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(w.dir, "db", "croft.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w.db = db
	w.restart()
	return w
}

// restart is the daemon's next life on the same records and directories.
func (w *world) restart() {
	w.t.Helper()
	pools := storage.NewPools(storage.Options{
		Dir: filepath.Join(w.dir, "storage-pools"), StageDir: w.dir,
		Drivers: map[string]storage.Constructor{
			"plain":  func(c storage.Config) storage.Driver { return plain{storage.NewTree(c)} },
			"broken": func(c storage.Config) storage.Driver { return broken{plain{storage.NewTree(c)}} },
		},
	})
	w.t.Cleanup(func() { _ = pools.Close(context.Background()) })
	w.Inventory = New(Deps{Store: w.db, Locks: operation.NewLocks(nil), Pools: pools, Networks: w.nets})
	if err := w.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func put[T any](w *world, key string, v *T) {
	w.t.Helper()
	if err := w.db.Update(w.t.Context(), func(tx store.Tx) error { return store.Put(tx, key, v) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exists(key string) (ok bool) {
	w.t.Helper()
	err := w.db.View(w.t.Context(), func(tx store.Tx) (err error) {
		ok, err = store.Exists(tx, key)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return ok
}

func (w *world) createPool(name, driver string, cfg map[string]string) error {
	req := api.StoragePoolsPost{Name: name, Driver: driver}
	req.Config = cfg
	return w.CreatePool(w.t.Context(), req)
}

func (w *world) createNetwork(name string, cfg map[string]string) error {
	req := api.NetworksPost{Name: name}
	req.Config = cfg
	return w.CreateNetwork(w.t.Context(), req)
}

func wantKind(t *testing.T, what string, err error, kind api.Kind) {
	t.Helper()
	if api.KindOf(err) != kind || err == nil {
		t.Errorf("%s: got %v (kind %s), want kind %s", what, err, api.KindOf(err), kind)
	}
}

// addUsers makes a profile and an instance that live in pool p1 and on br1.
func (w *world) addUsers() {
	prof := &model.Profile{Project: "default", Name: "web", ProfilePut: api.ProfilePut{Devices: map[string]map[string]string{
		"eth0": {"type": "nic", "network": "br1"},
		"root": {"type": "disk", "path": "/", "pool": "p1"},
	}}}
	put(w, prof.Key(), prof)
	inst := &model.Instance{Project: "default", Name: "c1", Pool: "p1", InstancePut: api.InstancePut{Profiles: []string{"web"}}}
	put(w, inst.Key(), inst)
}

func TestPoolLife(t *testing.T) {
	w := newWorld(t)
	if err := w.createPool("p1", "plain", map[string]string{"user.a": "1", "user.b": ""}); err != nil {
		t.Fatal(err)
	}
	p, etag, err := w.GetPool(t.Context(), "p1")
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(w.dir, "storage-pools", "p1")
	if p.Status != "Created" || p.UsedBy != nil || !slices.Equal(p.Locations, []string{"none"}) ||
		!maps.Equal(p.Config, map[string]string{"source": source, "user.a": "1"}) {
		t.Errorf("pool: got %+v", p)
	}
	set := func(key, value string) func(*api.StoragePoolPut) error {
		return func(p *api.StoragePoolPut) error { p.Config[key] = value; return nil }
	}
	if err := w.UpdatePool(t.Context(), "p1", etag, set("user.a", "2")); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "stale tag", w.UpdatePool(t.Context(), "p1", etag, set("user.a", "3")), api.Precondition)
	wantKind(t, "unknown key", w.UpdatePool(t.Context(), "p1", "", set("bogus", "1")), api.Invalid)
	wantKind(t, "another source", w.UpdatePool(t.Context(), "p1", "", set("source", "/elsewhere")), api.Invalid)
	wantKind(t, "unknown pool", w.UpdatePool(t.Context(), "p9", "", set("user.a", "1")), api.NotFound)
	err = w.UpdatePool(t.Context(), "p1", "", func(p *api.StoragePoolPut) error { *p = api.StoragePoolPut{Description: "d"}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if p, _, _ := w.GetPool(t.Context(), "p1"); p.Description != "d" || !maps.Equal(p.Config, map[string]string{"source": source}) {
		t.Errorf("after a replacement: got %+v", p)
	}
	w.restart()
	pool, err := w.Pool(t.Context(), "p1")
	if err != nil {
		t.Fatal(err)
	}
	if res, err := w.PoolResources(t.Context(), "p1"); err != nil || res.Space.Total == 0 {
		t.Errorf("resources: got %+v, %v", res, err)
	}
	if pool.Dir != source {
		t.Errorf("directory: got %s, want %s", pool.Dir, source)
	}
	if err := w.DeletePool(t.Context(), "p1"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "delete again", w.DeletePool(t.Context(), "p1"), api.NotFound)
	if _, err := os.Lstat(source); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory of the deleted pool: %v", err)
	}
	if err := w.createPool("p1", "plain", nil); err != nil {
		t.Errorf("the name again: %v", err)
	}
}

func TestPoolRefusals(t *testing.T) {
	w := newWorld(t)
	if err := w.createPool("p1", "plain", nil); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		name, driver string
		cfg          map[string]string
		kind         api.Kind
	}{
		"no name":      {"", "plain", nil, api.Invalid},
		"slash":        {"bad/name", "plain", nil, api.Invalid},
		"no driver":    {"p2", "", nil, api.Invalid},
		"driver":       {"p2", "nonsense", nil, api.Invalid},
		"key":          {"p2", "plain", map[string]string{"bogus": "1"}, api.Invalid},
		"source":       {"p2", "plain", map[string]string{"source": "/nosuch/dir"}, api.Invalid},
		"taken":        {"p1", "plain", nil, api.Conflict},
		"unfit driver": {"p2", "broken", nil, api.Unsupported},
	} {
		wantKind(t, what, w.createPool(c.name, c.driver, c.cfg), c.kind)
	}
	pools, err := w.ListPools(t.Context())
	if err != nil || len(pools) != 1 {
		t.Errorf("pools: got %v, %v", pools, err)
	}
	entries, _ := os.ReadDir(filepath.Join(w.dir, "storage-pools"))
	if len(entries) != 1 {
		t.Errorf("directories: got %v", entries)
	}
}

func TestUsedBy(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"p1", "p2"} {
		if err := w.createPool(name, "plain", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"br1", "br2"} {
		if err := w.createNetwork(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.addUsers()
	// On another pool than its profile says by now, and on another network.
	inst := &model.Instance{Project: "default", Name: "c2", Pool: "p2", InstancePut: api.InstancePut{
		Profiles: []string{"web"}, Devices: map[string]map[string]string{"eth0": {"type": "nic", "nictype": "bridged", "parent": "br2"}},
	}}
	put(w, inst.Key(), inst)

	pools, err := w.ListPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, p := range pools {
		got[p.Name] = p.UsedBy
	}
	networks, err := w.ListNetworks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks {
		got[n.Name] = n.UsedBy
	}
	want := map[string][]string{
		"p1": {"/1.0/instances/c1", "/1.0/profiles/web"}, "p2": {"/1.0/instances/c2"},
		"br1": {"/1.0/instances/c1", "/1.0/profiles/web"}, "br2": {"/1.0/instances/c2"}, "eth0": {},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("used by: got %v, want %v", got, want)
	}
	err = w.DeletePool(t.Context(), "p1")
	wantKind(t, "delete a used pool", err, api.InUse)
	if err == nil || !strings.Contains(err.Error(), "instance c1, profile web") {
		t.Errorf("the refusal does not name the users: %v", err)
	}
	wantKind(t, "delete a used network", w.DeleteNetwork(t.Context(), "br1"), api.InUse)
	wantKind(t, "rename a used network", w.RenameNetwork(t.Context(), "br1", "br9"), api.InUse)
	if p, _, _ := w.GetPool(t.Context(), "p1"); p.Status != "Created" {
		t.Errorf("a refused delete changed the pool: %+v", p)
	}
	if w.nets.up["br1"] == nil {
		t.Error("a refused delete took the network down")
	}
	volumes, err := w.Volumes(t.Context(), "p2")
	if err != nil || len(volumes) != 1 || volumes[0].Name != "c2" || volumes[0].Type != "container" {
		t.Errorf("volumes: got %v, %v", volumes, err)
	}
}

func TestNetworkLife(t *testing.T) {
	w := newWorld(t)
	if err := w.createNetwork("br1", map[string]string{"ipv4.address": "10.9.8.1/24", "ipv4.nat": "false", "ipv6.address": "none"}); err != nil {
		t.Fatal(err)
	}
	n, etag, err := w.GetNetwork(t.Context(), "br1")
	if err != nil || !n.Managed || n.Status != "Created" || n.Type != "bridge" || n.UsedBy != nil || len(n.Config) != 3 {
		t.Errorf("network: got %+v, %v", n, err)
	}
	set := func(key, value string) func(*api.NetworkPut) error {
		return func(p *api.NetworkPut) error { p.Config[key] = value; return nil }
	}
	if err := w.UpdateNetwork(t.Context(), "br1", etag, set("user.a", "1")); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "stale tag", w.UpdateNetwork(t.Context(), "br1", etag, set("user.a", "2")), api.Precondition)
	wantKind(t, "unknown key", w.UpdateNetwork(t.Context(), "br1", "", set("bogus", "2")), api.Invalid)
	w.nets.fail = api.Errorf(api.Unsupported, "the host says no")
	wantKind(t, "the host refuses", w.UpdateNetwork(t.Context(), "br1", "", set("ipv4.nat", "true")), api.Unsupported)
	if n, _, _ := w.GetNetwork(t.Context(), "br1"); n.Config["ipv4.nat"] != "false" || w.nets.up["br1"]["ipv4.nat"] != "false" {
		t.Errorf("after a change that failed: record %v, host %v", n.Config, w.nets.up["br1"])
	}
	// Replaced by nothing: no addresses, instead of new random ones.
	err = w.UpdateNetwork(t.Context(), "br1", "", func(p *api.NetworkPut) error { *p = api.NetworkPut{}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if n, _, _ := w.GetNetwork(t.Context(), "br1"); len(n.Config) != 0 {
		t.Errorf("replaced by nothing: got %v", n.Config)
	}
	if err := w.UpdateNetwork(t.Context(), "br1", "", set("ipv4.address", "auto")); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := w.GetNetwork(t.Context(), "br1"); !strings.HasPrefix(n.Config["ipv4.address"], "10.") || n.Config["ipv6.address"] != "" {
		t.Errorf("ipv4.address=auto: got %v", n.Config)
	}
	if err := w.RenameNetwork(t.Context(), "br1", "br2"); err != nil {
		t.Fatal(err)
	}
	if w.nets.up["br1"] != nil || w.nets.up["br2"] == nil {
		t.Errorf("after a rename the host has %v", w.nets.up)
	}
	wantKind(t, "old name", w.DeleteNetwork(t.Context(), "br1"), api.NotFound)
	if leases, err := w.Leases(t.Context(), "br2"); err != nil || len(leases) != 1 || leases[0].Address != "10.0.0.2" {
		t.Errorf("leases: got %v, %v", leases, err)
	}
	if err := w.DeleteNetwork(t.Context(), "br2"); err != nil {
		t.Fatal(err)
	}
	if len(w.nets.up) != 0 {
		t.Errorf("the host still has %v", w.nets.up)
	}
}

func TestNetworkRefusals(t *testing.T) {
	w := newWorld(t)
	if err := w.createNetwork("br1", nil); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		name string
		cfg  map[string]string
		kind api.Kind
	}{
		"no name":     {"", nil, api.Invalid},
		"space":       {"x y", nil, api.Invalid},
		"taken":       {"br1", nil, api.Conflict},
		"host's link": {"eth0", nil, api.Conflict},
		"key":         {"br2", map[string]string{"bogus": "1"}, api.Invalid},
	} {
		wantKind(t, what, w.createNetwork(c.name, c.cfg), c.kind)
	}
	req := api.NetworksPost{Name: "br2", Type: "ovn"}
	wantKind(t, "type", w.CreateNetwork(t.Context(), req), api.Invalid)
	w.nets.fail = api.Errorf(api.Unsupported, "the host says no")
	wantKind(t, "the host refuses", w.createNetwork("br2", nil), api.Unsupported)
	if w.exists(model.NetworkKey("br2")) {
		t.Error("a network that could not be made has a record")
	}
	wantKind(t, "delete an interface of the host", w.DeleteNetwork(t.Context(), "eth0"), api.NotFound)
	if n, _, err := w.GetNetwork(t.Context(), "eth0"); err != nil || n.Managed || n.UsedBy == nil || n.Locations != nil || n.Type != "physical" {
		t.Errorf("interface of the host: got %+v, %v", n, err)
	}
	all, err := w.ListNetworks(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("networks: got %v, %v, want br1 and eth0: ends of instances' NICs are left out", all, err)
	}
}

func TestNetworkState(t *testing.T) {
	s := stateToAPI(network.Interface{
		Ports: []string{"veth1"},
		NetLink: linux.NetLink{
			MAC: "00:16:3e:00:00:01", MTU: 1500, Flags: 1, Oper: 6, Counters: linux.NetCounters{RxBytes: 1, TxBytes: 2, RxPackets: 3, TxPackets: 4},
			Bridge: &linux.NetBridge{ID: "8000.00163e000001", ForwardDelay: 1500},
			Addrs:  []linux.NetAddr{{Addr: netip.MustParsePrefix("10.0.0.1/24"), Scope: "global"}},
		},
	})
	if s.Bridge == nil || !slices.Equal(s.Bridge.UpperDevices, []string{"veth1"}) || s.Counters.PacketsSent != 4 || s.Hwaddr == "" {
		t.Errorf("state: got %+v", s)
	}
	if len(s.Addresses) != 1 || s.Addresses[0] != (api.NetworkStateAddress{Family: "inet", Address: "10.0.0.1", Netmask: "24", Scope: "global"}) {
		t.Errorf("addresses: got %v", s.Addresses)
	}
}

// TestStart brings up every kind of record that a crash can leave.
func TestStart(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"ready", "doomed", "lost"} {
		if err := w.createPool(name, "plain", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "storage-pools", "lost")); err != nil {
		t.Fatal(err)
	}
	put(w, model.PoolKey("doomed"), &model.Pool{Name: "doomed", Driver: "plain", Phase: model.Deleting})
	put(w, model.PoolKey("half"), &model.Pool{Name: "half", Driver: "plain", Phase: model.Creating})
	if err := os.MkdirAll(filepath.Join(w.dir, "storage-pools", "half", "containers"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := w.createNetwork("br1", nil); err != nil {
		t.Fatal(err)
	}
	put(w, model.NetworkKey("br2"), &model.Network{Name: "br2", Type: "bridge", Phase: model.Creating})
	put(w, model.NetworkKey("br3"), &model.Network{Name: "br3", Type: "bridge", Phase: model.Deleting})
	w.nets.up = map[string]map[string]string{"br2": {}, "br3": {}}

	w.restart()
	pools, _ := w.ListPools(t.Context())
	got := []string{}
	for _, p := range pools {
		got = append(got, p.Name+" "+p.Status)
	}
	if want := []string{"lost Unavailable", "ready Created"}; !slices.Equal(got, want) {
		t.Errorf("pools: got %v, want %v", got, want)
	}
	_, err := w.Pool(t.Context(), "lost")
	wantKind(t, "a pool that is gone", err, api.Unavailable)
	entries, _ := os.ReadDir(filepath.Join(w.dir, "storage-pools"))
	if len(entries) != 1 {
		t.Errorf("directories: got %v", entries)
	}
	if len(w.nets.up) != 1 || w.nets.up["br1"] == nil {
		t.Errorf("networks on the host: got %v", w.nets.up)
	}

	w.nets.fail = errors.New("no nftables")
	w.restart()
	n, _, err := w.GetNetwork(t.Context(), "br1")
	if err != nil || n.Status != "Unavailable" {
		t.Errorf("network that cannot be started: got %+v, %v", n, err)
	}
	_, err = w.Network(t.Context(), "br1")
	wantKind(t, "network that cannot be started", err, api.Unavailable)
	if err := w.Down(t.Context()); err != nil || len(w.nets.up) != 0 {
		t.Errorf("down: %v, %v", err, w.nets.up)
	}
}

func TestServerConfig(t *testing.T) {
	w := newWorld(t)
	cfg, etag, err := w.GetServerConfig(t.Context())
	if err != nil || len(cfg) != 0 || etag == "" {
		t.Errorf("new daemon: got %v, %q, %v", cfg, etag, err)
	}
	set := func(key, value string) func(map[string]string) error {
		return func(c map[string]string) error { c[key] = value; return nil }
	}
	if err := w.UpdateServerConfig(t.Context(), etag, set("user.a", "1")); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "stale tag", w.UpdateServerConfig(t.Context(), etag, set("user.a", "2")), api.Precondition)
	err = w.UpdateServerConfig(t.Context(), "", set("core.https_address", "127.0.0.1:8443"))
	wantKind(t, "core.https_address", err, api.Invalid)
	if err == nil || !strings.Contains(err.Error(), "core.https_address") {
		t.Errorf("the refusal does not name the key: %v", err)
	}
	if err := w.UpdateServerConfig(t.Context(), "", set("core.https_address", "")); err != nil {
		t.Errorf("unset what is not set: %v", err)
	}
	if err := w.UpdateServerConfig(t.Context(), "", set("user.a", "")); err != nil {
		t.Fatal(err)
	}
	if cfg, _, _ := w.GetServerConfig(t.Context()); len(cfg) != 0 {
		t.Errorf("after unsetting all: got %v", cfg)
	}
}
