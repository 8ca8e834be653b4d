package device

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		config map[string]string
		want   string // part of the error, "" for none
	}{
		{"eth0", map[string]string{"type": "nic", "network": "croftbr0"}, ""},
		{"eth0", map[string]string{"type": "nic", "nictype": "bridged", "parent": "br0", "hwaddr": "00:16:3e:00:00:01"}, ""},
		{"eth0", map[string]string{"type": "nic"}, "needs network=NETWORK"},
		{"eth0", map[string]string{"type": "nic", "nictype": "macvlan", "parent": "x"}, "allowed are bridged, p2p"},
		{"eth0", map[string]string{"type": "nic", "network": "n", "hwaddr": "01:16:3e:00:00:01"}, "multicast"},
		{"eth0", map[string]string{"type": "nic", "network": "n", "mtu": "12"}, "68 to 65535"},
		{"eth0", map[string]string{"type": "nic", "network": "n", "name": "a/b"}, "no white space, slash"},
		{"eth0", map[string]string{"type": "nic", "network": "n", "bogus": "1"}, `option "bogus" is not known`},
		{"root", map[string]string{"type": "disk", "path": "/", "pool": "default"}, ""},
		{"root", map[string]string{"type": "disk", "path": "//", "pool": "default"}, "path=/"},
		{"root", map[string]string{"type": "disk", "path": "/"}, "needs pool"},
		{"root", map[string]string{"type": "disk", "path": "/", "pool": "default", "size": "1GiB"}, "limit the size"},
		{"d", map[string]string{"type": "disk", "path": "/mnt/../etc", "source": "/tmp"}, "without .."},
		{"d", map[string]string{"type": "disk", "path": "/mnt", "source": "tmp"}, "absolute"},
		{"d", map[string]string{"type": "disk", "path": "/mnt", "source": "/a\nlxc.cap.drop ="}, "line break"},
		{"fuse", map[string]string{"type": "unix-char", "path": "/dev/fuse"}, ""},
		{"fuse", map[string]string{"type": "unix-char"}, "needs path"},
		{"fuse", map[string]string{"type": "unix-char", "path": "/dev/x", "major": "1"}, "both of major and minor"},
		{"fuse", map[string]string{"type": "unix-char", "path": "/dev/x", "mode": "0888"}, "octal"},
		{"x", map[string]string{"type": "bogus"}, "allowed are none, nic, disk"},
		{"a/b", map[string]string{"type": "none"}, "no slash"},
		{"n", map[string]string{"type": "none"}, ""},
	} {
		err := Validate(Device{c.name, c.config})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %v: error %v, want %q", c.name, c.config, err, c.want)
		}
	}
}

func TestPlan(t *testing.T) {
	env := Env{
		NetworkParent: func(n string) (string, string, error) {
			if n != "net" {
				return "", "", api.Errorf(api.NotFound, "network %s not found", n)
			}
			return "br-net", "1400", nil
		},
		Volatile: map[string]string{"hwaddr": "00:16:3e:aa:bb:cc", "host_name": "veth1"},
	}
	for _, c := range []struct {
		name   string
		config map[string]string
		want   Effect
	}{
		{"eth0", map[string]string{"type": "nic", "network": "net"}, Effect{Links: []Link{{Name: "eth0", HostName: "veth1", MAC: "00:16:3e:aa:bb:cc", Parent: "br-net", MTU: "1400", Network: "net"}}}},
		{"n", map[string]string{"type": "nic", "nictype": "p2p", "name": "up0", "hwaddr": "02:00:00:00:00:01", "host_name": "h"}, Effect{Links: []Link{{Name: "up0", HostName: "h", MAC: "02:00:00:00:00:01"}}}},
		{"d", map[string]string{"type": "disk", "path": "/mnt/", "source": "/srv", "readonly": "true", "required": "false"}, Effect{Mounts: []Mount{{Source: "/srv", Target: "/mnt", ReadOnly: true, Optional: true}}}},
		{"root", map[string]string{"type": "disk", "path": "/", "pool": "p"}, Effect{}},
		{"null", map[string]string{"type": "unix-char", "path": "/dev/mynull", "source": "/dev/null", "mode": "0600", "uid": "7"}, Effect{Nodes: []Node{{Path: "/dev/mynull", Major: 1, Minor: 3, Mode: 0o600, UID: 7}}}},
		{"gone", map[string]string{"type": "unix-char", "path": "/dev/nosuch", "required": "false"}, Effect{}},
	} {
		got, err := Plan(Device{c.name, c.config}, env)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	for _, bad := range []Device{
		{"eth0", map[string]string{"type": "nic", "network": "other"}},
		{"x", map[string]string{"type": "unix-char", "path": "/dev/nosuch"}},
		{"x", map[string]string{"type": "unix-block", "path": "/dev/null"}},
	} {
		if _, err := Plan(bad, env); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
