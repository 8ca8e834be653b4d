//go:build system

package network

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

func parseMAC(s string) (net.HardwareAddr, error) { return net.ParseMAC(s) }

func TestBridge(t *testing.T) {
	m, dir := testManager(t)
	ctx := testContext(t)
	must(t, m.SetLease(ctx, testConfig.Name, StaticLease{Instance: "early", Device: "eth0", MAC: mac2})) // before Start
	start(t, m, testConfig)

	static := StaticLease{Instance: "fixed", Device: "eth0", MAC: "00:16:3e:00:00:03", IPv4: netip.MustParseAddr("10.93.7.50")}
	must(t, m.SetLease(ctx, testConfig.Name, StaticLease{Instance: "c1", Device: "eth0", MAC: mac1}))
	must(t, m.SetLease(ctx, testConfig.Name, static))

	c1 := newClient(t, testConfig.Name, mac1)
	four := c1.dhcp()
	if four.Less(netip.MustParseAddr("10.93.7.100")) || netip.MustParseAddr("10.93.7.199").Less(four) {
		t.Errorf("address %s is outside the range", four)
	}
	six := c1.address("inet6")
	if want := eui64Of(netip.MustParsePrefix("fd42:93:7:1::/64"), mac1); six != want {
		t.Errorf("IPv6 address: got %s, want %s", six, want)
	}
	early := newClient(t, testConfig.Name, mac2).dhcp()
	c3 := newClient(t, testConfig.Name, static.MAC)
	if got := c3.dhcp(); got != static.IPv4 {
		t.Errorf("reserved address: got %s, want %s", got, static.IPv4)
	}

	if out := c3.run("busybox", "nslookup", "c1.lxd", "10.93.7.1"); !strings.Contains(out, four.String()) {
		t.Errorf("c1.lxd does not resolve to %s:\n%s", four, out)
	}
	if out := c3.run("busybox", "nslookup", "early.lxd", "fd42:93:7:1::1"); !strings.Contains(out, early.String()) {
		t.Errorf("early.lxd does not resolve to %s:\n%s", early, out)
	}
	if out, err := c3.try("busybox", "nslookup", "thief.lxd", "10.93.7.1"); err == nil || !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("a client named itself in DNS: %v\n%s", err, out)
	}
	if out := c3.run("busybox", "nslookup", "_gateway.lxd", "10.93.7.1"); !strings.Contains(out, "10.93.7.1") {
		t.Errorf("_gateway.lxd does not resolve:\n%s", out)
	}

	rules := command(t, "nft", "list", "table", "inet", tableName(m.env.InstanceID, testConfig.Name))
	for _, want := range []string{"ip saddr 10.93.7.0/24 ip daddr != 10.93.7.0/24 masquerade", "ip6 saddr fd42:93:7:1::/64"} {
		if !strings.Contains(rules, want) {
			t.Errorf("no rule %q in\n%s", want, rules)
		}
	}
	leases, err := m.Leases(ctx, testConfig.Name)
	must(t, err)
	want := Lease{Hostname: "c1", MAC: mac1, Address: four, Type: "dynamic"}
	if !slices.Contains(leases, want) || leases[0].Type != "gateway" {
		t.Errorf("leases: want %+v in %+v", want, leases)
	}
	checkState(t, m)

	must(t, m.DeleteLease(ctx, testConfig.Name, StaticLease{Instance: "c1", Device: "eth0"}))
	eventually(t, "the lease of c1 is given back", func() bool {
		file, err := readLeaseFile(filepath.Join(dir, "networks", testConfig.Name, "dnsmasq.leases"))
		must(t, err)
		return !slices.ContainsFunc(file.leases, func(l dnsmasqLease) bool { return l.mac == mac1 })
	})

	must(t, m.Stop(ctx, testConfig.Name))
	mustBeGone(t, m, dir)
}

func checkState(t *testing.T, m *Manager) {
	t.Helper()
	state, err := m.State(testContext(t), testConfig.Name)
	must(t, err)
	if state.Type() != "broadcast" || state.State() != "up" || state.MTU != 1500 || state.Bridge == nil ||
		len(state.Ports) != 3 || state.Counters.RxPackets == 0 || len(state.Addrs) < 3 {
		t.Errorf("state of the bridge: %+v %+v", state, state.Bridge)
	}
	if lo, err := m.State(testContext(t), "lo"); err != nil || lo.HostType() != "loopback" || lo.MTU != 65536 {
		t.Errorf("state of lo: %+v, %v", lo, err)
	}
	if _, err := m.State(testContext(t), "nosuch"); !errors.Is(err, api.NotFound) {
		t.Errorf("state of an absent interface: %v", err)
	}
}

// TestStatefulIPv6: addresses over DHCPv6, and given back when the NIC goes.
func TestStatefulIPv6(t *testing.T) {
	m, dir := testManager(t)
	ctx := testContext(t)
	c := Config{Name: "crofttest0", Config: map[string]string{
		"ipv4.address": "none", "ipv6.address": "fd42:93:7:2::1/64", "ipv6.dhcp.stateful": "true",
		"ipv6.dhcp.ranges": "fd42:93:7:2::100-fd42:93:7:2::1ff",
	}}
	nic := StaticLease{Instance: "c1", Device: "eth0", MAC: mac1}
	must(t, m.SetLease(ctx, c.Name, nic))
	start(t, m, c)
	n := newClient(t, c.Name, mac1)
	eventually(t, "the client has a default route by advertisement", func() bool {
		return strings.Contains(n.run("ip", "-6", "route"), "default via fe80::")
	})
	addr := n.dhcp6()
	if r := (addrRange{netip.MustParseAddr("fd42:93:7:2::100"), netip.MustParseAddr("fd42:93:7:2::1ff")}); addr.Less(r.first) || r.last.Less(addr) {
		t.Errorf("address %s is outside %s", addr, r)
	}
	want := Lease{Hostname: "c1", MAC: mac1, Address: addr, Type: "dynamic"}
	leases, err := m.Leases(ctx, c.Name)
	must(t, err)
	if !slices.Contains(leases, want) {
		t.Errorf("no %+v in %+v", want, leases)
	}
	must(t, m.DeleteLease(ctx, c.Name, nic))
	eventually(t, "the lease is given back", func() bool {
		leases, err := m.Leases(ctx, c.Name)
		must(t, err)
		return len(leases) == 1
	})
	must(t, m.Stop(ctx, c.Name))
	mustBeGone(t, m, dir)
}

// TestForeignDrop: Docker's chains as iptables makes them, and a container that
// reaches another network through the host in spite of them.
func TestForeignDrop(t *testing.T) {
	m, dir := testManager(t)
	ctx := testContext(t)
	for _, rule := range []string{"-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-P FORWARD DROP", "-P INPUT DROP"} {
		command(t, append([]string{"iptables"}, strings.Fields(rule)...)...)
	}
	t.Cleanup(func() {
		for _, rule := range []string{"-P INPUT ACCEPT", "-P FORWARD ACCEPT", "-F", "-X"} {
			command(t, append([]string{"iptables"}, strings.Fields(rule)...)...)
		}
	})
	before := command(t, "iptables", "-S")
	start(t, m, testConfig)
	must(t, m.Start(ctx, testConfig)) // nothing twice
	why, err := m.ForeignDrop(ctx)
	if err != nil || len(why) != 1 || !strings.Contains(why[0], "DOCKER-USER") {
		t.Errorf("got %q, %v", why, err)
	}
	other := Config{Name: "crofttest1", Config: map[string]string{"ipv4.address": "10.93.9.1/24", "ipv6.address": "none"}}
	start(t, m, other)
	a, b := newClient(t, testConfig.Name, mac1), newClient(t, other.Name, mac2)
	a.dhcp() // through the INPUT chain that drops
	a.run("busybox", "ping", "-c", "1", "-W", "5", b.dhcp().String())
	if rules := command(t, "iptables", "-S"); strings.Count(rules, "-A DOCKER-USER") != 4 {
		t.Errorf("rules:\n%s", rules)
	}
	must(t, m.Stop(ctx, testConfig.Name))
	must(t, m.Stop(ctx, other.Name))
	if after := command(t, "iptables", "-S"); after != before {
		t.Errorf("rules before:\n%s\nafter:\n%s", before, after)
	}
	mustBeGone(t, m, dir)
}

func TestStartIsIdempotentAndAdjusts(t *testing.T) {
	m, _ := testManager(t)
	ctx := testContext(t)
	start(t, m, testConfig)
	before := dnsmasqPIDs(t, m)
	must(t, m.Start(ctx, testConfig))
	if after := dnsmasqPIDs(t, m); !slices.Equal(before, after) || len(after) != 1 {
		t.Errorf("the same configuration again: dnsmasq %v became %v", before, after)
	}
	changed := Config{Name: testConfig.Name, Config: map[string]string{"ipv4.address": "10.93.8.1/24", "ipv6.address": "none", "bridge.mtu": "1400"}}
	must(t, m.Start(ctx, changed))
	state, err := m.State(ctx, changed.Name)
	must(t, err)
	for _, a := range state.Addrs {
		if a.Family() == "inet" && a.Addr.String() != "10.93.8.1/24" || a.Family() == "inet6" && a.Scope == "global" {
			t.Errorf("address %s is left", a.Addr)
		}
	}
	if state.MTU != 1400 {
		t.Errorf("mtu: got %d, want 1400", state.MTU)
	}
	if after := dnsmasqPIDs(t, m); len(after) != 1 || after[0] == before[0] {
		t.Errorf("another configuration: dnsmasq %v became %v", before, after)
	}
	if addr := newClient(t, changed.Name, mac1).dhcp(); !netip.MustParsePrefix("10.93.8.0/24").Contains(addr) {
		t.Errorf("address by DHCP: %s", addr)
	}
	must(t, m.Start(ctx, testConfig))
	if state, err := m.State(ctx, changed.Name); err != nil || state.MTU != 1500 || !hasAddr(state, "10.93.7.1/24") || hasAddr(state, "10.93.8.1/24") {
		t.Errorf("back to the first configuration: %+v, %v", state, err)
	}
	none := Config{Name: testConfig.Name, Config: map[string]string{"ipv4.address": "none", "ipv6.address": "none"}}
	must(t, m.Start(ctx, none))
	if after := dnsmasqPIDs(t, m); len(after) != 0 {
		t.Errorf("dnsmasq %v runs for a network without addresses", after)
	}
}

func hasAddr(i Interface, addr string) bool {
	return slices.ContainsFunc(i.Addrs, func(a linux.NetAddr) bool { return a.Addr.String() == addr })
}

// TestPortTaken: another program has the DNS port of the bridge; Start says so,
// and DHCP begins once it is free.
func TestPortTaken(t *testing.T) {
	m, _ := testManager(t)
	conn, err := net.ListenPacket("udp4", "0.0.0.0:53")
	must(t, err)
	defer conn.Close()
	t.Cleanup(func() { must(t, m.Stop(context.Background(), testConfig.Name)) })
	err = m.Start(testContext(t), testConfig)
	if !errors.Is(err, api.BadState) || api.HintOf(err) == "" {
		t.Fatalf("Start with a taken port: %v, hint %q", err, api.HintOf(err))
	}
	must(t, conn.Close())
	newClient(t, testConfig.Name, mac1).dhcp()
}

// TestForeignLinkIsLeftAlone: neither a bridge of somebody else nor one of
// another daemon may be taken over or removed.
func TestForeignLinkIsLeftAlone(t *testing.T) {
	m, dir := testManager(t)
	ctx := testContext(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = testConfig.Name
	br := &netlink.Bridge{LinkAttrs: attrs}
	must(t, netlink.LinkAdd(br))
	defer netlink.LinkDel(br)
	if err := m.Start(ctx, testConfig); !errors.Is(err, api.Conflict) {
		t.Errorf("Start on a foreign bridge: %v", err)
	}
	must(t, m.Stop(ctx, testConfig.Name))
	if _, err := netlink.LinkByName(testConfig.Name); err != nil {
		t.Error("Stop removed a foreign bridge")
	}
	mustBeGone(t, m, dir)
}

func TestTwoDaemons(t *testing.T) {
	a, dirA := testManager(t)
	b, dirB := testManager(t)
	ctx := testContext(t)
	other := Config{Name: "crofttest1", Config: map[string]string{"ipv4.address": "10.93.9.1/24", "ipv6.address": "none"}}
	start(t, a, testConfig)
	start(t, b, other)
	if err := b.Start(ctx, testConfig); !errors.Is(err, api.Conflict) {
		t.Errorf("one daemon started the other's bridge: %v", err)
	}
	must(t, b.Stop(ctx, testConfig.Name))
	must(t, a.Stop(ctx, testConfig.Name))
	mustBeGone(t, a, dirA)
	if addr := newClient(t, other.Name, mac1).dhcp(); !netip.MustParsePrefix("10.93.9.0/24").Contains(addr) {
		t.Errorf("address by DHCP: %s", addr)
	}
	must(t, b.Stop(ctx, other.Name))
	mustBeGone(t, b, dirB)
}

// TestSupervised: a dnsmasq that dies is replaced, and the leases are still known.
func TestSupervised(t *testing.T) {
	m, _ := testManager(t)
	ctx := testContext(t)
	must(t, m.SetLease(ctx, testConfig.Name, StaticLease{Instance: "c1", Device: "eth0", MAC: mac1}))
	start(t, m, testConfig)
	c1 := newClient(t, testConfig.Name, mac1)
	addr := c1.dhcp()
	pids := dnsmasqPIDs(t, m)
	must(t, syscall.Kill(pids[0], syscall.SIGKILL))
	eventually(t, "another dnsmasq runs", func() bool {
		now := dnsmasqPIDs(t, m)
		return len(now) == 1 && now[0] != pids[0]
	})
	eventually(t, "c1.lxd resolves", func() bool {
		out, _ := c1.try("busybox", "nslookup", "c1.lxd", "10.93.7.1")
		return strings.Contains(out, addr.String())
	})
	if again := c1.dhcp(); again != addr {
		t.Errorf("the address changed from %s to %s", addr, again)
	}
}

// TestAdoptAfterKill: the daemon is killed, its bridge and dnsmasq go on, and
// the next daemon takes them as they are.
func TestAdoptAfterKill(t *testing.T) {
	m, dir := testManager(t)
	ctx := testContext(t)
	daemon := exec.Command("/proc/self/exe")
	daemon.Env = append(os.Environ(), "CROFT_TEST_DAEMON="+dir)
	out, err := daemon.StdoutPipe()
	must(t, err)
	must(t, daemon.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "started\n" {
		t.Fatalf("the daemon said %q, %v", line, err)
	}
	before := dnsmasqPIDs(t, m)
	must(t, daemon.Process.Kill())
	daemon.Wait()

	c1 := newClient(t, testConfig.Name, mac1)
	addr := c1.dhcp() // with no daemon
	start(t, m, testConfig)
	if after := dnsmasqPIDs(t, m); !slices.Equal(before, after) || len(after) != 1 {
		t.Errorf("dnsmasq was %v and is %v", before, after)
	}
	must(t, m.SetLeases(ctx, testConfig.Name, []StaticLease{{Instance: "late", Device: "eth0", MAC: mac1}}))
	eventually(t, "the adopted dnsmasq knows the new name", func() bool {
		out, _ := c1.try("busybox", "nslookup", "late.lxd", "10.93.7.1")
		return strings.Contains(out, addr.String())
	})
	must(t, m.SetLeases(ctx, testConfig.Name, nil))
	must(t, m.Stop(ctx, testConfig.Name))
	mustBeGone(t, m, dir)
}

// TestMissingDNSMasq: the host lacks the program; the error says what to do and
// what was made can be removed.
func TestMissingDNSMasq(t *testing.T) {
	m, dir := testManager(t)
	m.dnsmasq = ""
	err := m.Start(testContext(t), testConfig)
	if !errors.Is(err, api.Unsupported) || api.HintOf(err) == "" {
		t.Errorf("Start without dnsmasq: %v, hint %q", err, api.HintOf(err))
	}
	must(t, m.Stop(context.Background(), testConfig.Name))
	mustBeGone(t, m, dir)
}
