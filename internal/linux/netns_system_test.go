//go:build system

package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// netnsChild is a process in a network namespace of its own.
type netnsChild struct {
	t   testing.TB
	pid int
}

func newNetNSChild(t testing.TB) netnsChild {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatalf("the system tests need root: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return netnsChild{t, cmd.Process.Pid}
}

func (c netnsChild) watch() *NetNSWatch {
	c.t.Helper()
	w, err := WatchNetNSOf(c.pid)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { w.Close() })
	return w
}

// run executes a shell script inside.
func (c netnsChild) run(script string) {
	c.t.Helper()
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(c.pid), "-n", "--", "sh", "-ec", script).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// until waits for the watch to show something.
func until(t testing.TB, w *NetNSWatch, what string, ok func([]NetLink) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		changed := w.Changed()
		links, err := w.Snapshot(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		if ok(links) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("still not so: %s; links: %.2000s", what, fmt.Sprintf("%+v", links))
		}
	}
}

func find(links []NetLink, name string) *NetLink {
	for i := range links {
		if links[i].Name == name {
			return &links[i]
		}
	}
	return nil
}

func hasAddr(l *NetLink, addr string) bool {
	if l == nil {
		return false
	}
	for _, a := range l.Addrs {
		if a.Addr == netip.MustParsePrefix(addr) {
			return true
		}
	}
	return false
}

func TestWatchNetNS(t *testing.T) {
	c := newNetNSChild(t)
	w := c.watch()
	until(t, w, "lo is there", func(l []NetLink) bool {
		return len(l) >= 1 && l[0].Name == "lo" && l[0].Type() == "loopback" && !l[0].Up()
	})
	c.run("ip link set lo up; ip link add name va type veth peer name vb; ip link set va up; ip addr add 10.0.0.1/24 dev va; ip addr add fd42::1/64 dev vb nodad")
	until(t, w, "addresses are there", func(l []NetLink) bool {
		lo, a, b := find(l, "lo"), find(l, "va"), find(l, "vb")
		return hasAddr(lo, "127.0.0.1/8") && hasAddr(a, "10.0.0.1/24") && hasAddr(b, "fd42::1/64") &&
			a.Kind == "veth" && a.Peer == b.Index && a.Up() && !b.Up()
	})
	c.run("ip addr del 10.0.0.1/24 dev va")
	until(t, w, "the address is gone", func(l []NetLink) bool { return !hasAddr(find(l, "va"), "10.0.0.1/24") })
	c.run("ip link add name br type bridge; ip link set vb master br")
	until(t, w, "b is in the bridge", func(l []NetLink) bool {
		br, b := find(l, "br"), find(l, "vb")
		return br != nil && br.Bridge != nil && b.Master == br.Index
	})
	c.run("ip link set vb nomaster")
	until(t, w, "b left the bridge and exists", func(l []NetLink) bool { b := find(l, "vb"); return b != nil && b.Master == 0 })
	c.run("ip link del va")
	until(t, w, "the pair is gone", func(l []NetLink) bool { return find(l, "va") == nil && find(l, "vb") == nil })
}

func TestWatchNetNSCounters(t *testing.T) {
	c := newNetNSChild(t)
	w := c.watch()
	c.run("ip link set lo up; ping -c 3 -i 0.01 127.0.0.1 >/dev/null 2>&1 || busybox ping -c 3 127.0.0.1 >/dev/null")
	links, err := w.Snapshot(context.Background(), true)
	if err != nil {
		t.Fatal(err)
	}
	if lo := find(links, "lo"); lo == nil || lo.Counters.RxPackets < 6 || lo.Counters.TxBytes != lo.Counters.RxBytes {
		t.Errorf("counters of lo: %+v", lo)
	}
}

// TestWatchNetNSFlood overruns the socket's queue: the picture must be right
// again afterwards.
func TestWatchNetNSFlood(t *testing.T) {
	c := newNetNSChild(t)
	w := c.watch()
	var batch strings.Builder
	batch.WriteString("link set lo up\n")
	for range 20 {
		for i := range 1000 {
			fmt.Fprintf(&batch, "addr add 10.1.%d.%d/32 dev lo\n", i/250, i%250+1)
		}
		for i := range 1000 {
			fmt.Fprintf(&batch, "addr del 10.1.%d.%d/32 dev lo\n", i/250, i%250+1)
		}
	}
	batch.WriteString("addr add 10.2.0.1/32 dev lo\n")
	file := t.TempDir() + "/batch"
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run("ip -batch " + file)
	until(t, w, "only the last address is left", func(l []NetLink) bool {
		lo := find(l, "lo")
		return hasAddr(lo, "10.2.0.1/32") && len(lo.Addrs) <= 3
	})
}

// TestWatchNetNSClose: closing wakes waiters and lets go of the namespace, and
// the process's own threads stay where they are.
func TestWatchNetNSClose(t *testing.T) {
	c := newNetNSChild(t)
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		w := c.watch()
		if _, err := w.Snapshot(context.Background(), true); err != nil {
			t.Fatal(err)
		}
		changed := w.Changed()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		<-changed
		if _, err := w.Snapshot(context.Background(), false); !errors.Is(err, os.ErrClosed) {
			t.Errorf("snapshot after close: %v", err)
		}
		<-w.Changed()
		if err := w.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
	}
	if now, _ := os.Readlink("/proc/self/ns/net"); now != home {
		t.Errorf("the process moved from %s to %s", home, now)
	}
}

func TestHostLinks(t *testing.T) {
	links, err := HostLinks(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if lo := find(links, "lo"); lo == nil || lo.Index != 1 || lo.MTU != 65536 {
		t.Errorf("lo: %+v", lo)
	}
}

func BenchmarkSnapshotCounters(b *testing.B) {
	w := newNetNSChild(b).watch()
	for b.Loop() {
		if _, err := w.Snapshot(context.Background(), true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshotCached(b *testing.B) {
	w := newNetNSChild(b).watch()
	for b.Loop() {
		if _, err := w.Snapshot(context.Background(), false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWatchOpenClose(b *testing.B) {
	c := newNetNSChild(b)
	for b.Loop() {
		w, err := WatchNetNSOf(c.pid)
		if err != nil {
			b.Fatal(err)
		}
		w.Close()
	}
}
