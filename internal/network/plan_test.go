package network

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var testEnv = Env{InstanceID: "0123456789ab", HostID: "host", StateDir: "/var/lib/croft", RunDir: "/run/croft/0123456789ab", User: "dnsmasq", Group: "nogroup"}

var planCases = map[string]map[string]string{
	"both": {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true", "ipv6.address": "fd42:1:2:3::1/64", "ipv6.nat": "true"},
	"none": {"ipv4.address": "none", "ipv6.address": "none"},
	"ipv4-ranges": {"ipv4.address": "10.93.7.1/24", "ipv4.nat": "false", "ipv6.address": "none", "dns.domain": "ldtest",
		"ipv4.dhcp.ranges": "10.93.7.100-10.93.7.199, 10.93.7.210-10.93.7.220", "ipv4.dhcp.expiry": "infinite",
		"ipv4.dhcp.gateway": "10.93.7.254", "bridge.mtu": "9000", "bridge.hwaddr": "00:16:3E:AA:BB:CC", "dns.search": "a.example, b.example"},
	"ipv4-large":     {"ipv4.address": "10.64.0.1/12", "dns.mode": "dynamic"},
	"ipv4-no-dhcp":   {"ipv4.address": "10.1.2.254/24", "ipv4.dhcp": "false", "ipv4.routing": "no", "dns.mode": "none"},
	"ipv4-point":     {"ipv4.address": "10.1.2.1/31", "ipv4.firewall": "false", "ipv4.nat": "true"},
	"ipv6-stateful":  {"ipv6.address": "fd42:1:2:3::1/64", "ipv6.dhcp.stateful": "true"},
	"ipv6-ranges":    {"ipv6.address": "fd42:1:2:3::1/80", "ipv6.dhcp.stateful": "true", "ipv6.dhcp.ranges": "fd42:1:2:3::10-fd42:1:2:3::ff"},
	"ipv6-no-dhcp":   {"ipv6.address": "fd42:1:2:3::1/64", "ipv6.dhcp": "false", "ipv6.routing": "false"},
	"ipv6-too-small": {"ipv6.address": "fd42:1:2:3::1/112"},
	"ipv6-large":     {"ipv6.address": "fd42:1:2::1/48", "ipv6.firewall": "false"},
}

func TestPlanGolden(t *testing.T) {
	for name, cfg := range planCases {
		t.Run(name, func(t *testing.T) {
			p, err := BuildPlan(Config{Name: "croftbr0", Config: cfg}, testEnv)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "plan", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(p.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), p.String()); diff != "" {
				t.Errorf("%s differs (go test -update rewrites it):\n%s", file, diff)
			}
		})
	}
}

// FuzzPlan: no value of any key may become a line of its own, or another word,
// in dnsmasq's configuration or in nft's input.
func FuzzPlan(f *testing.F) {
	for i := range keys {
		f.Add("br0", keys[i].Name, "1\ndhcp-script=/bin/sh")
		f.Add("br0", keys[i].Name, "10.0.0.1/24,x")
	}
	f.Add("a\"b", "user.x", "y")
	lines := regexp.MustCompile(`^(# Made by croftd for the network [a-zA-Z0-9._-]+; changes are overwritten\.|(user|group|pid-file|bind-dynamic|interface|` +
		`except-interface|no-hosts|dns-loop-detect|dns-forward-max|domain|local|interface-name|no-ping|quiet-[a-z0-9]+|dhcp-[a-z-]+|enable-ra|ra-param)` +
		`(=[a-zA-Z0-9_./:,\[\]-]+)?)$`)
	f.Fuzz(func(t *testing.T, name, key, value string) {
		cfg := map[string]string{"ipv4.address": "10.0.0.1/24", "ipv4.nat": "true", "ipv6.address": "fd42::1/64", "ipv6.dhcp.stateful": "true"}
		cfg[key] = value
		p, err := BuildPlan(Config{Name: name, Config: cfg}, testEnv)
		if err != nil {
			return
		}
		for line := range strings.Lines(p.Ruleset) {
			if strings.Count(line, `"`) > 4 || strings.ContainsAny(line, ";") && !strings.HasPrefix(line, "\t\ttype ") {
				t.Errorf("nft: %q", line)
			}
		}
		if p.DNSMasq == nil {
			return
		}
		for line := range strings.Lines(p.DNSMasq.Config) {
			if !lines.MatchString(strings.TrimSuffix(line, "\n")) || strings.Contains(line, "script") && !strings.Contains(value, "script") {
				t.Errorf("dnsmasq: %q", line)
			}
		}
	})
}

func TestPlanRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		env    Env
		kind   api.Kind
	}{
		"a bad name":          {Config{Name: "a/b"}, testEnv, api.Invalid},
		"a bad key":           {Config{Name: "br0", Config: map[string]string{"nope": "1"}}, testEnv, api.Invalid},
		"an unfilled address": {Config{Name: "br0", Config: map[string]string{"ipv4.address": "auto"}}, testEnv, api.Invalid},
		"a line break":        {Config{Name: "br0"}, Env{StateDir: "/a\nb", RunDir: "/run"}, api.Unsupported},
		"a relative path":     {Config{Name: "br0"}, Env{StateDir: "a", RunDir: "/run"}, api.Unsupported},
	} {
		if _, err := BuildPlan(c.config, c.env); !errors.Is(err, c.kind) {
			t.Errorf("%s: got %v, want kind %s", name, err, c.kind)
		}
	}
}

func TestValidateName(t *testing.T) {
	for _, name := range []string{"a", "croftbr0", "lxd-br_0.1", "123456789012345"} {
		if err := ValidateName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "x y", "a/b", "1234567890123456", "-x", ".x", "a\nb", "ä", "br*", "br:1", "all", "default", "none", "a\x00"} {
		if err := ValidateName(name); !errors.Is(err, api.Invalid) {
			t.Errorf("%q: got %v, want Invalid", name, err)
		}
	}
}

func TestValidateConfig(t *testing.T) {
	for key, values := range map[string][]string{
		"bridge.driver":      {"native", ""},
		"bridge.hwaddr":      {"00:16:3e:01:02:03", "00:16:3E:AA:BB:CC"},
		"bridge.mtu":         {"1280", "9000", "68"},
		"dns.domain":         {"lxd", "a-b.example.org", "_x.local"},
		"dns.mode":           {"none", "managed", "dynamic"},
		"dns.search":         {"lxd,example.org", "lxd, example.org"},
		"ipv4.address":       {"none", "auto", "10.0.0.1/24", "10.0.0.0/31", "192.0.2.7/32"},
		"ipv4.nat":           {"true", "false", "1", "0", "yes", "no", "on", "OFF"},
		"ipv4.dhcp.expiry":   {"1h", "3600", "infinite", "2d"},
		"ipv4.dhcp.gateway":  {"10.0.0.254"},
		"ipv6.address":       {"none", "auto", "fd42::1/64", "2001:db8::1/48"},
		"ipv6.dhcp.stateful": {"true"},
		"user.anything":      {"at all"},
		"volatile.x":         {"1"},
	} {
		for _, v := range values {
			if err := ValidateConfig(map[string]string{key: v}); err != nil {
				t.Errorf("%s=%q: %v", key, v, err)
			}
		}
	}
	for key, values := range map[string][]string{
		"bridge.driver":     {"openvswitch"},
		"bridge.hwaddr":     {"00:16:3e", "01:00:5e:00:00:01", "00:00:00:00:00:00", "0016.3e01.0203", "00-16-3e-01-02-03"},
		"bridge.mtu":        {"67", "65536", "+1500", "x", "1500 "},
		"dns.domain":        {"a b", "a/b", "-a", "a..b", "a,b", strings.Repeat("a", 64)},
		"dns.mode":          {"nonsense"},
		"dns.search":        {"a,,b", "a,b c"},
		"ipv4.address":      {"10.0.0.1", "10.0.0.0/24", "10.0.0.255/24", "fd42::1/64", "127.0.0.1/8", "224.0.0.1/24", "0.0.0.0/0", "169.254.0.1/16", "10.0.0.1/33", "x"},
		"ipv4.nat":          {"maybe"},
		"ipv4.dhcp.expiry":  {"0", "1y", "-1", "1h,set:x", "Infinite"},
		"ipv4.dhcp.gateway": {"fd42::1", "x"},
		"ipv4.dhcp.ranges":  {"10.0.0.1", "10.0.0.9-10.0.0.1", "a-b", "10.0.0.1-fd42::1", "10.0.0.1-10.0.0.2,"},
		"ipv6.address":      {"10.0.0.1/24", "fe80::1/64", "ff02::1/64", "fd42::/64", "::ffff:10.0.0.1/120", "fd42::1%eth0/64"},
		"ipv6.dhcp.ranges":  {"fd42::1%a-fd42::2"},
		"raw.dnsmasq":       {"x"},
		"ipv4.nat.order":    {"before"},
		"user.":             {"x"},
		"":                  {"x"},
		"user.a":            {"a\nb", "a\rb", "a\x00"},
		"user.a\nb":         {"x"},
	} {
		for _, v := range values {
			err := ValidateConfig(map[string]string{key: v})
			if !errors.Is(err, api.Invalid) {
				t.Errorf("%s=%q: got %v, want Invalid", key, v, err)
				continue
			}
			if !strings.Contains(err.Error(), strings.SplitN(key, "\n", 2)[0]) {
				t.Errorf("%s=%q: the error does not name the key: %v", key, v, err)
			}
		}
	}
	for _, cfg := range []map[string]string{
		{"ipv4.address": "10.0.0.1/24", "ipv4.dhcp.ranges": "10.0.1.2-10.0.1.9"},
		{"ipv4.address": "10.0.0.1/24", "ipv4.dhcp.gateway": "10.0.1.1"},
		{"ipv6.address": "fd42::1/64", "ipv6.dhcp.ranges": "fd43::1-fd43::2"},
		{"ipv6.address": "fd42::1/64", "bridge.mtu": "1000"},
	} {
		if err := ValidateConfig(cfg); !errors.Is(err, api.Invalid) {
			t.Errorf("%v: got %v, want Invalid", cfg, err)
		}
	}
}

func TestKeysAreSorted(t *testing.T) {
	all := Keys()
	for i := 1; i < len(all); i++ {
		if all[i-1].Name >= all[i].Name {
			t.Errorf("%s comes before %s", all[i-1].Name, all[i].Name)
		}
	}
}

func TestFill(t *testing.T) {
	zero := func() uint64 { return 0 }
	used := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("0.0.0.0/0")}
	for name, c := range map[string]struct{ in, want map[string]string }{
		"empty": {nil, map[string]string{"ipv4.address": "10.158.55.1/24", "ipv4.nat": "true", "ipv6.address": "fd42::1/64", "ipv6.nat": "true"}},
		"auto and no nat": {
			map[string]string{"ipv4.address": "auto", "ipv4.nat": "false", "ipv6.address": "none"},
			map[string]string{"ipv4.address": "10.158.55.1/24", "ipv4.nat": "false", "ipv6.address": "none"},
		},
		"given": {
			map[string]string{"ipv4.address": "10.9.9.1/24", "ipv6.address": "none", "user.x": "y"},
			map[string]string{"ipv4.address": "10.9.9.1/24", "ipv6.address": "none", "user.x": "y"},
		},
	} {
		got, err := fill(c.in, used, zero)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := fill(nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, zero); !errors.Is(err, api.NoSpace) {
		t.Errorf("all of 10/8 in use: %v", err)
	}
	almost := []netip.Prefix{} // all of 10/8 but 10.18.103.0/24
	free := netip.MustParseAddr("10.18.103.0")
	for bits := 24; bits > 8; bits-- {
		sibling := free.As4()
		bit := bits - 1
		sibling[bit/8] ^= 0x80 >> (bit % 8)
		almost = append(almost, netip.PrefixFrom(netip.AddrFrom4(sibling), bits).Masked())
	}
	if p, err := freeIPv4(almost, zero); err != nil || p.String() != "10.18.103.1/24" {
		t.Errorf("the last free subnet: got %v, %v", p, err)
	}
}

func TestStableMAC(t *testing.T) {
	a, b := stableMAC(testEnv, "br0"), stableMAC(testEnv, "br1")
	if a == b || a != stableMAC(testEnv, "br0") || !strings.HasPrefix(a, "00:16:3e:") || checkMAC(a) != nil {
		t.Errorf("got %s and %s", a, b)
	}
}
