package network

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/croft-project/croft/api"
)

// Env is what a plan depends on besides the configuration.
type Env struct {
	InstanceID string // identity of this daemon among those of the host, [0-9a-z]+
	HostID     string // identity of the host, so that bridges of two hosts get different MAC addresses
	StateDir   string // survives reboots; holds the leases
	RunDir     string // does not survive them; every user may traverse it
	User       string // unprivileged user and group that dnsmasq becomes
	Group      string
}

// Plan is all that a network needs from the kernel and from dnsmasq. It is plain
// data, the same for the same input.
type Plan struct {
	Name     string
	Link     LinkPlan
	Addrs    []netip.Prefix // complete: other addresses are removed, IPv6 link-local ones excepted
	Sysctls  []Sysctl       // in the order of writing; after the link exists, before the addresses
	Forward6 bool           // the host must forward IPv6; its own interfaces must go on accepting advertisements
	Table    string         // nftables table of family inet
	Ruleset  string         // for nft -f; replaces the table in one transaction
	DNSMasq  *DNSMasqPlan   // nil when the bridge has no addresses
	Gateway4 netip.Addr     // the bridge's addresses; zero when there is none
	Gateway6 netip.Prefix
	Managed  bool // the daemon names instances in DNS
	Stateful bool // DHCPv6 gives out addresses
}

// LinkPlan is the bridge's link.
type LinkPlan struct {
	MAC   string
	MTU   int
	Alias string // marks the bridge as this daemon's
}

// Sysctl is one value below /proc/sys.
type Sysctl struct {
	Path     string // "net/ipv4/ip_forward"
	Value    string
	AtLeast  bool // Value is a number; a higher one is left alone
	Optional bool // its absence or refusal is no error
}

// DNSMasqPlan is one dnsmasq process. The name of the configuration file has a
// digest of its content, so the arguments of a running process tell whether it
// has this configuration.
type DNSMasqPlan struct {
	Args      []string // arguments after the program's name
	ConfFile  string
	Config    string
	HostsDir  string
	PIDFile   string
	LeaseFile string
}

// BuildPlan works out the plan of a network. Errors: Invalid.
func BuildPlan(c Config, env Env) (*Plan, error) {
	if err := ValidateName(c.Name); err != nil {
		return nil, err
	}
	if err := ValidateConfig(c.Config); err != nil {
		return nil, err
	}
	for _, path := range []string{env.StateDir, env.RunDir} {
		if !filepath.IsAbs(path) || strings.ContainsFunc(path, notInConfig) {
			return nil, api.Errorf(api.Unsupported, "directory %q cannot be written into dnsmasq's configuration: "+
				"allowed are absolute paths without control characters, quotes, # and backslashes", path)
		}
	}
	s, err := parseSettings(c.Config)
	if err != nil {
		return nil, err
	}
	if s.v4.auto || s.v6.auto {
		return nil, api.Errorf(api.Invalid, "network %s: address \"auto\" has not been replaced by an address", c.Name)
	}
	p := &Plan{
		Name:     c.Name,
		Link:     LinkPlan{MAC: s.mac, MTU: cmp.Or(s.mtu, 1500), Alias: linkAlias(env.InstanceID)},
		Table:    tableName(env.InstanceID, c.Name),
		Managed:  s.dnsMode == "managed",
		Stateful: s.v6.on() && s.v6.dhcp && s.v6.stateful,
		Forward6: s.v6.on() && s.v6.routing,
		Gateway4: s.v4.address.Addr(),
		Gateway6: s.v6.address,
	}
	if p.Link.MAC == "" {
		p.Link.MAC = stableMAC(env, c.Name)
	}
	if p.Addrs, err = planAddrs(s, p.Link.MAC); err != nil {
		return nil, err
	}
	p.Sysctls = planSysctls(s, c.Name)
	p.Ruleset = renderRuleset(p.Table, c.Name, s)
	if s.v4.on() || s.v6.on() {
		p.DNSMasq = planDNSMasq(c.Name, s, env)
	}
	return p, nil
}

func notInConfig(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune("\"'#\\", r) }

func linkAlias(id string) string { return "croft/" + id }

func tableName(id, network string) string { return "croft_" + id + "_" + network }

// runDir is where a network's run-time files are.
func (e Env) runDir(network string) string { return filepath.Join(e.RunDir, network) }

// leaseDir is where a network's lasting files are.
func (e Env) leaseDir(network string) string { return filepath.Join(e.StateDir, "networks", network) }

// stableMAC derives the bridge's MAC address. A bridge without one of its own
// takes the lowest of its ports', which changes under the containers' ARP caches.
// 00:16:3e is the prefix LXD's users expect.
func stableMAC(env Env, network string) string {
	h := sha256.Sum256([]byte("croft bridge\x00" + env.HostID + "\x00" + env.InstanceID + "\x00" + network))
	return net.HardwareAddr{0x00, 0x16, 0x3e, h[0], h[1], h[2]}.String()
}

// planAddrs lists the addresses. The IPv6 link-local one is set by us: the kernel
// makes it only when the first port has a carrier and then checks it for
// duplicates for a second, which would delay the first container's
// advertisement by as much.
func planAddrs(s settings, mac string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	if s.v4.on() {
		out = append(out, s.v4.address)
	}
	if s.v6.on() {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return nil, invalidValue("bridge.hwaddr", mac, err)
		}
		link := netip.PrefixFrom(eui64(netip.MustParsePrefix("fe80::/64"), hw), 64)
		out = append(out, s.v6.address, link)
	}
	return out, nil
}

// eui64 is the address that stateless configuration gives the interface with a
// 48-bit MAC in a /64. Source: RFC 4291 appendix A.
func eui64(subnet netip.Prefix, mac net.HardwareAddr) netip.Addr {
	a := subnet.Masked().Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.AddrFrom16(a)
}

// planSysctls: the host-wide switches come first because writing them changes
// the interfaces' own. Source: Documentation/networking/ip-sysctl.rst.
func planSysctls(s settings, name string) []Sysctl {
	v4, v6 := "net/ipv4/conf/"+name+"/", "net/ipv6/conf/"+name+"/"
	var out []Sysctl
	if s.v4.on() {
		if s.v4.routing {
			out = append(out, Sysctl{Path: "net/ipv4/ip_forward", Value: "1"})
		}
		out = append(out, Sysctl{Path: v4 + "forwarding", Value: zeroOne(s.v4.routing)})
		out = append(out, neighbours("net/ipv4")...)
	}
	if !s.v6.on() {
		return append(out, Sysctl{Path: v6 + "disable_ipv6", Value: "1", Optional: true})
	}
	if s.v6.routing {
		out = append(out, Sysctl{Path: "net/ipv6/conf/all/forwarding", Value: "1"})
	}
	out = append(out,
		Sysctl{Path: v6 + "disable_ipv6", Value: "0"},
		Sysctl{Path: v6 + "accept_ra", Value: "0"}, // the bridge is the router here: a container must not be
		Sysctl{Path: v6 + "autoconf", Value: "0"},
		Sysctl{Path: v6 + "accept_dad", Value: "0"},
		Sysctl{Path: v6 + "forwarding", Value: zeroOne(s.v6.routing)},
	)
	return append(out, neighbours("net/ipv6")...)
}

// neighbours raises the size of the neighbour table, which by default ends at
// 1024 entries for all interfaces together. The values exist in the first network
// namespace only.
func neighbours(family string) []Sysctl {
	return []Sysctl{
		{Path: family + "/neigh/default/gc_thresh3", Value: "8192", AtLeast: true, Optional: true},
		{Path: family + "/neigh/default/gc_thresh2", Value: "4096", AtLeast: true, Optional: true},
	}
}

func zeroOne(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// String is the plan as text, for logs and golden files.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "bridge %s mac %s mtu %d alias %s\n", p.Name, p.Link.MAC, p.Link.MTU, p.Link.Alias)
	for _, a := range p.Addrs {
		fmt.Fprintf(&b, "address %s\n", a)
	}
	for _, s := range p.Sysctls {
		fmt.Fprintf(&b, "sysctl %s=%s", s.Path, s.Value)
		if s.AtLeast {
			b.WriteString(" (at least)")
		}
		if s.Optional {
			b.WriteString(" (optional)")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "forward6 %t managed %t stateful %t\n", p.Forward6, p.Managed, p.Stateful)
	fmt.Fprintf(&b, "--- nft\n%s", p.Ruleset)
	if d := p.DNSMasq; d != nil {
		fmt.Fprintf(&b, "--- dnsmasq %s\n%s", strings.Join(d.Args, " "), d.Config)
	}
	return b.String()
}
