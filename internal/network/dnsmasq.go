package network

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// planDNSMasq works out files and arguments of a network's dnsmasq.
func planDNSMasq(bridge string, s settings, env Env) *DNSMasqPlan {
	run := env.runDir(bridge)
	d := &DNSMasqPlan{
		HostsDir:  filepath.Join(run, "hosts"),
		PIDFile:   filepath.Join(run, "dnsmasq.pid"),
		LeaseFile: filepath.Join(env.leaseDir(bridge), "dnsmasq.leases"),
	}
	d.Config = renderDNSMasq(bridge, s, env, d)
	sum := sha256.Sum256([]byte(d.Config))
	d.ConfFile = filepath.Join(run, "dnsmasq-"+hex.EncodeToString(sum[:6])+".conf")
	d.Args = []string{"--conf-file=" + d.ConfFile}
	return d
}

// renderDNSMasq is dnsmasq's configuration file. Source: dnsmasq(8), 2.90.
func renderDNSMasq(bridge string, s settings, env Env, d *DNSMasqPlan) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Made by croftd for the network %s; changes are overwritten.", bridge)
	line("user=%s", env.User)
	line("group=%s", env.Group)
	line("pid-file=%s", d.PIDFile)
	// Bound to the addresses of this one interface: other resolvers and other
	// dnsmasq processes of the host keep theirs.
	line("bind-dynamic")
	line("interface=%s", bridge)
	line("except-interface=lo")
	line("no-hosts") // the host's own name is 127.0.1.1 there
	line("dns-loop-detect")
	line("dns-forward-max=1000")
	line("domain=%s", s.domain)
	line("local=/%s/", s.domain)
	line("interface-name=_gateway.%s,%s", s.domain, bridge)
	line("no-ping") // the check of an address takes seconds, our leases are not used by others
	line("quiet-dhcp")
	line("quiet-dhcp6")
	line("quiet-ra")
	line("dhcp-authoritative")
	line("dhcp-rapid-commit")
	line("dhcp-no-override")
	line("dhcp-ignore-clid") // copies of an image share their machine id and with it the client id; their MACs differ
	if s.dnsMode != "dynamic" {
		line("dhcp-ignore-names") // a client cannot take another's name
	}
	line("dhcp-hostsdir=%s", d.HostsDir)
	line("dhcp-leasefile=%s", d.LeaseFile)
	line("dhcp-lease-max=%d", maxLeases(s))
	ranges4(line, s)
	ranges6(line, bridge, s)
	return b.String()
}

func ranges4(line func(string, ...any), s settings) {
	f := s.v4
	if !f.on() || !f.dhcp {
		return
	}
	ranges := f.ranges
	if len(ranges) == 0 {
		ranges = wholeSubnet4(f.address)
	}
	for _, r := range ranges {
		line("dhcp-range=%s,%s,%s,%s", r.first, r.last, netmask(f.address), f.expiry)
	}
	if f.gateway.IsValid() {
		line("dhcp-option=option:router,%s", f.gateway)
	}
	if len(s.dnsSearch) > 0 {
		line("dhcp-option=option:domain-search,%s", strings.Join(s.dnsSearch, ","))
	}
	if s.mtu != 0 {
		line("dhcp-option-force=option:mtu,%d", s.mtu)
	}
}

// ranges6 writes DHCPv6 and router advertisements. A subnet smaller than /64 has
// no stateless configuration, so it is served only when DHCPv6 gives out the
// addresses.
func ranges6(line func(string, ...any), bridge string, s settings) {
	f := s.v6
	stateful := f.dhcp && f.stateful
	if !f.on() || f.address.Bits() > 64 && !stateful {
		return
	}
	line("enable-ra")
	if !f.routing {
		line("ra-param=%s,0,0", bridge) // a router lifetime of zero: prefix, but no default route
	}
	subnet := f.address.Masked()
	bits := max(subnet.Bits(), 64) // dnsmasq takes no shorter prefix
	switch {
	case stateful:
		ranges := f.ranges
		if len(ranges) == 0 {
			ranges = []addrRange{{subnet.Addr().Next().Next(), lastAddr(netip.PrefixFrom(subnet.Addr(), bits))}}
		}
		for _, r := range ranges {
			line("dhcp-range=%s,%s,%d,%s", r.first, r.last, bits, f.expiry)
		}
	case f.dhcp:
		line("dhcp-range=%s,ra-stateless,ra-names,%d,%s", netip.PrefixFrom(f.address.Addr(), bits).Masked().Addr(), bits, f.expiry)
	default:
		line("dhcp-range=%s,ra-only,%d,%s", netip.PrefixFrom(f.address.Addr(), bits).Masked().Addr(), bits, f.expiry)
	}
	if len(s.dnsSearch) > 0 {
		line("dhcp-option=option6:domain-search,%s", strings.Join(s.dnsSearch, ","))
	}
}

// wholeSubnet4 is the range of all host addresses. dnsmasq never gives out the
// bridge's own address, wherever in the range it is.
func wholeSubnet4(p netip.Prefix) []addrRange {
	if p.Bits() > 30 {
		return nil // no address besides the bridge's own
	}
	r := addrRange{p.Masked().Addr().Next(), lastAddr(p).Prev()}
	if r.first == p.Addr() {
		r.first = r.first.Next()
	}
	if r.last == p.Addr() {
		r.last = r.last.Prev()
	}
	return []addrRange{r}
}

func netmask(p netip.Prefix) netip.Addr {
	var m [4]byte
	for i := range p.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(m)
}

// maxLeases bounds the number of leases: dnsmasq's own limit of 1000 leaves the
// thousand-and-first container without an address.
func maxLeases(s settings) int {
	const low, high = 1000, 1 << 18
	if s.v6.on() && s.v6.stateful {
		return high
	}
	if s.v4.on() && s.v4.address.Bits() <= 22 {
		return min(high, 1<<(32-s.v4.address.Bits()))
	}
	return low
}
