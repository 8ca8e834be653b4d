package inventory

import (
	"context"
	"errors"
	"strconv"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/store"
)

// Leases lists the addresses of a managed network. Errors: NotFound.
func (i *Inventory) Leases(ctx context.Context, name string) ([]api.NetworkLease, error) {
	err := i.deps.Store.View(ctx, func(tx store.Tx) error {
		_, _, err := getNetwork(tx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	leases, err := i.deps.Networks.Leases(ctx, name)
	out := make([]api.NetworkLease, 0, len(leases))
	for _, l := range leases {
		out = append(out, api.NetworkLease{
			Hostname: l.Hostname, Hwaddr: l.MAC, Address: l.Address.String(), Type: l.Type, Location: "none",
		})
	}
	return out, err
}

// NetworkState tells what the kernel says about an interface of the host,
// managed or not. Errors: NotFound.
func (i *Inventory) NetworkState(ctx context.Context, name string) (api.NetworkState, error) {
	h, err := i.deps.Networks.State(ctx, name)
	if err != nil {
		return api.NetworkState{}, err
	}
	return stateToAPI(h), nil
}

func stateToAPI(h network.Interface) api.NetworkState {
	s := api.NetworkState{
		Addresses: []api.NetworkStateAddress{},
		Counters: api.NetworkStateCounters{
			BytesReceived: int64(h.Counters.RxBytes), BytesSent: int64(h.Counters.TxBytes),
			PacketsReceived: int64(h.Counters.RxPackets), PacketsSent: int64(h.Counters.TxPackets),
		},
		Hwaddr: h.MAC, Mtu: h.MTU, State: h.State(), Type: h.Type(),
	}
	for _, a := range h.Addrs {
		s.Addresses = append(s.Addresses, api.NetworkStateAddress{
			Family: a.Family(), Address: a.Addr.Addr().String(), Netmask: strconv.Itoa(a.Addr.Bits()), Scope: a.Scope,
		})
	}
	if b := h.Bridge; b != nil {
		ports := h.Ports
		if ports == nil {
			ports = []string{}
		}
		s.Bridge = &api.NetworkStateBridge{
			ID: b.ID, STP: b.STP, ForwardDelay: b.ForwardDelay, VLANDefault: b.VLANDefault,
			VLANFiltering: b.VLANFiltering, UpperDevices: ports,
		}
	}
	return s
}

// Start brings up what the store knows, after finishing what a crash
// interrupted: pools first, then networks. What fails is logged and shows as
// status Unavailable. It is called once, before the inventory is used.
func (i *Inventory) Start(ctx context.Context) error {
	var pools []store.Record[model.Pool]
	var networks []store.Record[model.Network]
	err := i.deps.Store.View(ctx, func(tx store.Tx) (err error) {
		if pools, err = store.List[model.Pool](tx, model.PoolPrefix); err != nil {
			return err
		}
		networks, err = store.List[model.Network](tx, model.NetworkPrefix)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range pools {
		if err := i.startPool(ctx, r.Value); err != nil {
			i.deps.Log.Warn("storage pool is not available", "pool", r.Value.Name, "err", err)
		}
	}
	for _, r := range networks {
		if err := i.startNetwork(ctx, r.Value); err != nil {
			i.deps.Log.Warn("network is not available", "network", r.Value.Name, "err", err)
		}
	}
	return store.ContextError(ctx, "bring up storage pools and networks")
}

func (i *Inventory) startPool(ctx context.Context, rec *model.Pool) error {
	_, err := i.deps.Pools.Open(ctx, poolConfig(rec))
	if rec.Phase == model.Ready {
		return err
	}
	// Half made or half removed: nothing in it was ever, or is still, of use.
	return i.removePool(ctx, rec.Name)
}

func (i *Inventory) startNetwork(ctx context.Context, rec *model.Network) error {
	if rec.Phase != model.Ready {
		return i.removeNetwork(ctx, rec.Name)
	}
	err := i.deps.Networks.Start(ctx, networkConfig(rec))
	i.setDown(rec.Name, err)
	return err
}

// Down takes all managed networks off the host until the next start, for a daemon
// whose instances have all been stopped.
func (i *Inventory) Down(ctx context.Context) error {
	var networks []store.Record[model.Network]
	err := i.deps.Store.View(ctx, func(tx store.Tx) (err error) {
		networks, err = store.List[model.Network](tx, model.NetworkPrefix)
		return err
	})
	for _, r := range networks {
		err = errors.Join(err, i.deps.Networks.Down(ctx, r.Value.Name))
	}
	return err
}
