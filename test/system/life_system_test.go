//go:build system

package system

import (
	"os"
	"strings"
	"testing"
)

func TestLife(t *testing.T) {
	for _, driver := range []string{"overlay", "dir"} {
		t.Run(driver, func(t *testing.T) {
			h := newHost(t, driver)
			h.ok("launch", "busybox", "c1")
			pid := h.state("c1").Pid
			mac := h.ok("config", "get", "c1", "volatile.eth0.hwaddr")
			h.refused([]string{"start", "c1"}, "already running")
			h.refused([]string{"delete", "c1"}, "running")
			h.refused([]string{"rename", "c1", "c2"}, "running")
			h.refused([]string{"init", "busybox", "c1"}, "already exists")

			h.ok("pause", "c1")
			if got := h.status("c1"); got != "FROZEN" {
				t.Errorf("after pause: %s", got)
			}
			h.refused([]string{"exec", "c1", "--", "true"}, "frozen")
			h.ok("start", "c1")
			h.sh("c1", "echo kept > /root/kept")

			h.ok("restart", "-f", "c1")
			if got := h.state("c1").Pid; got == pid || got == 0 {
				t.Errorf("pid after a restart: %d, before: %d", got, pid)
			}
			pid = h.state("c1").Pid
			h.run("", "exec", "c1", "--", "kill", "-INT", "1") // busybox's init reboots
			h.await("a reboot from inside", func() string {
				if s := h.state("c1"); s.Pid == pid || s.Pid == 0 {
					return "the pid is the same"
				}
				return ""
			})
			h.await("a command to run after the reboot", func() string {
				_, errOut, code := h.run("", "exec", "c1", "--", "true")
				if code != 0 {
					return errOut
				}
				return ""
			})
			h.halt("c1")
			h.awaitStatus("c1", "STOPPED")

			h.ok("rename", "c1", "c2")
			h.ok("start", "c2")
			if got := h.sh("c2", "cat /root/kept; hostname"); got != "kept\nc2" {
				t.Errorf("after rename: %q", got)
			}
			if got := h.ok("config", "get", "c2", "volatile.eth0.hwaddr"); got != mac {
				t.Errorf("MAC address after rename: %s, before: %s", got, mac)
			}
			h.ok("stop", "c2", "--timeout", "30")
			h.refused([]string{"stop", "c2"}, "already stopped")
			h.ok("delete", "c2")
			if got := h.ok("list", "-f", "csv"); got != "" {
				t.Errorf("left after delete: %s", got)
			}
			for _, dir := range []string{"containers", "devices", "logs", "run", "sessions"} {
				entries, err := os.ReadDir(h.dir + "/" + dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					if !e.IsDir() || dir != "run" {
						t.Errorf("left in %s: %s", dir, e.Name())
					}
				}
			}
		})
	}
}

func TestEphemeral(t *testing.T) {
	h := newHost(t, "overlay")
	gone := func(name string) {
		t.Helper()
		h.await(name+" to be gone", func() string { return h.ok("list", "^"+name+"$", "-f", "csv", "-c", "n") })
	}
	h.ok("launch", "-e", "busybox", "e1")
	h.ok("restart", "-f", "e1")
	if got := h.status("e1"); got != "RUNNING" {
		t.Errorf("after a restart: %q", got)
	}
	h.ok("stop", "-f", "e1")
	gone("e1")
	h.ok("launch", "-e", "busybox", "e2")
	h.halt("e2")
	gone("e2")
}

func TestBadInputChangesNothing(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("init", "busybox", "c1")
	before := h.ok("query", "/1.0/instances?recursion=1") + h.ok("query", "/1.0/profiles?recursion=1")
	for _, c := range []struct {
		args  string
		words string // separated by |
	}{
		{"init busybox 1st", "1st|beginning with a letter"},
		{"init busybox a_b", "a_b|letters, digits and dashes"},
		{"init nosuchimage c2", "nosuchimage"},
		{"init busybox c2 -p nosuch", "profile nosuch"},
		{"init busybox c2 -s nosuch", "nosuch"},
		{"init busybox c2 -c bogus.key=1", "bogus.key"},
		{"init busybox c2 -c limits.memory=lots", "limits.memory|lots"},
		{"init busybox c2 -c limits.cpu=0", "limits.cpu|0"},
		{"config set c1 limits.processes=-1", "limits.processes|-1"},
		{"config set c1 security.nesting=perhaps", "security.nesting|perhaps|true"},
		{"config set c1 limits.cpu=4000-4001", "limits.cpu|4000"},
		{"config set c1 raw.lxc=lxc.rootfs.path=/", "raw.lxc|lxc.rootfs.path"},
		{"config set c1 limits.cpu.allowance=50%", "limits.cpu.allowance|not supported"},
		{"config device add c1 d disk source=tmp path=/mnt", "source|absolute"},
		{"config device add c1 d disk source=/tmp path=/mnt/../..", "path|.."},
		{"config device add c1 n nic nictype=macvlan parent=lo", "nictype|macvlan|bridged"},
		{"config device add c1 n nic network=nosuch", "network|nosuch"},
		{"config device add c1 x bogus", "bogus|disk"},
		{"profile set default limits.memory=-5", "limits.memory|-5"},
		{"profile delete default", "default"},
		{"rename c1 bad_name", "bad_name"},
		{"exec c1 -- true", "not running"},
		{"file pull c1/../../etc/shadow2 -", "shadow2"},
	} {
		h.refused(strings.Fields(c.args), strings.Split(c.words, "|")...)
	}
	_, errOut, code := h.run("", "config", "set", "c1", "environment.X=a\nlxc.cap.drop =")
	if code == 0 || !strings.Contains(errOut, "environment.X") {
		t.Errorf("a line break in an environment variable: %d, %s", code, errOut)
	}
	if after := h.ok("query", "/1.0/instances?recursion=1") + h.ok("query", "/1.0/profiles?recursion=1"); after != before {
		t.Errorf("a refused request changed something:\n%s\nbefore:\n%s", after, before)
	}
}
