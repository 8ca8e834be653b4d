//go:build system

package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func killProcess(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestConfinement(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1")
	h.ok("launch", "busybox", "c2")
	one, two := h.sh("c1", "cat /proc/self/uid_map"), h.sh("c2", "cat /proc/self/uid_map")
	if one == two || strings.Fields(one)[1] == "0" || strings.Fields(one)[2] != "65536" {
		t.Errorf("id ranges: %q and %q", one, two)
	}
	for script, want := range map[string]string{
		"grep Seccomp: /proc/1/status":                            "Seccomp:\t2",
		"grep Seccomp: /proc/self/status":                         "Seccomp:\t2",
		"mknod /tmp/disk b 8 0 2>&1 | grep -c -i 'not permitted'": "1",
		"echo 1 > /proc/sysrq-trigger 2>/dev/null; echo $?":       "1",
		"date -s 2001-01-01 2>&1 | grep -c -i 'not permitted'":    "1",
		"insmod /nosuch.ko 2>/dev/null; test $? -ne 0 && echo no": "no",
		"stat -c %u:%g /": "0:0",
		"echo x > /dev/null && head -c 4 /dev/zero | wc -c":  "4",
		"ls /dev/kmsg /dev/mem /dev/sda 2>/dev/null | wc -l": "0",
		"grep -c croft /proc/self/cgroup; true":              "0",
		"mount -t tmpfs none /mnt && echo mounted":           "mounted",
		"ip link show eth0 | grep -c 00:16:3e":               "1",
		"cat /proc/1/comm":                                   "init",
		"ps | wc -l | xargs test 30 -gt && echo few":         "few",
		"hostname":                                                   "c1",
		"readlink -f /proc/1/root/..":                                "/",
		"test -e /run/croft || echo absent":                          "absent",
		"awk '$2==\"/\"{print $3}' /proc/mounts":                     "overlay",
		"umount -f /nosuch 2>/dev/null; echo $?":                     "1",
		"chown 70000 /tmp 2>/dev/null; echo $?":                      "1",
		"nsenter -t 1 -m true 2>/dev/null; test $? -lt 128; echo $?": "0",
	} {
		if got := h.sh("c1", script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	caps := h.sh("c1", "grep CapBnd /proc/1/status | cut -f2")
	for name, bit := range map[string]uint{"sys_module": 16, "sys_rawio": 17, "sys_time": 25, "mac_override": 32, "mac_admin": 33} {
		var set uint64
		fmt.Sscanf(caps, "%x", &set)
		if set&(1<<bit) != 0 {
			t.Errorf("capability %s is in the bounding set %s", name, caps)
		}
	}
	h.ok("launch", "busybox", "p1", "-c", "security.privileged=true")
	if got := strings.Fields(h.sh("p1", "cat /proc/self/uid_map")); got[1] != "0" {
		t.Errorf("a privileged container has the map %v", got)
	}
	if got := h.sh("p1", "mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk 2>&1 | grep -c -i 'not permitted'; true"); got != "1" {
		t.Errorf("a privileged container opened a disk: %q", got)
	}
	h.ok("delete", "-f", "c1", "c2", "p1")
}

func TestFilesStayInside(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"overlay", "dir"} {
		h := newHost(t, driver)
		h.ok("launch", "busybox", "c1")
		h.sh("c1", "ln -s "+canary+" /root/out; ln -s ../../../../../../../../.. /root/up; ln -s /root /root/dir; mkfifo /root/pipe; echo inside > /root/f")
		check := func(when string) {
			t.Helper()
			h.run("evil", "file", "push", "-", "c1/root/out")
			h.run("evil", "file", "push", "-", "c1/root/up"+canary)
			h.run("evil", "file", "push", "-", "c1/../../../../../../../"+canary)
			h.run("", "file", "delete", "c1/root/up"+canary)
			if data, err := os.ReadFile(canary); err != nil || string(data) != "untouched" {
				t.Fatalf("%s, %s: the host's file is %q, %v", driver, when, data, err)
			}
			h.refused([]string{"file", "pull", "c1/root/pipe", "-"}, "pipe")
			if got := h.ok("file", "pull", "c1/root/dir/f", "-"); got != "inside" {
				t.Errorf("%s, %s: through a link: %q", driver, when, got)
			}
			if out, _, code := h.run("pushed", "file", "push", "-", "c1/root/new", "--uid", "7", "--gid", "8", "--mode", "0640"); code != 0 {
				t.Errorf("%s, %s: push: %s", driver, when, out)
			}
		}
		check("running")
		if got := h.sh("c1", "stat -c '%u:%g %a' /root/new; cat /root/new"); got != "7:8 640\npushed" {
			t.Errorf("%s: a pushed file is %q", driver, got)
		}
		h.ok("stop", "-f", "c1")
		h.ok("file", "delete", "c1/root/new")
		check("stopped")
		h.ok("start", "c1")
		if got := h.sh("c1", "stat -c '%u:%g %a' /root/new; cat /root/new"); got != "7:8 640\npushed" {
			t.Errorf("%s: a file pushed while stopped is %q", driver, got)
		}
		h.ok("delete", "-f", "c1")
	}
}

func TestLimits(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1", "-c", "limits.processes=40", "-c", "limits.memory=64MiB", "-c", "limits.cpu=1")
	if got := h.sh("c1", "grep -c ^processor /proc/cpuinfo >/dev/null; grep Cpus_allowed_list /proc/self/status | cut -f2"); len(got) != 1 {
		t.Errorf("limits.cpu=1 gives the processors %s", got)
	}
	// A fork bomb ends at the limit, and the API does not notice.
	_, _, code := h.run("", "exec", "c1", "--", "sh", "-c", "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done")
	if code == 0 {
		t.Error("100 processes could be made with a limit of 40")
	}
	if n := h.state("c1").Processes; n > 40 {
		t.Errorf("%d processes with a limit of 40", n)
	}
	h.ok("restart", "-f", "c1")
	_, _, code = h.run("", "exec", "c1", "--", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=150M count=1")
	if code == 0 {
		t.Error("150 MB could be used with a limit of 64 MiB")
	}
	if got := h.status("c1"); got != "RUNNING" {
		t.Errorf("after the out-of-memory killer: %s", got)
	}
	h.ok("config", "set", "c1", "limits.memory", "400MiB") // live
	if _, errOut, code := h.run("", "exec", "c1", "--", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=150M count=1"); code != 0 {
		t.Errorf("150 MB could not be used with a limit of 400 MiB: %d, %s", code, errOut)
	}
	h.ok("profile", "set", "default", "limits.processes", "60")
	h.ok("config", "unset", "c1", "limits.processes")
	if _, errOut, code := h.run("", "exec", "c1", "--", "sh", "-c", "i=0; while [ $i -lt 45 ]; do sleep 1 & i=$((i+1)); done"); code != 0 {
		t.Errorf("45 processes with a limit of 60 from the profile: %d, %s", code, errOut)
	}
	h.ok("delete", "-f", "c1")
}

func TestManyCommandsAtOnce(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1")
	var g sync.WaitGroup
	for i := range 50 {
		g.Go(func() {
			in := strings.Repeat(fmt.Sprintf("line of %d\n", i), 2000)
			out, errOut, code := h.run(in, "exec", "c1", "--", "sh", "-c", fmt.Sprintf("cat; echo done >&2; exit %d", i))
			if out != in || errOut != "done\n" || code != i {
				t.Errorf("command %d: %d of %d bytes, %q, exit code %d", i, len(out), len(in), errOut, code)
			}
		})
	}
	g.Wait()
	h.ok("delete", "-f", "c1")
}

func TestImages(t *testing.T) {
	h := newHost(t, "overlay")
	var images []struct{ Fingerprint string }
	h.query("/1.0/images?recursion=1", &images)
	fp := images[0].Fingerprint
	h.ok("image", "alias", "create", "other", fp)
	h.ok("launch", fp[:8], "c1")
	dir := t.TempDir()
	h.ok("image", "export", "busybox", filepath.Join(dir, "copy"))
	h.ok("image", "delete", fp) // containers made from it do not mind
	h.refused([]string{"init", "other", "c2"}, "other")
	h.ok("restart", "-f", "c1")
	meta, _ := filepath.Glob(filepath.Join(dir, "copy.tar*"))
	root, _ := filepath.Glob(filepath.Join(dir, "copy.root*"))
	if len(meta) != 1 || len(root) != 1 {
		t.Fatalf("exported files: %v %v", meta, root)
	}
	h.ok("image", "import", meta[0], root[0], "--alias", "again")
	if got := h.ok("image", "list", "-f", "csv", "-c", "F"); got != fp {
		t.Errorf("fingerprint after export and import: %s, before: %s", got, fp)
	}
	h.ok("launch", "again", "c2")
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("not an image at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.refused([]string{"image", "import", junk})
	h.ok("delete", "-f", "c1", "c2")
}
