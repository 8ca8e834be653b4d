package option

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/croft-project/croft/api"
)

func TestValidateInstance(t *testing.T) {
	for _, c := range []struct {
		key, value, want string // want: part of the error; empty: accepted
	}{
		{"boot.autostart", "True", ""},
		{"boot.autostart", "maybe", `value "maybe": allowed are true and false`},
		{"boot.autostart.priority", "-5", ""},
		{"boot.autostart.priority", "high", "whole numbers"},
		{"boot.host_shutdown_timeout", "-1", "from 0 to 86400"},
		{"limits.memory", "512MiB", ""},
		{"limits.memory", "50%", ""},
		{"limits.memory", "0", "above 0"},
		{"limits.memory", "101%", "1% to 100%"},
		{"limits.memory", "100Mb", `instance key limits.memory: value "100Mb": allowed are`},
		{"limits.memory.enforce", "soft", ""},
		{"limits.memory.enforce", "firm", "allowed are hard, soft"},
		{"limits.cpu", "2", ""},
		{"limits.cpu", "0-1,3", ""},
		{"limits.cpu", "0", "1 to 8192"},
		{"limits.cpu", "3-1", "a set such as"},
		{"limits.processes", "0", "from 1 on"},
		{"limits.cpu.allowance", "100%", ""}, // what happens anyway
		{"limits.cpu.allowance", "20%", "limits.cpu.allowance (value \"20%\") is not supported"},
		{"limits.cpu.allowance", "half", "25ms/100ms"}, // wrong before it is unsupported
		{"security.devlxd", "no", ""},
		{"security.devlxd", "true", "not supported"},
		{"security.syscalls.intercept.mknod", "false", ""},
		{"security.syscalls.intercept.mknod", "1", "not supported"},
		{"migration.stateful", "true", "not supported"},
		{"linux.kernel_modules", "overlay, ip_tables,nf-nat", ""},
		{"linux.kernel_modules", "--remove", "kernel module"},
		{"linux.kernel_modules", "a/../b", "kernel module"},
		{"environment.FOO", "a b=c", ""},
		{"environment.", "x", "has no key"},
		{"environment.A=B", "x", "no '='"},
		{"environment.FOO", "a\nlxc.mount.entry = evil", `'\n' is not allowed`},
		{"user.x", "a\r\nb", ""},
		{"user.x", "a\x00b", `'\x00' is not allowed`},
		{"user.a\nb", "x", "has no key"},
		{"raw.lxc", "lxc.a = b\nlxc.c = d", ""},
		{"raw.lxc", "a\rb", `'\r' is not allowed`},
		{"raw.idmap", "both 1000 1000\nuid 50-60 500-510", ""},
		{"raw.idmap", "both 1000", "line"},
		{"raw.idmap", "uid 1-2 1-3", "equally long"},
		{"security.syscalls.deny", "kexec_load\nkeyctl errno 38", ""},
		{"security.syscalls.deny", "kexec_load\n[all]", `line "[all]"`},
		{"security.syscalls.blacklist", "2", `line "2"`},
		{"cloud-init.user-data", "#cloud-config\nx: y\n", ""},
		{"volatile.eth0.hwaddr", "00:16:3e:00:00:01", ""},
		{"image.os", "Busybox", ""},
		{"limits.memory", "", ""}, // unset
		{"nosuchkey", "1", `instance has no key "nosuchkey"`},
		{"nosuchkey", "", "has no key"},
		{"agent.nic_config", "true", "not supported"},
	} {
		err := Instance.Validate(map[string]string{c.key: c.value})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s=%q: %v", c.key, c.value, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, api.Invalid)):
			t.Errorf("%s=%q: got %v, want %q", c.key, c.value, err, c.want)
		}
	}
}

func TestFirstBadKey(t *testing.T) {
	err := Instance.Validate(map[string]string{"limits.memory": "x", "boot.autostart": "x", "user.a": "1", "zzz": "1"})
	if err == nil || !strings.Contains(err.Error(), "boot.autostart") {
		t.Errorf("got %v, want the first bad key", err)
	}
	err = Instance.Validate(map[string]string{"security.syscalls.allow": "read", "security.syscalls.blacklist": "write"})
	if err == nil || !strings.Contains(err.Error(), "exclude each other") {
		t.Errorf("got %v", err)
	}
	if hint := api.HintOf(Instance.Check("limit.memory", "1")); !strings.Contains(hint, "limits.memory?") {
		t.Errorf("hint %q", hint)
	}
}

func TestSecretIsNotShown(t *testing.T) {
	err := Server.Check("core.trust_password", "hunter2")
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestServerAndPool(t *testing.T) {
	for key, ok := range map[string]bool{
		"core.shutdown_timeout=10": true, "core.shutdown_timeout=x": false, "user.a=b": true, "core.idmap_base=2000000": false,
		"core.https_address=:8443": false, "images.auto_update_interval=0": true, "images.compression_algorithm=gzip -9": false,
		"nosuch=1": false,
	} {
		k, v, _ := strings.Cut(key, "=")
		if err := Server.Check(k, v); (err == nil) != ok {
			t.Errorf("server %s: %v", key, err)
		}
	}
	for key, ok := range map[string]bool{
		"source=/x": true, "rsync.bwlimit=10MB": true, "bogus=1": false, "user.k=v": true, "size=1GB": false, "volume.size=1GB": false,
	} {
		k, v, _ := strings.Cut(key, "=")
		if err := Pool("dir").Check(k, v); (err == nil) != ok {
			t.Errorf("pool %s: %v", key, err)
		}
	}
	if err := Pool("btrfs").Check("size", "1GB"); err == nil || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("got %v", err)
	}
}

func TestListenAddress(t *testing.T) {
	for s, ok := range map[string]bool{
		":8443": true, "192.0.2.1": true, "192.0.2.1:8443": true, "[::]:8443": true, "::1": true, "[::1]": true,
		"localhost": false, ":x": false, "1.2.3.4:99999": false, "": false,
	} {
		if err := checkListen(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestGet(t *testing.T) {
	cfg := map[string]string{"security.syscalls.blacklist": "x", "limits.memory.swap": "", "security.privileged": "On"}
	for key, want := range map[string]string{
		"security.syscalls.deny": "x", "limits.memory.swap": "true", "boot.host_shutdown_timeout": "30", "limits.memory": "", "nosuch": "",
	} {
		if got := Instance.Get(cfg, key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if !Instance.Bool(cfg, "limits.memory.swap") || !Instance.Bool(cfg, "security.privileged") || Bool(cfg, "security.nesting") {
		t.Error("truth values")
	}
	if !Instance.Live("limits.memory") || Instance.Live("raw.lxc") || Instance.Live("nosuch") || !Instance.Live("environment.X") {
		t.Error("live flags")
	}
}

// TestTables checks what holds for every key of every table.
func TestTables(t *testing.T) {
	for name, table := range map[string]*Table{"instance": Instance, "server": Server, "dir": Pool("dir"), "zfs": Pool("zfs"), "lvm": Pool("lvm")} {
		seen := map[string]bool{}
		for _, k := range table.Docs() {
			if seen[k.Name] {
				t.Errorf("%s: %s is there twice", name, k.Name)
			}
			seen[k.Name] = true
			if !strings.HasSuffix(k.Description, ".") || k.Description == "" {
				t.Errorf("%s: %s: description %q", name, k.Name, k.Description)
			}
			if (k.Type == TypeEnum) != (len(k.Allowed) > 0) {
				t.Errorf("%s: %s: type %s with allowed values %v", name, k.Name, k.Type, k.Allowed)
			}
			if k.Default != "" {
				if err := k.checkValue(k.Default); err != nil {
					t.Errorf("%s: %s: default %q: %v", name, k.Name, k.Default, err)
				}
			}
			if k.AliasOf != "" {
				if target, ok := table.Lookup(k.AliasOf); !ok || target.Type != k.Type {
					t.Errorf("%s: %s is an alias of %s", name, k.Name, k.AliasOf)
				}
			}
			if k.Inert != "" && k.Supported {
				t.Errorf("%s: %s is supported and has an inert value", name, k.Name)
			}
			if err := table.Check(strings.Replace(k.Name, "*", "x", 1), k.Inert); err != nil {
				t.Errorf("%s: %s: inert value: %v", name, k.Name, err)
			}
		}
	}
}

// TestKnowsDocumentedKeys: every key in LXD 5.0.2's documentation is in a table.
func TestKnowsDocumentedKeys(t *testing.T) {
	data, err := os.ReadFile("testdata/lxd-5.0.2-keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]*Table{"instance": Instance, "server": Server}
	n := 0
	for line := range strings.Lines(string(data)) {
		entity, key, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		n++
		if _, ok := tables[entity].Lookup(strings.ReplaceAll(strings.ReplaceAll(key, "<name>", "eth0"), "*", "x")); !ok {
			t.Errorf("%s key %s is not known", entity, key)
		}
	}
	if n < 100 {
		t.Errorf("only %d keys in the list", n)
	}
}

// FuzzValidate: no accepted value of any key can add a line to a file that is
// made of values, and no input makes the tables panic.
func FuzzValidate(f *testing.F) {
	f.Add("environment.A", "x\nlxc.hook = y")
	f.Add("limits.cpu", "0-3,5")
	f.Add("raw.idmap", "both 1 1")
	f.Add("security.syscalls.allow", "read\n[x]")
	f.Add("user.\x00", "\r")
	f.Fuzz(func(t *testing.T, key, value string) {
		for _, table := range []*Table{Instance, Server, Pool("dir")} {
			if table.Check(key, value) != nil || value == "" {
				continue
			}
			if strings.ContainsAny(key, "\x00\r\n") || strings.Contains(value, "\x00") {
				t.Errorf("%q=%q was accepted", key, value)
			}
			k, ok := table.Lookup(key)
			if !ok {
				t.Fatalf("%q was accepted and is not known", key)
			}
			if k.Type != TypeLines && k.Type != TypeText && strings.ContainsAny(value, "\r\n") {
				t.Errorf("%q=%q was accepted", key, value)
			}
		}
	})
}
