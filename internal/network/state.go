package network

import (
	"context"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

// Interface is one interface of the host.
type Interface struct {
	linux.NetLink
	Ports []string // names of the interfaces that are in this bridge or bond, in order of index
}

// HostType is the word LXD's API has for an interface that is not managed:
// "loopback", "bridge", "bond", "vlan", "physical" (also virtual ones that look
// like hardware) or "unknown".
func (i *Interface) HostType() string {
	switch {
	case i.Type() == "loopback":
		return "loopback"
	case i.Kind == "bridge" || i.Kind == "bond" || i.Kind == "vlan":
		return i.Kind
	case i.Kind == "openvswitch":
		return "bridge"
	case i.Kind == "" && i.MAC != "":
		return "physical"
	}
	return "unknown"
}

// State describes one interface of the host, managed or not, with fresh
// counters. Errors: NotFound.
func (m *Manager) State(ctx context.Context, name string) (Interface, error) {
	all, err := m.HostInterfaces(ctx)
	if err != nil {
		return Interface{}, err
	}
	for _, i := range all {
		if i.Name == name {
			return i, nil
		}
	}
	return Interface{}, api.Errorf(api.NotFound, "network interface %s does not exist", name)
}

// HostInterfaces lists the interfaces of the daemon's network namespace in order
// of index. Those of containers (veth) are among them.
func (m *Manager) HostInterfaces(ctx context.Context) ([]Interface, error) {
	links, err := linux.HostLinks(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Interface, len(links))
	at := make(map[int]int, len(links))
	for i, l := range links {
		out[i].NetLink = l
		at[l.Index] = i
	}
	for _, l := range links {
		if i, ok := at[l.Master]; ok && l.Master != 0 {
			out[i].Ports = append(out[i].Ports, l.Name)
		}
	}
	return out, nil
}
