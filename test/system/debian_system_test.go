//go:build system

package system

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestDebian is the whole of it: systemd guests with addresses and names.
func TestDebian(t *testing.T) {
	h := newHost(t, "overlay")
	h.importDebian()
	h.ok("launch", "debian", "d1")
	h.ok("launch", "debian", "d2", "-p", "default", "-p", "docker")
	v4 := h.ok("wait", "d1", "--ipv4", "--timeout", "60")
	h.ok("wait", "d2", "--ipv4", "--ipv6", "--timeout", "60")
	for _, name := range []string{"d1", "d2"} {
		if got := h.sh(name, "systemctl is-system-running --wait"); got != "running" {
			t.Errorf("%s: systemd says %q: %s", name, got, h.sh(name, "systemctl --failed --no-legend; true"))
		}
	}
	if got := h.sh("d2", "getent ahostsv4 d1.lxd | head -1 | cut -d' ' -f1"); got != v4 {
		t.Errorf("d1.lxd is %q for d2, want %q", got, v4)
	}
	if got := h.sh("d2", "hostname; cat /etc/hostname; test -c /dev/fuse && echo fuse"); got != "d2\nd2\nfuse" {
		t.Errorf("name and device of the docker profile: %q", got)
	}
	rules, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil || strings.Count(string(rules), "masquerade") < 2 {
		t.Errorf("no NAT for both families: %v\n%s", err, rules)
	}
	state := h.state("d1")
	if state.Processes < 5 || state.CPU.Usage == 0 || state.Memory.Usage < 1<<20 || state.Network["eth0"].Counters.BytesReceived == 0 {
		t.Errorf("counters: %+v", state)
	}
	h.ok("restart", "d1")
	h.await("the address after a restart", func() string {
		if got := h.ok("wait", "d1", "--ipv4", "--timeout", "60"); got != v4 {
			return fmt.Sprintf("it is %s, was %s", got, v4)
		}
		return ""
	})
	h.sh("d1", "systemd-run --no-block systemctl reboot")
	h.await("a reboot from inside", func() string {
		if s := h.state("d1"); s.Pid == state.Pid {
			return "the pid is the same"
		}
		return ""
	})
	h.ok("stop", "d1", "d2")
	h.ok("delete", "d1", "d2")
}
