//go:build system

package system

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// addresses are the global ones of eth0, as the API shows them.
func (h *host) addresses(name string) []string {
	h.t.Helper()
	var out []string
	for _, a := range h.state(name).Network["eth0"].Addresses {
		if a.Scope == "global" {
			out = append(out, a.Family+" "+a.Address)
		}
	}
	slices.Sort(out)
	return out
}

// A machine with systemd is asked to stop, and does it in its order; it turns
// itself off and on; through all of it it keeps its addresses.
func TestSystemdLife(t *testing.T) {
	for _, driver := range []string{"overlay", "dir"} {
		t.Run(driver, func(t *testing.T) {
			h := newHost(t, driver)
			h.importDebian()
			h.ok("launch", "debian", "d1")
			h.ok("wait", "d1", "--ipv4", "--timeout", "60") // systemctl needs a bus
			// A service that notes its orderly stop.
			h.sh("d1", `cat >/etc/systemd/system/witness.service <<'END'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo up >>/root/witness'
ExecStop=/bin/sh -c 'echo down >>/root/witness'
[Install]
WantedBy=multi-user.target
END
systemctl enable --now --quiet witness`)
			up := func(want ...string) {
				t.Helper()
				h.ok("wait", "d1", "--ipv4", "--ipv6", "--timeout", "60")
				if got := h.sh("d1", "systemctl is-system-running --wait"); got != "running" {
					t.Errorf("systemd says %q: %s", got, h.sh("d1", "systemctl --failed --no-legend; true"))
				}
				if got := strings.Fields(h.sh("d1", "cat /root/witness")); !slices.Equal(got, want) {
					t.Errorf("the witness has seen %v, want %v", got, want)
				}
			}
			up("up")
			before := h.addresses("d1")
			if len(before) < 2 {
				t.Errorf("addresses: %v, want one of each family", before)
			}
			h.ok("stop", "d1", "--timeout", "60")
			h.ok("start", "d1")
			up("up", "down", "up")
			pid := h.state("d1").Pid
			h.sh("d1", "systemd-run --quiet --no-block systemctl reboot")
			h.await("a reboot from inside", func() string {
				if s := h.state("d1"); s.Pid == pid || s.Pid == 0 {
					return fmt.Sprintf("pid %d, was %d", s.Pid, pid)
				}
				return ""
			})
			h.await("a command to run after the reboot", func() string {
				_, errOut, code := h.run("", "exec", "d1", "--", "test", "-S", "/run/systemd/private")
				if code != 0 {
					return "it fails: " + errOut
				}
				return ""
			})
			up("up", "down", "up", "down", "up")
			h.sh("d1", "systemd-run --quiet --no-block systemctl poweroff")
			h.awaitStatus("d1", "STOPPED")
			h.ok("start", "d1")
			up("up", "down", "up", "down", "up", "down", "up")
			if got := h.addresses("d1"); !slices.Equal(got, before) {
				t.Errorf("addresses %v, were %v", got, before)
			}
			h.ok("delete", "-f", "d1")
		})
	}
}
