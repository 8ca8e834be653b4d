package device

import (
	"crypto/rand"
	"fmt"

	"github.com/croft-project/croft/api"
)

// nic is a network interface: one end of a veth pair, the other end of which is
// on a bridge (nictype bridged, or network) or alone on the host (p2p).
var nic = Type{
	Name: "nic",
	Options: map[string]Option{
		"nictype":      {"kind of interface; derived from network if that is given", oneOf("bridged", "p2p")},
		"network":      {"managed network to join", interfaceName},
		"parent":       {"bridge of the host to join", interfaceName},
		"name":         {"name inside; the device's own name by default", interfaceName},
		"host_name":    {"name on the host; random by default", interfaceName},
		"hwaddr":       {"MAC address; random and kept by default", macAddress},
		"mtu":          {"MTU; the parent's by default", number(68, 65535)},
		"ipv4.address": {"address that DHCP gives it", ipv4},
		"ipv6.address": {"address that DHCPv6 gives it", ipv6},
	},
	Check: checkNic,
	Plan:  planNic,
}

func checkNic(d Device) error {
	network, kind, parent := d.Get("network"), d.Get("nictype"), d.Get("parent")
	switch {
	case network != "" && (parent != "" || kind != "" && kind != "bridged"):
		return api.Errorf(api.Invalid, "device %s: network %q already says nictype and parent; leave those out", d.Name, network)
	case network == "" && kind == "":
		return api.Errorf(api.Invalid, "device %s: a nic needs network=NETWORK, or nictype with one of bridged, p2p", d.Name)
	case kind == "bridged" && network == "" && parent == "":
		return api.Errorf(api.Invalid, "device %s: nictype bridged needs parent=BRIDGE", d.Name)
	case kind == "p2p" && parent != "":
		return api.Errorf(api.Invalid, "device %s: nictype p2p has no parent, got %q", d.Name, parent)
	}
	if d.Get("name") == "" {
		if err := interfaceName(d.Name); err != nil {
			return api.Errorf(api.Invalid, "device %s: its name cannot be that of the interface: %w", d.Name, err).WithHint("give the option name=eth0")
		}
	}
	return nil
}

func planNic(d Device, env Env) (Effect, error) {
	l := Link{Name: d.Get("name"), HostName: d.Get("host_name"), MAC: d.Get("hwaddr"), Parent: d.Get("parent"), MTU: d.Get("mtu"), Network: d.Get("network"), IPv4: d.Get("ipv4.address"), IPv6: d.Get("ipv6.address")}
	if l.Name == "" {
		l.Name = d.Name
	}
	if l.MAC == "" {
		l.MAC = env.Volatile["hwaddr"]
	}
	if l.HostName == "" {
		l.HostName = env.Volatile["host_name"]
	}
	if l.Network != "" {
		parent, mtu, err := env.NetworkParent(l.Network)
		if err != nil {
			return Effect{}, fmt.Errorf("device %s: %w", d.Name, err)
		}
		l.Parent = parent
		if l.MTU == "" {
			l.MTU = mtu
		}
	}
	return Effect{Links: []Link{l}}, nil
}

// NewMAC makes a random MAC address in the range that LXD and liblxc use for
// containers, 00:16:3e.
func NewMAC() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	return fmt.Sprintf("00:16:3e:%02x:%02x:%02x", b[0], b[1], b[2])
}

// NewHostName makes a random name for the host's end of an interface.
func NewHostName() string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("veth%08x", b)
}
