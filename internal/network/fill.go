package network

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// FillConfig completes the configuration of a new network, as LXD does: an
// address that is absent or "auto" becomes a random free subnet
// (10.x.y.1/24, fd42:x:y:z::1/64), and then address translation is switched on
// unless the caller has said otherwise. used are the subnets to keep clear of,
// see [ConnectedSubnets]. The input is not changed.
//
// Errors: Invalid as by [ValidateConfig]; NoSpace when all of 10.0.0.0/8 is used.
func FillConfig(cfg map[string]string, used []netip.Prefix) (map[string]string, error) {
	return fill(cfg, used, func() uint64 {
		var b [8]byte
		rand.Read(b[:]) // never fails, see crypto/rand
		return binary.NativeEndian.Uint64(b[:])
	})
}

func fill(cfg map[string]string, used []netip.Prefix, random func() uint64) (map[string]string, error) {
	if err := ValidateConfig(cfg); err != nil {
		return nil, err
	}
	out := maps.Clone(cfg)
	if out == nil {
		out = map[string]string{}
	}
	for _, f := range []struct {
		prefix string
		choose func([]netip.Prefix, func() uint64) (netip.Prefix, error)
	}{{"ipv4.", freeIPv4}, {"ipv6.", freeIPv6}} {
		if v := out[f.prefix+"address"]; v != "" && v != "auto" {
			continue
		}
		p, err := f.choose(used, random)
		if err != nil {
			return nil, err
		}
		out[f.prefix+"address"] = p.String()
		if out[f.prefix+"nat"] == "" {
			out[f.prefix+"nat"] = "true"
		}
	}
	return out, ValidateConfig(out) // ranges that were given must suit the address chosen
}

// freeIPv4 picks a 10.x.y.0/24 that overlaps no used subnet. It begins at a
// random place and goes through all of them.
func freeIPv4(used []netip.Prefix, random func() uint64) (netip.Prefix, error) {
	start := random()
	for i := range uint64(1 << 16) {
		n := (start + i*40503) % (1 << 16) // odd step: visits every subnet, neighbours are far apart
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}), 24)
		if !overlaps(p, used) {
			return p, nil
		}
	}
	return netip.Prefix{}, api.Errorf(api.NoSpace, "network key ipv4.address: no free /24 in 10.0.0.0/8").
		WithHint("set ipv4.address to a subnet of your own or to none")
}

func freeIPv6(used []netip.Prefix, random func() uint64) (netip.Prefix, error) {
	for range 1000 {
		n := random()
		a := [16]byte{0: 0xfd, 1: 0x42, 15: 1}
		for i := range 6 {
			a[2+i] = byte(n >> (8 * i))
		}
		if p := netip.PrefixFrom(netip.AddrFrom16(a), 64); !overlaps(p, used) {
			return p, nil
		}
	}
	return netip.Prefix{}, api.Errorf(api.NoSpace, "network key ipv6.address: no free /64 in fd42::/16")
}

func overlaps(p netip.Prefix, used []netip.Prefix) bool {
	for _, u := range used {
		if u.IsValid() && u.Bits() > 0 && u.Overlaps(p) {
			return true
		}
	}
	return false
}

// ConnectedSubnets lists the subnets that the host has addresses in or routes
// to, the default routes left out, in all routing tables.
func ConnectedSubnets(ctx context.Context) ([]netip.Prefix, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []netip.Prefix
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IP, a.Mask); ok {
			out = append(out, p.Masked())
		}
	}
	any := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, any, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Type != unix.RTN_UNICAST {
			continue
		}
		if p, ok := prefixOf(r.Dst.IP, r.Dst.Mask); ok && p.Bits() > 0 && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

func prefixOf(ip []byte, mask []byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(ip)
	ones := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			ones++
		}
	}
	a = a.Unmap()
	if !ok || ones > a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}

// Fill is [FillConfig] for this host: it keeps clear of the subnets in use here,
// and a host without IPv6 gets "none" where IPv6 was not asked for.
func (m *Manager) Fill(ctx context.Context, cfg map[string]string) (map[string]string, error) {
	used, err := ConnectedSubnets(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil && (cfg["ipv6.address"] == "" || cfg["ipv6.address"] == "auto") {
		cfg = maps.Clone(cfg)
		if cfg == nil {
			cfg = map[string]string{}
		}
		cfg["ipv6.address"] = "none"
	}
	return FillConfig(cfg, used)
}
