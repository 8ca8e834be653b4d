package model

import (
	"errors"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

func TestCheckInstanceName(t *testing.T) {
	for name, ok := range map[string]bool{
		"c1": true, "C1": true, "a": true, "web-01": true, "a--b": true, strings.Repeat("a", 63): true,
		"": false, "1a": false, "-a": false, "a-": false, "a_b": false, "a.b": false, "a/b": false, "a b": false, "ä": false,
		"a\n": false, "a\x00": false, "..": false, strings.Repeat("a", 64): false,
	} {
		err := CheckInstanceName(name)
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err != nil && !errors.Is(err, api.Invalid) {
			t.Errorf("%q: kind %s", name, api.KindOf(err))
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"default": true, "a.b": true, "a_b": true, "ä": true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "a\n": false, "a?": false, "a%2f": false, "a#": false, `a\b`: false,
	} {
		if err := CheckName("profile", name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, ok := range map[string]bool{"debian/12": true, "a b": true, "": false, "a\nb": false} {
		if err := CheckAliasName(name); (err == nil) != ok {
			t.Errorf("alias %q: %v", name, err)
		}
	}
}

// TestExpandIsAFold compares with applying one key after the other.
func TestExpandIsAFold(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func() map[string]string {
		out := map[string]string{}
		for range r.IntN(5) {
			out["k"+strconv.Itoa(r.IntN(6))] = strconv.Itoa(r.IntN(100))
		}
		return out
	}
	devices := func() map[string]map[string]string {
		out := map[string]map[string]string{}
		for range r.IntN(3) {
			out["d"+strconv.Itoa(r.IntN(3))] = some()
		}
		return out
	}
	for range 500 {
		var profiles []*Profile
		wantC, wantD := map[string]string{}, map[string]map[string]string{}
		add := func(c map[string]string, d map[string]map[string]string) {
			maps.Copy(wantC, c)
			for name, dev := range d {
				wantD[name] = dev // as a whole
			}
		}
		for range r.IntN(4) {
			p := &Profile{ProfilePut: api.ProfilePut{Config: some(), Devices: devices()}}
			profiles = append(profiles, p)
			add(p.Config, p.Devices)
		}
		config, devs := some(), devices()
		add(config, devs)
		gotC, gotD := Expand(profiles, config, devs)
		if d := cmp.Diff(wantC, gotC) + cmp.Diff(wantD, gotD); d != "" {
			t.Fatal(d)
		}
	}
}

func TestPhases(t *testing.T) {
	legal := map[Phase]map[Action]Phase{
		Creating: {Finish: Ready, Delete: Deleting},
		Ready:    {Rename: Renaming, Delete: Deleting},
		Renaming: {Finish: Ready},
		Deleting: {Delete: Deleting},
	}
	for _, p := range []Phase{Creating, Ready, Renaming, Deleting, ""} {
		for _, a := range []Action{Finish, Rename, Delete, ""} {
			got, err := p.Next(a)
			want, ok := legal[p][a]
			switch {
			case ok && (err != nil || got != want):
				t.Errorf("%s, %s: got %s, %v, want %s", p, a, got, err, want)
			case !ok && (!errors.Is(err, api.BadState) || got != p):
				t.Errorf("%s, %s: got %s, %v, want a refusal", p, a, got, err)
			}
		}
	}
}

func TestRootDeviceAndVolatile(t *testing.T) {
	name, dev, ok := RootDevice(map[string]map[string]string{"d": {"type": "disk", "path": "/mnt"}, "r": {"type": "disk", "path": "/", "pool": "p"}, "n": {"type": "nic"}})
	if name != "r" || dev["pool"] != "p" || !ok {
		t.Errorf("root device: %s %v %v", name, dev, ok)
	}
	if _, _, ok := RootDevice(nil); ok {
		t.Error("a root device was found in nothing")
	}
	user, volatile := SplitVolatile(map[string]string{"user.volatile.x": "1", "volatile.eth0.hwaddr": "2"})
	if len(user) != 1 || len(volatile) != 1 || volatile["volatile.eth0.hwaddr"] != "2" {
		t.Errorf("split: %v %v", user, volatile)
	}
	if got := DirName("default", "c1") + " " + DirName("web", "c1"); got != "c1 web_c1" {
		t.Errorf("directory names: %s", got)
	}
}
