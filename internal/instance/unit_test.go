package instance

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
)

// daemonDir makes a directory that counts as a daemon's.
func daemonDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, DatabaseFile)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIDRegister(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ids")
	one, two := newIDRegister(file, daemonDir(t)), newIDRegister(file, daemonDir(t))
	seen := map[int64]bool{}
	var mu sync.Mutex
	var g sync.WaitGroup
	for _, r := range []*idRegister{one, two, one, two} {
		g.Go(func() {
			for range 50 {
				base, err := r.take()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[base] || base < idFirst || base+idRange > idFirst+idTotal || (base-idFirst)%idRange != 0 {
					t.Errorf("range %d is not valid or was given twice", base)
				}
				seen[base] = true
				mu.Unlock()
			}
		})
	}
	g.Wait()
	var first int64 // of those that daemon one has
	for base := range one.used {
		if first == 0 || base < first {
			first = base
		}
	}
	one.give(first)
	if base, err := one.take(); err != nil || base != first {
		t.Errorf("a returned range: %d, %v, want %d again", base, err, first)
	}

	// A daemon that is gone loses its blocks, one that is there keeps them.
	gone := newIDRegister(file, filepath.Join(t.TempDir(), "never"))
	if _, err := gone.take(); err != nil {
		t.Fatal(err)
	}
	var owned int
	err := newIDRegister(file, daemonDir(t)).withFile(func(owners map[int]string) error {
		for _, o := range owners {
			if o == gone.stateDir {
				t.Error("a daemon without a database still owns a block")
			}
			owned++
		}
		return nil
	})
	if err != nil || owned != 4 {
		t.Errorf("%d blocks are owned, %v, want 4 for 100 ranges of each of two", owned, err)
	}

	// After a restart: what instances have is not given again.
	again := newIDRegister(file, one.stateDir)
	if err := again.reserve([]int64{first, first + idRange}); err != nil {
		t.Fatal(err)
	}
	if base, err := again.take(); err != nil || base == first || base == first+idRange {
		t.Errorf("after a restart: %d, %v", base, err)
	}
	if err := two.reserve([]int64{first}); !errors.Is(err, api.Conflict) {
		t.Errorf("another daemon's range was accepted: %v", err)
	}
}

func TestIDRegisterSurvivesNonsense(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ids")
	if err := os.WriteFile(file, []byte("x\n-1 \"/a\"\n99999999 \"/a\"\n0 unquoted\n\x00\x00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newIDRegister(file, daemonDir(t))
	if base, err := r.take(); err != nil || base != idFirst {
		t.Errorf("take: %d, %v", base, err)
	}
}

func TestCommand(t *testing.T) {
	config := map[string]string{"environment.A": "config", "environment.B": "config", "user.x": "no"}
	got, err := command(api.InstanceExecPost{Command: []string{"true"}, Environment: map[string]string{"B": "request"}}, config)
	if err != nil {
		t.Fatal(err)
	}
	want := lxc.Command{Args: []string{"true"}, Cwd: "/root", AnyCwd: true, Env: []lxc.Variable{
		{Name: "A", Value: "config"}, {Name: "B", Value: "request"}, {Name: "HOME", Value: "/root"}, {Name: "LANG", Value: "C.UTF-8"},
		{Name: "PATH", Value: defaultPath}, {Name: "USER", Value: "root"},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got, err = command(api.InstanceExecPost{Command: []string{"true"}, User: 1000, Group: 7, Cwd: "/tmp"}, nil)
	if err != nil || got.Cwd != "/tmp" || got.AnyCwd || got.UID != 1000 || got.GID != 7 || len(got.Env) != 2 {
		t.Errorf("as a user: %+v, %v", got, err)
	}
	for _, bad := range []api.InstanceExecPost{
		{Command: []string{"true"}, Cwd: "relative"}, {Command: []string{"a\x00b"}},
		{Command: []string{"true"}, Environment: map[string]string{"A=B": "c"}}, {Command: []string{"true"}, Environment: map[string]string{"A": "\x00"}},
	} {
		if _, err := command(bad, nil); !errors.Is(err, api.Invalid) {
			t.Errorf("%+v: %v, want a refusal", bad, err)
		}
	}
}

func TestInstanceType(t *testing.T) {
	for kind, want := range map[string]map[string]string{
		"": {}, "c2": {"limits.cpu": "2"}, "c1-m1": {"limits.cpu": "1", "limits.memory": "1024MB"}, "m0.5": {"limits.memory": "512MB"},
		"x1": nil, "c": nil, "c0": nil, "c1.5": nil, "m-1": nil, "c1--m1": nil, "m9999999": nil,
	} {
		req := api.InstancesPost{InstanceType: kind}
		err := applyInstanceType(&req)
		if want == nil {
			if !errors.Is(err, api.Invalid) {
				t.Errorf("%q: %v, want a refusal", kind, err)
			}
			continue
		}
		if d := cmp.Diff(want, req.Config); err != nil || d != "" {
			t.Errorf("%q: %v %s", kind, err, d)
		}
	}
	req := api.InstancesPost{InstanceType: "c4-m4", InstancePut: api.InstancePut{Config: map[string]string{"limits.cpu": "1"}}}
	if err := applyInstanceType(&req); err != nil || req.Config["limits.cpu"] != "1" {
		t.Errorf("an explicit limit has to win: %v, %v", req.Config, err)
	}
}

func TestVolatileKeys(t *testing.T) {
	devices := map[string]map[string]string{"eth0": {"type": "nic"}, "eth1": {"type": "nic", "hwaddr": "02:00:00:00:00:01"}, "root": {"type": "disk"}}
	local := &model.Local{Volatile: map[string]string{
		"volatile.idmap.base": "1000000", "volatile.eth0.hwaddr": "00:16:3e:00:00:01", "volatile.eth1.hwaddr": "00:16:3e:00:00:02",
		"volatile.gone.hwaddr": "00:16:3e:00:00:03", "volatile.eth0.host_name": "veth1",
	}}
	sent := map[string]string{"volatile.idmap.base": "0", "volatile.eth0.hwaddr": "00:16:3e:00:00:01", "volatile.eth0.host_name": "x", "volatile.own": "1"}
	got := keptVolatile(local, sent, devices).Volatile
	want := map[string]string{"volatile.idmap.base": "1000000", "volatile.eth0.hwaddr": "00:16:3e:00:00:01", "volatile.eth0.host_name": "veth1", "volatile.own": "1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if local.Volatile["volatile.own"] != "" {
		t.Error("the record that others read was changed")
	}
	// Unset by the user: a new address.
	got = keptVolatile(local, map[string]string{}, devices).Volatile
	if mac := got["volatile.eth0.hwaddr"]; mac == "" || mac == "00:16:3e:00:00:01" || !strings.HasPrefix(mac, "00:16:3e:") {
		t.Errorf("a new address: %q", mac)
	}
}

func TestLimitChanges(t *testing.T) {
	l := func(file, value string) lxc.Limit { return lxc.Limit{Controller: "memory", File: file, Value: value} }
	for name, c := range map[string]struct{ old, now, want []lxc.Limit }{
		"nothing": {[]lxc.Limit{l("a", "1")}, []lxc.Limit{l("a", "1")}, nil},
		"set":     {nil, []lxc.Limit{l("pids.max", "4")}, []lxc.Limit{l("pids.max", "4")}},
		"lift":    {[]lxc.Limit{l("pids.max", "4")}, nil, []lxc.Limit{l("pids.max", "max")}},
		// Memory with swap may never be below memory: lift it first.
		"lift both": {[]lxc.Limit{l("memory.limit_in_bytes", "4"), l("memory.memsw.limit_in_bytes", "4")}, nil, []lxc.Limit{l("memory.memsw.limit_in_bytes", "-1"), l("memory.limit_in_bytes", "-1")}},
		"all cpus":  {[]lxc.Limit{l("cpuset.cpus", "1")}, nil, []lxc.Limit{l("cpuset.cpus", "0,1")}},
	} {
		if d := cmp.Diff(c.want, limitChanges(c.old, c.now, "0,1")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestWantsStart(t *testing.T) {
	e := &Engine{bootID: "now", live: map[string]*live{}}
	for _, c := range []struct {
		auto  string
		power model.Power
		boot  string
		want  bool
	}{
		{"", model.PowerRunning, "before", true}, // the host was rebooted
		{"", model.PowerRunning, "", true},       // stopped with the host
		{"", model.PowerRunning, "now", false},   // cannot be: it would be live
		{"", model.PowerStopped, "before", false},
		{"", model.PowerStopped, "", false},
		{"true", model.PowerStopped, "", true}, // never started
		{"true", model.PowerStopped, "before", true},
		{"true", model.PowerStopped, "now", false}, // stopped by somebody since
		{"false", model.PowerRunning, "before", false},
	} {
		l := &loaded{
			Instance: &model.Instance{Project: "default", Name: "c1", Phase: model.Ready},
			local:    &model.Local{Power: c.power, BootID: c.boot}, config: map[string]string{},
		}
		if c.auto != "" {
			l.config["boot.autostart"] = c.auto
		}
		if got := e.wantsStart(l); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
		l.Phase = model.Deleting
		if e.wantsStart(l) {
			t.Errorf("%+v: wants to start what is being deleted", c)
		}
	}
}

func TestLogNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"lxc.log": true, "lxc.conf": true, "console.log": true, "exec_01234567-89ab-cdef-0123-456789abcdef.stdout": true,
		"": false, "..": false, "../lxc.log": false, "lxc.log/..": false, "seccomp": false, "lxc.log\n": false, "exec_x.stdout": false,
		"exec_01234567-89ab-cdef-0123-456789abcdef.stdout/": false, "exec_01234567-89ab-cdef-0123-456789abcdef.log": false,
	} {
		if logName.MatchString(name) != ok {
			t.Errorf("%q: want %v", name, ok)
		}
	}
}

func TestETag(t *testing.T) {
	for tag, want := range map[string]uint64{"": 0, "7": 7, `"7"`: 7} {
		if got, err := parseETag(tag); err != nil || uint64(got) != want {
			t.Errorf("%q: %d, %v", tag, got, err)
		}
	}
	for _, bad := range []string{"x", "-1", "0", "abc123"} {
		if _, err := parseETag(bad); !errors.Is(err, api.Precondition) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestTreeIDs(t *testing.T) {
	m := &tree{idmap: linux.IDMap{{ContainerID: 0, HostID: 1000000, Count: 65536, UID: true, GID: true}}}
	if u, g, err := m.ids(0, 1000); u != 1000000 || g != 1001000 || err != nil {
		t.Errorf("to the host: %d %d %v", u, g, err)
	}
	if _, _, err := m.ids(70000, 0); !errors.Is(err, api.Invalid) {
		t.Errorf("an id outside of the map: %v", err)
	}
	if u, g := m.inside(1000007, 5); u != 7 || g != 65534 {
		t.Errorf("to the container: %d %d", u, g)
	}
	if u, g := (&tree{}).inside(7, 8); u != 7 || g != 8 {
		t.Errorf("unmapped: %d %d", u, g)
	}
}
