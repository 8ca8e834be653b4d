package lxc

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func base() Spec {
	return Spec{
		Name: "c1", Hostname: "c1", Architecture: "x86_64", Rootfs: "/run/croft/stage/rootfs", MountPoint: "/run/croft/stage/mnt",
		IDMap:         linux.IDMap{{ContainerID: 0, HostID: 1000000, Count: 65536, UID: true, GID: true}},
		PayloadCgroup: "croft-0/c1", MonitorCgroup: "croft-0/c1.monitor", PivotCgroup: "croft-0/lxc.pivot",
		LogFile: "/l/lxc.log", ConsoleLog: "/l/console.log", SeccompPolicy: "/l/seccomp", HybridCgroups: true,
	}
}

func TestRender(t *testing.T) {
	specs := map[string]func(*Spec){
		"plain":      func(*Spec) {},
		"privileged": func(s *Spec) { s.IDMap = nil },
		"full": func(s *Spec) {
			s.Nesting, s.AppArmor, s.HybridCgroups = true, true, false
			s.Environment = []Variable{{"LANG", "C.UTF-8"}, {"X", "a = b"}}
			s.Nics = []Nic{{Name: "eth0", HostName: "veth1", MAC: "00:16:3e:00:00:01", Parent: "croftbr0"}, {Name: "up0", HostName: "veth2", MAC: "00:16:3e:00:00:02", MTU: "1400"}}
			s.Mounts = []Mount{{Source: "/run/croft/stage/disk0", Target: "mnt/a b\\c", Type: "none", Options: []string{"rbind", "create=dir", "ro"}}}
			s.Limits = []Limit{{"memory", "memory.max", "67108864", true}, {"pids", "pids.max", "40", true}, {"cpuset", "cpuset.cpus", "0,1", true}, {"devices", "devices.allow", "c 10:229 rwm", true}}
			s.Raw = "# comment\nlxc.prlimit.nofile = 1024\n"
		},
	}
	for name, change := range specs {
		s := base()
		change(&s)
		got, err := Render(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		golden(t, name+".conf", got)
	}
}

// TestRenderRefusesLines puts a line break into every text of a Spec.
func TestRenderRefusesLines(t *testing.T) {
	for _, evil := range []string{"x\nlxc.cap.drop =", "x\rlxc.cap.drop =", "x\x00"} {
		for name, change := range map[string]func(*Spec){
			"hostname":    func(s *Spec) { s.Hostname = evil },
			"rootfs":      func(s *Spec) { s.Rootfs = evil },
			"group":       func(s *Spec) { s.PayloadCgroup = evil },
			"log":         func(s *Spec) { s.LogFile = evil },
			"variable":    func(s *Spec) { s.Environment = []Variable{{"A", evil}} },
			"its name":    func(s *Spec) { s.Environment = []Variable{{evil, "a"}} },
			"nic":         func(s *Spec) { s.Nics = []Nic{{Name: evil}} },
			"parent":      func(s *Spec) { s.Nics = []Nic{{Parent: evil}} },
			"mount":       func(s *Spec) { s.Mounts = []Mount{{Source: evil}} },
			"target":      func(s *Spec) { s.Mounts = []Mount{{Target: evil}} },
			"limit":       func(s *Spec) { s.Limits = []Limit{{Value: evil}} },
			"architecure": func(s *Spec) { s.Architecture = evil },
		} {
			s := base()
			change(&s)
			if _, err := Render(s); !errors.Is(err, api.Invalid) {
				t.Errorf("%s %q: %v, want a refusal", name, evil, err)
			}
		}
	}
}

func TestCheckRaw(t *testing.T) {
	for text, ok := range map[string]bool{
		"": true, "# only a comment": true, "lxc.prlimit.nofile = 10\n\nlxc.sysctl.net.ipv4.ip_forward=1": true,
		"lxc.rootfs.path = /": false, "LXC.ROOTFS.PATH = /": false, "lxc.idmap = u 0 0 1": false, "lxc.log.file = /etc/passwd": false,
		"lxc.include = /tmp/x": false, "lxc.net.0.type = none": false, "lxc.cgroup.dir.container = a": false, "lxc.uts.name = x": false,
		"prlimit = 1": false, "lxc.prlimit.nofile": false, "lxc.a = b\rlxc.rootfs.path = /": false,
	} {
		if err := CheckRaw(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSeccomp(t *testing.T) {
	for name, c := range map[string]SeccompConfig{
		"default":    {},
		"deny":       {Deny: []string{"keyctl errno 38", "bpf"}, Compat: true},
		"no-default": {NoDefault: true, Deny: []string{"bpf"}},
		"allow":      {Allow: []string{"read", "write [0,1,SCMP_CMP_LE]"}},
	} {
		got, err := Seccomp(c, "x86_64")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".seccomp", got)
	}
	for _, bad := range []SeccompConfig{{Deny: []string{"read\nreboot"}}, {Allow: []string{"a;b"}}, {Raw: "2\x00"}} {
		if _, err := Seccomp(bad, "x86_64"); !errors.Is(err, api.Invalid) {
			t.Errorf("%v: %v, want a refusal", bad, err)
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add("c1", "VALUE", "/mnt", "lxc.a = b")
	f.Add("a\nb", "\x00", " \\\t", "lxc.rootfs.path = /")
	f.Fuzz(func(t *testing.T, hostname, value, target, raw string) {
		s := base()
		before, err := Render(s)
		if err != nil {
			t.Fatal(err)
		}
		s.Hostname, s.Environment = hostname, []Variable{{"V", value}}
		s.Mounts, s.Raw = []Mount{{Source: "/s", Target: target, Type: "none"}}, raw
		got, err := Render(s)
		if err != nil {
			return
		}
		// Two lines more, and those of raw: nothing else may appear.
		extra := 2 + strings.Count(strings.TrimSuffix(raw, "\n"), "\n")
		if raw != "" {
			extra++
		}
		if have, want := strings.Count(got, "\n"), strings.Count(before, "\n")+extra; have != want {
			t.Errorf("%d lines, want %d:\n%s", have, want, got)
		}
	})
}
