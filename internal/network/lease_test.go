package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/croft-project/croft/api"
)

const mac1, mac2 = "00:16:3e:00:00:01", "00:16:3e:00:00:02"

// leaseSample was written by dnsmasq 2.90 (lines of DHCPv4, the server's DUID,
// lines of DHCPv6), with an own last line that is cut short.
const leaseSample = `1700003600 00:16:3e:00:00:01 10.93.7.165 c1 *
0 00:16:3e:00:00:02 10.93.7.170 * ff:00:00:00:02
1600000000 00:16:3e:00:00:09 10.93.7.171 old *
1700003600 06-00:16:3e:00:00:0a 10.93.7.172 odd *
duid 00:01:00:01:32:96:c1:45:9a:29:d7:dd:80:1f
1700003600 1040187393 fd42:93:7:2::1a0 c1 00:01:00:01:32:96:c1:45:00:16:3e:00:00:01
1700003600 T7 fd42:93:7:2::1a1 * 00:03:00:01:00:16:3e:00:00:02
1700003600 8 fd42:93:7:2::1a2 c3 00:02:00:00:ab:11:01
1700003600 00:16:3e:00:00`

func TestParseLeaseFile(t *testing.T) {
	file := parseLeaseFile([]byte(leaseSample))
	if len(file.leases) != 7 || len(file.duid) != 14 {
		t.Fatalf("got %d leases, duid %x", len(file.leases), file.duid)
	}
	if l := file.leases[1]; !l.expiry.IsZero() || l.hostname != "" || l.mac != mac2 {
		t.Errorf("infinite lease: %+v", l)
	}
	if l := file.leases[3]; l.mac != "00:16:3e:00:00:0a" {
		t.Errorf("lease with a hardware type: %+v", l)
	}
	if l := file.leases[4]; l.mac != mac1 || l.iaid != 1040187393 || l.temp {
		t.Errorf("DHCPv6 lease: %+v", l)
	}
	if l := file.leases[5]; l.mac != mac2 || !l.temp || l.iaid != 7 {
		t.Errorf("temporary DHCPv6 lease: %+v", l)
	}
	if l := file.leases[6]; l.mac != "" || l.hostname != "c3" {
		t.Errorf("DHCPv6 lease of an enterprise DUID: %+v", l)
	}
}

func TestMergeLeases(t *testing.T) {
	static := map[string]StaticLease{}
	for _, l := range []StaticLease{
		{Instance: "renamed", MAC: mac1},
		{Instance: "fixed", MAC: "00:16:3E:00:00:0F", IPv4: netip.MustParseAddr("10.93.7.50")},
	} {
		static[l.fileName()] = l
	}
	p := &Plan{Name: "br0", Gateway4: netip.MustParseAddr("10.93.7.1"), Gateway6: netip.MustParsePrefix("fd42:93:7:2::1/64")}
	got := mergeLeases(p, static, parseLeaseFile([]byte(leaseSample)).leases, time.Unix(1700000000, 0))
	addr := netip.MustParseAddr
	want := []Lease{
		{"br0.gw", "", addr("10.93.7.1"), "gateway"},
		{"br0.gw", "", addr("fd42:93:7:2::1"), "gateway"},
		{"fixed", "00:16:3e:00:00:0f", addr("10.93.7.50"), "static"},
		{"renamed", mac1, addr("10.93.7.165"), "dynamic"},
		{"", mac2, addr("10.93.7.170"), "dynamic"},
		{"odd", "00:16:3e:00:00:0a", addr("10.93.7.172"), "dynamic"},
		{"renamed", mac1, addr("fd42:93:7:2::1a0"), "dynamic"},
		{"", mac2, addr("fd42:93:7:2::1a1"), "dynamic"},
		{"c3", "", addr("fd42:93:7:2::1a2"), "dynamic"},
		{"renamed", mac1, addr("fd42:93:7:2:216:3eff:fe00:1"), "dynamic"},
		{"fixed", "00:16:3e:00:00:0f", addr("fd42:93:7:2:216:3eff:fe00:f"), "dynamic"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

// FuzzLeaseFile: what a client managed to get into the file must not harm the
// reader, and names must stay single words.
func FuzzLeaseFile(f *testing.F) {
	f.Add([]byte(leaseSample))
	f.Add([]byte("duid \n0 - 1.2.3.4 * *\n9999999999999999999 a b c d"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := parseLeaseFile(b)
		for _, l := range file.leases {
			if !l.addr.IsValid() || strings.ContainsAny(l.hostname, " \t\n") {
				t.Errorf("%+v", l)
			}
			if l.addr.Is4() {
				if p, err := release4(l, l.addr); err != nil || len(p) != 300 {
					t.Errorf("%+v: release of %d bytes, %v", l, len(p), err)
				}
			} else if p := release6(l, file.duid); len(p) < 48 {
				t.Errorf("%+v: release of %d bytes", l, len(p))
			}
		}
		mergeLeases(&Plan{Name: "br0"}, nil, file.leases, time.Unix(0, 0))
	})
}

func TestStaticLeaseValidate(t *testing.T) {
	good := StaticLease{Instance: "c1", Device: "eth/0\n", MAC: mac1, IPv4: netip.MustParseAddr("10.0.0.1"), IPv6: netip.MustParseAddr("fd42::1")}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if name := good.fileName(); strings.ContainsAny(name, "/\n") || name[0] == '.' {
		t.Errorf("file name %q", name)
	}
	if got, want := good.line(true), mac1+",10.0.0.1,[fd42::1],c1\n"; got != want {
		t.Errorf("line: got %q, want %q", got, want)
	}
	if got := (StaticLease{Instance: "c1", MAC: mac1}).line(false); got != "" {
		t.Errorf("line without name and addresses: %q", got)
	}
	for name, change := range map[string]func(*StaticLease){
		"name with a line break": func(l *StaticLease) { l.Instance = "a\nb" },
		"name with a comma":      func(l *StaticLease) { l.Instance = "a,set:x" },
		"no name":                func(l *StaticLease) { l.Instance = "" },
		"path":                   func(l *StaticLease) { l.Instance = "../x" },
		"mac":                    func(l *StaticLease) { l.MAC = "00:16:3e:00:00:01,x" },
		"families":               func(l *StaticLease) { l.IPv4 = l.IPv6 },
		"zone":                   func(l *StaticLease) { l.IPv6 = netip.MustParseAddr("fe80::1%eth0") },
		"mapped":                 func(l *StaticLease) { l.IPv6 = netip.MustParseAddr("::ffff:1.2.3.4") },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); !errors.Is(err, api.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
}

// TestHostFiles drives the directory of reservations without a dnsmasq.
func TestHostFiles(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	m := New(Deps{StateDir: dir, RunDir: dir})
	defer m.Detach()
	hosts := filepath.Join(dir, "br0", "hosts")
	a := StaticLease{Instance: "a", Device: "eth0", MAC: mac1}
	b := StaticLease{Instance: "b", Device: "eth0", MAC: mac2, IPv4: netip.MustParseAddr("10.1.2.3")}
	n := m.network("br0")
	plan := func(mode string) {
		t.Helper()
		p, err := BuildPlan(Config{Name: "br0", Config: map[string]string{"ipv4.address": "10.1.2.1/24", "dns.mode": mode}}, m.env)
		if err != nil {
			t.Fatal(err)
		}
		n.plan = p
		if err := n.syncHosts(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(step string, want map[string]string) {
		t.Helper()
		got := map[string]string{}
		entries, err := os.ReadDir(hosts)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			content, err := os.ReadFile(filepath.Join(hosts, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got[e.Name()] = string(content)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", step, diff)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.MkdirAll(hosts, 0o755))
	do(os.WriteFile(filepath.Join(hosts, "earlier"), []byte("x"), 0o644))
	do(m.SetLease(ctx, "br0", a)) // before the network runs
	plan("managed")
	check("the files of an earlier daemon stay until the set is known", map[string]string{"earlier": "x", a.fileName(): mac1 + ",a\n"})
	do(m.SetLeases(ctx, "br0", []StaticLease{a, b}))
	check("complete set", map[string]string{a.fileName(): mac1 + ",a\n", b.fileName(): mac2 + ",10.1.2.3,b\n"})
	plan("none")
	check("no names", map[string]string{b.fileName(): mac2 + ",10.1.2.3\n"})
	plan("managed")
	do(m.DeleteLease(ctx, "br0", StaticLease{Instance: "b", Device: "eth0"}))
	do(m.DeleteLease(ctx, "br0", StaticLease{Instance: "nobody", Device: "eth0"}))
	check("one deleted", map[string]string{a.fileName(): mac1 + ",a\n"})
	if err := m.SetLeases(ctx, "br0", []StaticLease{b, {Instance: "x y"}}); !errors.Is(err, api.Invalid) {
		t.Errorf("a set with an invalid lease: %v", err)
	}
	check("a refused set changes nothing", map[string]string{a.fileName(): mac1 + ",a\n"})
	if _, err := m.Leases(ctx, "other"); !errors.Is(err, api.NotFound) {
		t.Errorf("leases of an unknown network: %v", err)
	}
}

func BenchmarkSetLease(b *testing.B) {
	dir := b.TempDir()
	m := New(Deps{StateDir: dir, RunDir: dir})
	defer m.Detach()
	p, err := BuildPlan(Config{Name: "br0", Config: map[string]string{"ipv4.address": "10.1.2.1/24"}}, m.env)
	if err != nil {
		b.Fatal(err)
	}
	n := m.network("br0")
	n.plan = p
	if err := n.syncHosts(); err != nil {
		b.Fatal(err)
	}
	l := StaticLease{Instance: "c1", Device: "eth0", MAC: mac1}
	for b.Loop() {
		if err := m.SetLease(context.Background(), "br0", l); err != nil {
			b.Fatal(err)
		}
		if err := m.DeleteLease(context.Background(), "br0", l); err != nil {
			b.Fatal(err)
		}
	}
}
