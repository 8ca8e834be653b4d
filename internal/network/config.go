package network

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/croft-project/croft/api"
)

// Config is a managed network as it is stored.
type Config struct {
	Name        string
	Description string
	Config      map[string]string
}

// ValidateName checks the name of a network, which is the name of its interface
// and part of file names: one to fifteen of the characters a-z, A-Z, 0-9, '-',
// '_' and '.'. Errors: Invalid.
func ValidateName(name string) error {
	const allowed = "allowed are 1 to 15 of the characters a-z A-Z 0-9 - _ ., beginning with a letter or digit"
	if !nameRE.MatchString(name) {
		return api.Errorf(api.Invalid, "network name %q is not valid: %s", name, allowed)
	}
	if name == "all" || name == "default" || name == "none" { // directories of /proc/sys/net/ipv*/conf; a value of keys
		return api.Errorf(api.Invalid, "network name %q is reserved", name)
	}
	return nil
}

// IFNAMSIZ is 16 with the terminating NUL. The first character keeps names out
// of the way of options and hidden files.
var nameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}$`)

// A Key describes one configuration key of a bridge.
type Key struct {
	Name    string // "ipv4.nat"
	Type    string // "string", "bool" or "integer"
	Default string
	Doc     string
	check   func(string) error
}

// Keys lists the configuration keys of a bridge, sorted by name. Free-form keys
// (user.*) and the daemon's own (volatile.*) come on top.
func Keys() []Key { return slices.Clone(keys) }

var keys = []Key{
	{"bridge.driver", "string", "native", "kind of bridge", oneOf("native")},
	{"bridge.hwaddr", "string", "derived from host and name", "MAC address of the bridge", checkMAC},
	{"bridge.mtu", "integer", "1500", "MTU of the bridge", intBetween(68, 65535)},
	{"dns.domain", "string", "lxd", "domain of the instances' names", checkDomain},
	{"dns.mode", "string", "managed", "who names instances in DNS: managed (the daemon), dynamic (the DHCP client) or none", oneOf("dynamic", "managed", "none")},
	{"dns.search", "string", "dns.domain", "comma-separated domains that DHCP clients search", listOf(checkDomain)},
	{"ipv4.address", "string", "auto on creation", "address of the bridge in CIDR notation, auto or none", checkAddress4},
	{"ipv4.dhcp", "bool", "true", "whether addresses are given out over DHCP", checkBool},
	{"ipv4.dhcp.expiry", "string", "1h", "life of a DHCP lease", checkExpiry},
	{"ipv4.dhcp.gateway", "string", "the bridge", "router that DHCP clients are told", checkIP4},
	{"ipv4.dhcp.ranges", "string", "the whole subnet", "comma-separated FIRST-LAST ranges for DHCP", listOf(checkRange4)},
	{"ipv4.firewall", "bool", "true", "whether rules that let the network's traffic pass are made", checkBool},
	{"ipv4.nat", "bool", "false", "whether the network's addresses are hidden behind the host's", checkBool},
	{"ipv4.routing", "bool", "true", "whether the host forwards the network's traffic", checkBool},
	{"ipv6.address", "string", "auto on creation", "address of the bridge in CIDR notation, auto or none", checkAddress6},
	{"ipv6.dhcp", "bool", "true", "whether DHCPv6 gives out options (and addresses when stateful)", checkBool},
	{"ipv6.dhcp.expiry", "string", "1h", "life of a DHCPv6 lease", checkExpiry},
	{"ipv6.dhcp.ranges", "string", "the whole subnet", "comma-separated FIRST-LAST ranges for stateful DHCPv6", listOf(checkRange6)},
	{"ipv6.dhcp.stateful", "bool", "false", "whether DHCPv6 gives out addresses", checkBool},
	{"ipv6.firewall", "bool", "true", "whether rules that let the network's traffic pass are made", checkBool},
	{"ipv6.nat", "bool", "false", "whether the network's addresses are hidden behind the host's", checkBool},
	{"ipv6.routing", "bool", "true", "whether the host forwards the network's traffic", checkBool},
}

// ValidateConfig checks the keys and values of a bridge and that they agree
// with each other. An empty value stands for the default. Errors: Invalid,
// naming the key, the value and what is allowed.
func ValidateConfig(cfg map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(cfg)) {
		if err := validateKey(name, cfg[name]); err != nil {
			return err
		}
	}
	_, err := parseSettings(cfg)
	return err
}

func validateKey(name, value string) error {
	if strings.ContainsAny(name, "\n\r\x00") || strings.ContainsAny(value, "\n\r\x00") {
		return api.Errorf(api.Invalid, "network key %q: line breaks and NUL are not allowed", name)
	}
	for _, prefix := range []string{"user.", "volatile."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" {
			return nil
		}
	}
	i, ok := slices.BinarySearchFunc(keys, name, func(k Key, n string) int { return strings.Compare(k.Name, n) })
	if !ok {
		return api.Errorf(api.Invalid, "network key %q is not known", name).
			WithHint("keys of a bridge: %s, user.*", strings.Join(keyNames(), ", "))
	}
	if value == "" {
		return nil
	}
	if err := keys[i].check(value); err != nil {
		return invalidValue(name, value, err)
	}
	return nil
}

func invalidValue(key, value string, why error) error {
	return api.Errorf(api.Invalid, "network key %s: %q is not valid: %w", key, value, why)
}

func keyNames() []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
	}
	return names
}

func oneOf(allowed ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(allowed, v) {
			return fmt.Errorf("allowed: %s", strings.Join(allowed, ", "))
		}
		return nil
	}
}

func intBetween(low, high int) func(string) error {
	return func(v string) error {
		if n, err := strconv.Atoi(v); err != nil || n < low || n > high || strings.HasPrefix(v, "+") {
			return fmt.Errorf("allowed: a number from %d to %d", low, high)
		}
		return nil
	}
}

func listOf(check func(string) error) func(string) error {
	return func(v string) error {
		for item := range strings.SplitSeq(v, ",") {
			if err := check(strings.TrimSpace(item)); err != nil {
				return fmt.Errorf("%q: %w", item, err)
			}
		}
		return nil
	}
}

func checkBool(v string) error {
	_, err := parseBool(v)
	return err
}

func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "true", "1", "yes", "on":
		return true, nil
	case "false", "0", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("allowed: true, false")
}

func checkMAC(v string) error {
	mac, err := net.ParseMAC(v)
	if err != nil || len(mac) != 6 || len(v) != 17 || !strings.Contains(v, ":") {
		return fmt.Errorf("allowed: six octets like 00:16:3e:12:34:56")
	}
	if mac[0]&1 != 0 || [6]byte(mac) == [6]byte{} {
		return fmt.Errorf("allowed: a unicast address other than zero")
	}
	return nil
}

// domainRE is a DNS name of letters, digits and hyphens, RFC 1123.
var domainRE = regexp.MustCompile(`^([a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*$`)

func checkDomain(v string) error {
	if len(v) > 253 || !domainRE.MatchString(v) {
		return fmt.Errorf("allowed: a domain name such as lxd or lab.example.org")
	}
	return nil
}

// expiryRE is what dnsmasq's --dhcp-range takes as a lease time.
var expiryRE = regexp.MustCompile(`^([1-9][0-9]{0,8}[smhdw]?|infinite)$`)

func checkExpiry(v string) error {
	if !expiryRE.MatchString(v) {
		return fmt.Errorf("allowed: seconds, a number with s, m, h, d or w, or infinite")
	}
	return nil
}

func checkAddress4(v string) error {
	if v == "none" || v == "auto" {
		return nil
	}
	_, err := parseGateway(v, true)
	return err
}

func checkAddress6(v string) error {
	if v == "none" || v == "auto" {
		return nil
	}
	_, err := parseGateway(v, false)
	return err
}

// parseGateway reads the bridge's own address: a usable host address with the
// length of its subnet.
func parseGateway(v string, four bool) (netip.Prefix, error) {
	example, family := "fd42:1:2:3::1/64", "IPv6"
	if four {
		example, family = "10.1.2.1/24", "IPv4"
	}
	p, err := netip.ParsePrefix(v)
	a := p.Addr()
	switch {
	case err != nil || a.Is4() != four || a.Is4In6():
		return netip.Prefix{}, fmt.Errorf("allowed: an %s address with its prefix length such as %s, auto, none", family, example)
	case a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() || p.Bits() < 3:
		return netip.Prefix{}, fmt.Errorf("%s is not an address a subnet of hosts can have", v)
	case four && p.Bits() < 31 && (a == p.Masked().Addr() || a == lastAddr(p)):
		return netip.Prefix{}, fmt.Errorf("%s is the network or broadcast address of its subnet", a)
	case !four && p.Bits() < 127 && a == p.Masked().Addr():
		return netip.Prefix{}, fmt.Errorf("%s is the address of the subnet itself", a)
	}
	return p, nil
}

func checkIP4(v string) error {
	if a, err := netip.ParseAddr(v); err != nil || !a.Is4() {
		return fmt.Errorf("allowed: an IPv4 address")
	}
	return nil
}

func checkRange4(v string) error { _, err := parseRange(v, true); return err }
func checkRange6(v string) error { _, err := parseRange(v, false); return err }

// addrRange is an inclusive range of addresses.
type addrRange struct{ first, last netip.Addr }

func (r addrRange) String() string { return r.first.String() + "-" + r.last.String() }

func parseRange(v string, four bool) (addrRange, error) {
	first, last, ok := strings.Cut(v, "-")
	a, err1 := netip.ParseAddr(strings.TrimSpace(first))
	b, err2 := netip.ParseAddr(strings.TrimSpace(last))
	if !ok || err1 != nil || err2 != nil || a.Is4() != four || b.Is4() != four || a.Zone() != "" || b.Zone() != "" {
		return addrRange{}, fmt.Errorf("allowed: FIRST-LAST addresses")
	}
	if b.Less(a) {
		return addrRange{}, fmt.Errorf("the first address comes after the last")
	}
	return addrRange{a, b}, nil
}

// lastAddr is the highest address of p's subnet.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
