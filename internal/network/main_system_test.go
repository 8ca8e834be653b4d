//go:build system

package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/croft-project/croft/internal/linux"
)

// TestMain runs the tests again in network and mount namespaces of their own,
// where they may do as they like. A part of the tests acts as a second daemon
// process, which is killed.
func TestMain(m *testing.M) {
	const inside = "CROFT_TEST_NETNS"
	if os.Getenv(inside) == "" {
		os.Exit(reexec(inside))
	}
	if mac := os.Getenv("CROFT_TEST_DHCP6"); mac != "" {
		if err := actAsDHCP6Client(mac); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := prepareNamespace(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the test's namespace:", err)
		os.Exit(1)
	}
	if dir := os.Getenv("CROFT_TEST_DAEMON"); dir != "" {
		os.Exit(actAsDaemon(dir))
	}
	os.Exit(m.Run())
}

func reexec(inside string) int {
	runtime.LockOSThread() // the death signal is the thread's, not the process's
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the system tests need root:", err)
		return 1
	}
	return 0
}

// prepareNamespace gives the mount namespace a /run of its own and switches the
// loopback interface on.
func prepareNamespace() error {
	if os.Getenv("CROFT_TEST_DAEMON") != "" {
		return nil // shares the namespaces of the test that started it
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("croft-test", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// actAsDaemon starts the test's bridge and waits to be killed.
func actAsDaemon(dir string) int {
	m := New(Deps{StateDir: dir})
	if err := m.Start(context.Background(), testConfig); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("started")
	select {}
}

var testConfig = Config{Name: "crofttest0", Config: map[string]string{
	"ipv4.address": "10.93.7.1/24", "ipv4.nat": "true", "ipv6.address": "fd42:93:7:1::1/64", "ipv6.nat": "true",
	"ipv4.dhcp.ranges": "10.93.7.100-10.93.7.199",
}}

const testTimeout = 60 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// testManager returns a manager whose directory only root can enter, as with a
// directory made by mktemp -d. At the end nothing of it may be left.
func testManager(t *testing.T) (*Manager, string) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m := New(Deps{StateDir: dir})
	t.Cleanup(m.Detach)
	return m, dir
}

func start(t *testing.T, m *Manager, c Config) {
	t.Helper()
	t.Cleanup(func() {
		if err := m.Stop(context.Background(), c.Name); err != nil {
			t.Error(err)
		}
	})
	if err := m.Start(testContext(t), c); err != nil {
		t.Fatal(err)
	}
}

// client is a network namespace with a NIC on the bridge, as a container's.
type client struct {
	t     *testing.T
	cmd   *exec.Cmd
	mac   string
	watch *linux.NetNSWatch
}

func newClient(t *testing.T, bridge, mac string) *client {
	t.Helper()
	c := &client{t: t, mac: mac, cmd: exec.Command("busybox", "sleep", "600")}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	must(t, c.cmd.Start())
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	hw, err := parseMAC(mac)
	must(t, err)
	br, err := netlink.LinkByName(bridge)
	must(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "v" + strconv.Itoa(c.cmd.Process.Pid)
	attrs.MasterIndex = br.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: hw, PeerNamespace: netlink.NsPid(c.cmd.Process.Pid)}
	must(t, netlink.LinkAdd(veth))
	t.Cleanup(func() { netlink.LinkDel(veth) })
	must(t, netlink.LinkSetUp(veth))
	c.watch, err = linux.WatchNetNSOf(c.cmd.Process.Pid)
	must(t, err)
	t.Cleanup(func() { c.watch.Close() })
	c.run("ip", "link", "set", "lo", "up")
	c.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad")
	c.run("ip", "link", "set", "eth0", "up")
	return c
}

// run executes a program in the client's network namespace.
func (c *client) run(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func (c *client) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(c.cmd.Process.Pid), "-n", "--"}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// dhcp asks for an IPv4 address and configures it.
func (c *client) dhcp() netip.Addr {
	c.t.Helper()
	script := filepath.Join(c.t.TempDir(), "udhcpc")
	must(c.t, os.WriteFile(script, []byte(`#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev $interface scope global
ip -4 addr add $ip/$mask dev $interface
ip -4 route replace default via $router
echo "domain=$domain dns=$dns router=$router"
`), 0o755))
	out := c.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-x", "hostname:thief", "-s", script)
	c.t.Log(out)
	return c.address("inet")
}

// dhcp6 asks for an IPv6 address and returns it without configuring it.
func (c *client) dhcp6() netip.Addr {
	c.t.Helper()
	out := c.run("env", "CROFT_TEST_NETNS=1", "CROFT_TEST_DHCP6="+c.mac, "/proc/"+strconv.Itoa(os.Getpid())+"/exe")
	addr, err := netip.ParseAddr(strings.TrimSpace(out))
	must(c.t, err)
	return addr
}

// actAsDHCP6Client asks with one Solicit, RFC 8415 section 18.2.1 with rapid
// commit, and prints the address.
func actAsDHCP6Client(mac string) error {
	hw, err := parseMAC(mac)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{Port: 546})
	if err != nil {
		return err
	}
	defer conn.Close()
	solicit := append([]byte{1, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1}, hw...)      // client id: DUID-LL
	solicit = append(solicit, 0, 3, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0) // IA_NA 7
	solicit = append(solicit, 0, 8, 0, 2, 0, 0, 0, 14, 0, 0)                   // elapsed time, rapid commit
	to := &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: 547, Zone: "eth0"}
	if _, err := conn.WriteToUDP(solicit, to); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(testTimeout)); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, err := conn.Read(reply)
	if err != nil {
		return err
	}
	for reply = reply[4:n]; len(reply) >= 4; {
		code, size := binary.BigEndian.Uint16(reply), int(binary.BigEndian.Uint16(reply[2:]))
		if code == 3 && size >= 32 { // IA_NA with an IAADDR in it
			addr, _ := netip.AddrFromSlice(reply[4+12+4 : 4+12+20])
			fmt.Println(addr)
		}
		reply = reply[4+size:]
	}
	return nil
}

// address waits for a global address of a family.
func (c *client) address(family string) netip.Addr {
	c.t.Helper()
	ctx := testContext(c.t)
	for {
		changed := c.watch.Changed()
		links, err := c.watch.Snapshot(ctx, false)
		must(c.t, err)
		for _, l := range links {
			for _, a := range l.Addrs {
				if l.Name == "eth0" && a.Family() == family && a.Scope == "global" {
					return a.Addr.Addr()
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			c.t.Fatalf("no %s address", family)
		}
	}
}

// eventually waits for a condition that other programs bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// dnsmasqPIDs finds the processes of a state directory by their arguments.
func dnsmasqPIDs(t *testing.T, m *Manager) []int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	var out []int
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil || !bytes.Contains(b, []byte("--conf-file="+m.env.RunDir+"/")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(d))
		must(t, err)
		out = append(out, pid)
	}
	slices.Sort(out)
	return out
}

// mustBeGone checks that nothing of a manager is left on the host.
func mustBeGone(t *testing.T, m *Manager, dir string) {
	t.Helper()
	if pids := dnsmasqPIDs(t, m); len(pids) > 0 {
		t.Errorf("dnsmasq still runs: %v", pids)
	}
	if rules := command(t, "nft", "list", "ruleset"); strings.Contains(rules, m.env.InstanceID) {
		t.Errorf("nftables rules are left:\n%s", rules)
	}
	links, err := linux.HostLinks(testContext(t))
	must(t, err)
	for _, l := range links {
		if l.Alias == linkAlias(m.env.InstanceID) {
			t.Errorf("link %s is left", l.Name)
		}
	}
	for _, path := range []string{m.env.RunDir, filepath.Join(dir, "networks")} {
		if exists(path) {
			t.Errorf("%s is left", path)
		}
	}
}
