//go:build system

package system

import (
	"strings"
	"testing"
)

// TestDaemonGoesAndComes ends the daemon in both ways while containers run.
func TestDaemonGoesAndComes(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1")
	h.ok("launch", "-e", "busybox", "e1")
	h.ok("init", "busybox", "s1")
	h.ok("config", "set", "c1", "limits.processes", "100")
	for _, end := range []struct {
		name string
		do   func()
	}{{"kill", h.kill}, {"term", h.term}} {
		pid := h.state("c1").Pid
		end.do()
		h.start()
		if got := h.ok("list", "-f", "csv", "-c", "ns"); got != "c1,RUNNING\ne1,RUNNING\ns1,STOPPED" {
			t.Errorf("after %s: %s", end.name, got)
		}
		if got := h.state("c1").Pid; got != pid {
			t.Errorf("pid after %s: %d, before: %d", end.name, got, pid)
		}
		h.sh("c1", "true")
	}
	// The end of a container that nobody sees.
	init := h.state("e1").Pid
	h.kill()
	killProcess(t, int(init))
	h.start()
	if got := h.ok("list", "-f", "csv", "-c", "n"); strings.Contains(got, "e1") {
		t.Errorf("an ephemeral instance that ended unseen is still there: %s", got)
	}
	h.ok("stop", "-f", "c1")
	// A shutdown of the host's containers, and their return.
	h.ok("start", "c1")
	h.daemon("shutdown", "--timeout", "60")
	_ = h.cmd.Wait()
	h.start()
	h.awaitStatus("c1", "RUNNING")
	if got := h.status("s1"); got != "STOPPED" {
		t.Errorf("what did not run is %s after the return", got)
	}
	h.ok("delete", "-f", "c1", "s1")
}

func TestTwoDaemonsShareAHost(t *testing.T) {
	a, b := newHost(t, "overlay"), newHost(t, "dir")
	for _, h := range []*host{a, b} {
		h.ok("launch", "busybox", "same")
	}
	a.sh("same", "echo a > /root/whose")
	b.sh("same", "echo b > /root/whose")
	if got := a.sh("same", "cat /root/whose"); got != "a" {
		t.Errorf("the first daemon's container has %q", got)
	}
	if x, y := a.sh("same", "cat /proc/self/uid_map"), b.sh("same", "cat /proc/self/uid_map"); x == y {
		t.Errorf("both containers have the ids %s", x)
	}
	a.ok("delete", "-f", "same")
	if got := b.sh("same", "cat /root/whose"); got != "b" {
		t.Errorf("the second daemon's container has %q after the first one's is gone", got)
	}
	b.ok("delete", "-f", "same")
}
