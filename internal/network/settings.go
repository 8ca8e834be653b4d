package network

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/croft-project/croft/api"
)

// settings is a bridge's configuration with types and defaults.
type settings struct {
	mtu       int    // 0: not set, which means 1500
	mac       string // empty: derived
	domain    string
	dnsMode   string
	dnsSearch []string
	v4, v6    family
}

// family is what both address families have. A zero address switches it off.
type family struct {
	address  netip.Prefix // the bridge's own address
	auto     bool         // the address is still to be chosen
	nat      bool
	dhcp     bool
	stateful bool // IPv6 only
	ranges   []addrRange
	expiry   string
	gateway  netip.Addr // IPv4 only; zero: the bridge
	firewall bool
	routing  bool
}

func (f *family) on() bool { return f.address.IsValid() }

// parseSettings converts a configuration whose single values are valid and
// checks the values against each other.
func parseSettings(cfg map[string]string) (settings, error) {
	s := settings{mac: strings.ToLower(cfg["bridge.hwaddr"]), domain: cfg["dns.domain"], dnsMode: cfg["dns.mode"]}
	if s.domain == "" {
		s.domain = "lxd"
	}
	if s.dnsMode == "" {
		s.dnsMode = "managed"
	}
	if v := cfg["dns.search"]; v != "" {
		for item := range strings.SplitSeq(v, ",") {
			s.dnsSearch = append(s.dnsSearch, strings.TrimSpace(item))
		}
	}
	if v := cfg["bridge.mtu"]; v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			return s, invalidValue("bridge.mtu", v, err)
		}
		s.mtu = n
	}
	var err error
	if s.v4, err = parseFamily(cfg, "ipv4."); err != nil {
		return s, err
	}
	if s.v6, err = parseFamily(cfg, "ipv6."); err != nil {
		return s, err
	}
	if s.mtu != 0 && s.mtu < 1280 && (s.v6.on() || s.v6.auto) {
		return s, invalidValue("bridge.mtu", cfg["bridge.mtu"], fmt.Errorf("IPv6 needs at least 1280"))
	}
	return s, nil
}

func parseFamily(cfg map[string]string, prefix string) (family, error) {
	f := family{expiry: cfg[prefix+"dhcp.expiry"]}
	if f.expiry == "" {
		f.expiry = "1h"
	}
	for _, b := range []struct {
		key string
		def bool
		to  *bool
	}{
		{"nat", false, &f.nat}, {"dhcp", true, &f.dhcp}, {"dhcp.stateful", false, &f.stateful},
		{"firewall", true, &f.firewall}, {"routing", true, &f.routing},
	} {
		*b.to = b.def
		if v := cfg[prefix+b.key]; v != "" {
			on, err := parseBool(v)
			if err != nil {
				return f, invalidValue(prefix+b.key, v, err)
			}
			*b.to = on
		}
	}
	four := prefix == "ipv4."
	switch v := cfg[prefix+"address"]; v {
	case "", "none":
	case "auto":
		f.auto = true
	default:
		p, err := parseGateway(v, four)
		if err != nil {
			return f, invalidValue(prefix+"address", v, err)
		}
		f.address = p
	}
	err := parseDHCP(cfg, prefix, four, &f)
	return f, err
}

// parseDHCP reads ranges and gateway, which must lie in the subnet.
func parseDHCP(cfg map[string]string, prefix string, four bool, f *family) error {
	if v := cfg[prefix+"dhcp.gateway"]; v != "" && four {
		a, err := netip.ParseAddr(v)
		if err == nil && f.on() && !f.address.Contains(a) {
			err = fmt.Errorf("it must lie in the subnet %s", f.address.Masked())
		}
		if err != nil {
			return invalidValue(prefix+"dhcp.gateway", v, err)
		}
		f.gateway = a
	}
	v := cfg[prefix+"dhcp.ranges"]
	if v == "" {
		return nil
	}
	for item := range strings.SplitSeq(v, ",") {
		r, err := parseRange(strings.TrimSpace(item), four)
		if err == nil && f.on() && (!f.address.Contains(r.first) || !f.address.Contains(r.last)) {
			err = fmt.Errorf("%s must lie in the subnet %s", r, f.address.Masked())
		}
		if err != nil {
			return invalidValue(prefix+"dhcp.ranges", v, err)
		}
		f.ranges = append(f.ranges, r)
	}
	return nil
}

// Subnets returns the subnets that a stored configuration gives the network;
// both are zero for a network without addresses. Static addresses of instances
// must lie in them. Errors: Invalid.
func Subnets(cfg map[string]string) (ipv4, ipv6 netip.Prefix, err error) {
	s, err := parseSettings(cfg)
	if err != nil {
		return netip.Prefix{}, netip.Prefix{}, err
	}
	if s.v4.auto || s.v6.auto {
		return netip.Prefix{}, netip.Prefix{}, api.Errorf(api.Internal, "network address \"auto\" was stored without being filled in")
	}
	if s.v4.on() {
		ipv4 = s.v4.address.Masked()
	}
	if s.v6.on() {
		ipv6 = s.v6.address.Masked()
	}
	return ipv4, ipv6, nil
}
