package main

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/croft-project/croft/api"
)

// croftd runs a command line and gives its exit code and output.
func croftd(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &o, &e)
	return code, o.String(), e.String()
}

func mustRun(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	code, out, errOut := croftd(t, stdin, args...)
	if code != 0 {
		t.Fatalf("croftd %v: exit code %d: %s", args, code, errOut)
	}
	return out
}

func TestInitAuto(t *testing.T) {
	f := newFake(t)
	f.networks["croftbr0"] = api.Network{Name: "croftbr0", Type: "bridge"} // another daemon's
	mustRun(t, "", "init", "--auto")
	if p := f.pools["default"]; p.Driver != "overlay" {
		t.Errorf("pool: got %+v", p)
	}
	n := f.networks["croftbr1"]
	if n.Config["ipv4.address"] != "auto" || n.Config["ipv6.address"] != "auto" {
		t.Errorf("network: got %+v", n)
	}
	devices := f.profiles["default"].Devices
	if !maps.Equal(devices["eth0"], map[string]string{"type": "nic", "name": "eth0", "network": "croftbr1"}) ||
		!maps.Equal(devices["root"], map[string]string{"type": "disk", "path": "/", "pool": "default"}) {
		t.Errorf("default profile: got %v", devices)
	}
	calls := slices.Clone(f.calls)
	mustRun(t, "", "init", "--auto")
	if !slices.Equal(f.calls, calls) {
		t.Errorf("the second time something was changed: %v", f.calls[len(calls):])
	}
}

func TestInitAutoChoices(t *testing.T) {
	t.Run("without overlay", func(t *testing.T) {
		f := newFake(t)
		f.drivers = []string{"dir"}
		mustRun(t, "", "init", "--minimal")
		if f.pools["default"].Driver != "dir" {
			t.Errorf("pool: got %+v", f.pools)
		}
	})
	t.Run("flags", func(t *testing.T) {
		f := newFake(t)
		mustRun(t, "", "init", "--auto", "--storage-backend=dir", "--storage-pool=fast", "--network-address=::1")
		if f.pools["fast"].Driver != "dir" || f.profiles["default"].Devices["root"]["pool"] != "fast" {
			t.Errorf("pool: got %+v, %v", f.pools, f.profiles["default"].Devices)
		}
		if f.config["core.https_address"] != "[::1]:8443" {
			t.Errorf("config: got %v", f.config)
		}
	})
	t.Run("what is there stays", func(t *testing.T) {
		f := newFake(t)
		f.pools["mine"] = api.StoragePool{Name: "mine", Driver: "dir"}
		f.networks["lan"] = api.Network{Name: "lan", Type: "bridge", Managed: true}
		f.profiles["default"] = api.Profile{Name: "default", ProfilePut: api.ProfilePut{
			Config:  map[string]string{"limits.cpu": "2"},
			Devices: map[string]map[string]string{"disk0": {"type": "disk", "path": "/", "pool": "mine"}},
		}}
		mustRun(t, "", "init", "--auto")
		p := f.profiles["default"]
		if len(f.pools) != 1 || p.Config["limits.cpu"] != "2" || len(p.Devices) != 2 || p.Devices["eth0"]["network"] != "lan" {
			t.Errorf("pools %v, profile %+v", f.pools, p)
		}
	})
}

func TestInitRollsBack(t *testing.T) {
	f := newFake(t)
	f.fail["PUT /1.0/profiles/default"] = "no such luck"
	code, _, errOut := croftd(t, "", "init", "--auto")
	if code != 1 || !strings.Contains(errOut, "profile default: no such luck") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	if len(f.pools) != 0 || len(f.networks) != 1 {
		t.Errorf("left behind: pools %v, networks %v", f.pools, f.networks)
	}
}

const preseedText = `
config:
  user.site: lab
networks:
- name: lan
  type: bridge
  config:
    ipv4.address: 10.1.2.1/24
    ipv4.nat: true
  project: default
storage_pools:
- name: data
  driver: dir
  config:
    source: /srv/data
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: data}
- name: web
  description: For web servers
  config:
    limits.cpu: 2
projects:
- name: default
  config: {}
`

func TestInitPreseed(t *testing.T) {
	f := newFake(t)
	mustRun(t, "", "init", "--preseed")
	if len(f.calls) != 0 {
		t.Errorf("an empty preseed changed something: %v", f.calls)
	}
	mustRun(t, preseedText, "init", "--preseed")
	if f.config["user.site"] != "lab" || f.networks["lan"].Config["ipv4.nat"] != "true" || f.pools["data"].Config["source"] != "/srv/data" {
		t.Errorf("config %v, networks %v, pools %v", f.config, f.networks, f.pools)
	}
	web := f.profiles["web"]
	if web.Config["limits.cpu"] != "2" || web.Description != "For web servers" || f.profiles["default"].Description != "Default profile" {
		t.Errorf("profiles: got %+v", f.profiles)
	}
	// Once more, with a change: keys that are not named stay.
	mustRun(t, "networks:\n- name: lan\n  config: {user.a: b}\n", "init", "--preseed")
	if cfg := f.networks["lan"].Config; cfg["user.a"] != "b" || cfg["ipv4.address"] != "10.1.2.1/24" {
		t.Errorf("network: got %v", cfg)
	}
}

func TestInitPreseedRefusals(t *testing.T) {
	for name, text := range map[string]string{
		"unknown field":     "storage_pool:\n- name: x\n",
		"not a map":         "- a\n- b\n",
		"no YAML":           "{",
		"cluster":           "cluster:\n  enabled: true\n",
		"project":           "projects:\n- name: web\n",
		"network's project": "networks:\n- name: lan\n  project: web\n",
		"too much":          strings.Repeat("#", maxPreseed+1),
		"pool's driver":     "storage_pools:\n- name: data\n  driver: overlay\n",
		"host's interface":  "networks:\n- name: eth0\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.pools["data"] = api.StoragePool{Name: "data", Driver: "dir"}
			code, _, errOut := croftd(t, text, "init", "--preseed")
			if code != 1 || !strings.HasPrefix(errOut, "Error: ") {
				t.Errorf("exit code %d: %s", code, errOut)
			}
			if len(f.calls) != 0 {
				t.Errorf("something was changed: %v", f.calls)
			}
		})
	}
}

// TestInitDump prints what --preseed takes to make the same again.
func TestInitDump(t *testing.T) {
	f := newFake(t)
	mustRun(t, preseedText, "init", "--preseed")
	text := mustRun(t, "", "init", "--dump")
	p, err := readPreseed(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if len(p.Networks) != 1 || p.Networks[0].Name != "lan" || len(p.StoragePools) != 1 || len(p.Profiles) != 2 || p.Config["user.site"] != "lab" {
		t.Errorf("dump: got\n%s", text)
	}
	calls := len(f.calls)
	mustRun(t, text, "init", "--preseed")
	for _, c := range f.calls[calls:] {
		if !strings.HasPrefix(c, "PUT ") {
			t.Errorf("what was dumped is not what is there: %s", c)
		}
	}
}

func TestUsage(t *testing.T) {
	newFake(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"init"}, 2, "--auto, --preseed or --dump"},
		{[]string{"init", "--auto", "--dump"}, 2, "exclude each other"},
		{[]string{"init", "--dump", "--storage-backend=dir"}, 2, "go with --auto"},
		{[]string{"init", "--auto", "--network-port=1"}, 2, "--network-address"},
		{[]string{"init", "--auto", "--storage-create-loop=5"}, 1, "not supported"},
		{[]string{"init", "--auto", "--trust-password=x"}, 1, "not supported"},
		{[]string{"init", "surplus"}, 2, "unknown command"},
		{[]string{"nonsense"}, 2, "unknown command"},
		{[]string{"--nonsense"}, 2, "unknown flag"},
		{[]string{"waitready", "--timeout", "soon"}, 2, "invalid argument"},
	} {
		code, _, errOut := croftd(t, "", c.args...)
		if code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("croftd %v: exit code %d (want %d): %s", c.args, code, c.code, errOut)
		}
	}
	if out := mustRun(t, "", "--version"); strings.TrimSpace(out) == "" {
		t.Error("no version")
	}
}

func TestWithoutDaemon(t *testing.T) {
	t.Setenv("CROFT_DIR", t.TempDir())
	for _, args := range [][]string{{"init", "--auto"}, {"shutdown"}, {"waitready", "--timeout", "1"}} {
		if code, _, errOut := croftd(t, "", args...); code != 1 || !strings.Contains(errOut, "unix.socket") {
			t.Errorf("croftd %v: exit code %d: %s", args, code, errOut)
		}
	}
	mustRun(t, "", "activateifneeded")
}

func TestStateDir(t *testing.T) {
	t.Setenv("CROFT_DIR", "")
	t.Setenv("LXD_DIR", "")
	if dir, _ := stateDir(); dir != defaultDir {
		t.Errorf("default: got %s", dir)
	}
	t.Setenv("LXD_DIR", "/x/lxd/")
	if dir, _ := stateDir(); dir != "/x/lxd" {
		t.Errorf("LXD_DIR: got %s", dir)
	}
	t.Setenv("CROFT_DIR", "/x/croft")
	if dir, _ := stateDir(); dir != "/x/croft" {
		t.Errorf("CROFT_DIR goes first: got %s", dir)
	}
}

func FuzzReadPreseed(f *testing.F) {
	f.Add(preseedText)
	f.Add("")
	f.Add("networks:\n- ")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := readPreseed(strings.NewReader(text)); err != nil {
			var known *api.Error
			if !errors.As(err, &known) {
				t.Errorf("error without a kind: %v", err)
			}
		}
	})
}
