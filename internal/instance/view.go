package instance

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/store"
)

func etag(rev store.Rev) string { return strconv.FormatUint(uint64(rev), 10) }

// parseETag reads what a client sent in If-Match; 0 for nothing.
func parseETag(s string) (store.Rev, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.Trim(s, `"`), 10, 64)
	if err != nil || n == 0 {
		return 0, api.Errorf(api.Precondition, "If-Match: %q is not the current revision", s)
	}
	return store.Rev(n), nil
}

// List gives the instances of a project, by name.
func (e *Engine) List(ctx context.Context, project string) ([]api.Instance, error) {
	all, err := e.loadAll(ctx, project)
	if err != nil {
		return nil, err
	}
	out := make([]api.Instance, len(all))
	for i, l := range all {
		out[i] = e.show(l)
	}
	return out, nil
}

func (e *Engine) loadAll(ctx context.Context, project string) ([]*loaded, error) {
	var out []*loaded
	err := e.Store.View(ctx, func(tx store.Tx) error {
		records, err := store.List[model.Instance](tx, model.InstanceKey(project, ""))
		if err != nil {
			return err
		}
		out = make([]*loaded, 0, len(records))
		for _, r := range records {
			if !visible(r.Value) {
				continue
			}
			l, err := expand(tx, r.Value, r.Rev)
			if err != nil {
				return err
			}
			out = append(out, l)
		}
		return nil
	})
	return out, err
}

// ListFull gives the instances of a project with their live state.
func (e *Engine) ListFull(ctx context.Context, project string) ([]api.InstanceFull, error) {
	all, err := e.loadAll(ctx, project)
	if err != nil {
		return nil, err
	}
	out := make([]api.InstanceFull, len(all))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, l := range all {
		g.Go(func() error {
			state := e.state(gctx, e.liveOf(l.Project, l.Name))
			out[i] = api.InstanceFull{Instance: e.show(l), State: &state}
			return nil
		})
	}
	return out, g.Wait()
}

// Get gives one instance and its ETag.
func (e *Engine) Get(ctx context.Context, project, name string) (api.Instance, string, error) {
	l, err := e.load(ctx, project, name, false)
	if err != nil {
		return api.Instance{}, "", err
	}
	return e.show(l), etag(l.rev), nil
}

// GetFull is Get with the live state.
func (e *Engine) GetFull(ctx context.Context, project, name string) (api.InstanceFull, string, error) {
	inst, tag, err := e.Get(ctx, project, name)
	if err != nil {
		return api.InstanceFull{}, "", err
	}
	state := e.state(ctx, e.liveOf(project, name))
	return api.InstanceFull{Instance: inst, State: &state}, tag, nil
}

// show is an instance as the API has it. Its maps may be shared: read only.
func (e *Engine) show(l *loaded) api.Instance {
	volatile := maps.Clone(l.local.Volatile)
	if volatile == nil {
		volatile = map[string]string{}
	}
	if volatile[lastPower] == "" {
		volatile[lastPower] = string(l.local.Power)
	}
	if m := idmapOf(l.local); m != nil {
		text := idmapText(m)
		volatile["volatile.idmap.current"], volatile["volatile.idmap.next"] = text, text
		volatile["volatile.last_state.idmap"] = "[]" // files are stored unshifted
	}
	status := e.statusOf(l.Project, l.Name)
	out := api.Instance{
		InstancePut: l.InstancePut, CreatedAt: l.CreatedAt, Name: l.Name, Status: status.String(), StatusCode: status,
		LastUsedAt: lastUsed(l.local), Location: "none", Type: api.InstanceTypeContainer, Project: l.Project,
		ExpandedConfig: merge(l.config, volatile), ExpandedDevices: l.devices,
	}
	out.Config = merge(l.Config, volatile)
	if out.Profiles == nil {
		out.Profiles = []string{}
	}
	if out.Devices == nil {
		out.Devices = map[string]map[string]string{}
	}
	return out
}

// lastUsed is when an instance was last started; the Unix epoch for never, as
// LXD has it.
func lastUsed(l *model.Local) time.Time {
	if l.LastUsedAt.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return l.LastUsedAt
}

func merge(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

// idmapText is LXD's JSON form of a map.
func idmapText(m linux.IDMap) string {
	var parts []string
	for _, entry := range m {
		for _, kind := range []struct{ u, g bool }{{true, false}, {false, true}} {
			parts = append(parts, fmt.Sprintf(`{"Isuid":%t,"Isgid":%t,"Hostid":%d,"Nsid":%d,"Maprange":%d}`, kind.u, kind.g, entry.HostID, entry.ContainerID, entry.Count))
		}
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func (e *Engine) statusOf(project, name string) api.StatusCode {
	if l := e.liveOf(project, name); l != nil {
		return l.status()
	}
	return api.Stopped
}

// State gives the live state of an instance.
func (e *Engine) State(ctx context.Context, project, name string) (api.InstanceState, error) {
	if _, err := e.load(ctx, project, name, false); err != nil {
		return api.InstanceState{}, err
	}
	return e.state(ctx, e.liveOf(project, name)), nil
}

// state reads a container's counters and interfaces. It enters no namespace and
// starts no process. A nil l is a stopped instance.
func (e *Engine) state(ctx context.Context, l *live) api.InstanceState {
	if l == nil {
		return api.InstanceState{Status: api.Stopped.String(), StatusCode: api.Stopped, Disk: map[string]api.InstanceStateDisk{}}
	}
	status := l.status()
	l.mu.Lock()
	meter, net := l.meter, l.net
	l.mu.Unlock()
	u := meter.Read()
	s := api.InstanceState{
		Status: status.String(), StatusCode: status, Disk: map[string]api.InstanceStateDisk{}, Pid: int64(l.initPID()),
		Processes: max(u.Tasks, 0), CPU: api.InstanceStateCPU{Usage: max(u.CPU, 0)},
		Memory: api.InstanceStateMemory{Usage: max(u.Memory, 0), UsagePeak: max(u.MemoryPeak, 0), SwapUsage: max(u.Swap, 0), SwapUsagePeak: max(u.SwapPeak, 0)},
	}
	if net == nil {
		return s
	}
	links, err := net.Snapshot(ctx, true)
	if err != nil {
		return s // it has just ended
	}
	s.Network = make(map[string]api.InstanceStateNetwork, len(links))
	for _, link := range links {
		s.Network[link.Name] = showLink(link, l.hostNames[link.Name])
	}
	return s
}

func showLink(link linux.NetLink, hostName string) api.InstanceStateNetwork {
	c := link.Counters
	n := api.InstanceStateNetwork{
		Addresses: make([]api.InstanceStateNetworkAddress, 0, len(link.Addrs)),
		Counters: api.InstanceStateNetworkCounters{
			BytesReceived: int64(c.RxBytes), BytesSent: int64(c.TxBytes), PacketsReceived: int64(c.RxPackets), PacketsSent: int64(c.TxPackets),
			ErrorsReceived: int64(c.RxErrors), ErrorsSent: int64(c.TxErrors), PacketsDroppedInbound: int64(c.RxDropped), PacketsDroppedOutbound: int64(c.TxDropped),
		},
		Hwaddr: link.MAC, HostName: hostName, Mtu: link.MTU, State: link.State(), Type: link.Type(),
	}
	for _, a := range link.Addrs {
		family := "inet"
		if a.Addr.Addr().Is6() {
			family = "inet6"
		}
		n.Addresses = append(n.Addresses, api.InstanceStateNetworkAddress{
			Family: family, Address: a.Addr.Addr().String(), Netmask: strconv.Itoa(a.Addr.Bits()), Scope: a.Scope,
		})
	}
	return n
}
