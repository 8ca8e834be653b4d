// Package device knows the kinds of device that an instance can have: which
// options each takes, and what it gives to a container. A device's effect is
// plain data; the engine applies and undoes it.
//
// A new kind is one file with a [Type] and one line in all.go.
package device

import (
	"maps"
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
)

// Device is one entry of an instance's or profile's devices.
type Device struct {
	Name   string
	Config map[string]string
}

// Get is the value of an option, or "".
func (d Device) Get(key string) string { return d.Config[key] }

// True reports whether a boolean option is on.
func (d Device) True(key string) bool {
	switch strings.ToLower(d.Config[key]) {
	case "true", "1", "yes", "on":
		return true
	}
	return false
}

// Env is what a device may ask of its surroundings while its effect is planned.
type Env struct {
	// NetworkParent gives the bridge of a managed network, and its MTU or "".
	NetworkParent func(network string) (parent, mtu string, err error)
	// Volatile is the daemon's memory of the device: keys without the prefix
	// volatile.NAME.
	Volatile map[string]string
	// Features tells clients' intent that needs the instance's state.
	Privileged bool
}

// Effect is what a device gives to a container.
type Effect struct {
	Links  []Link
	Mounts []Mount
	Nodes  []Node
}

// Link is a network interface.
type Link struct {
	Name     string // inside
	HostName string // outside
	MAC      string
	Parent   string // bridge the outer end joins; empty for none
	MTU      string
	Network  string // managed network, or ""
	IPv4     string // address reserved for it, or ""
	IPv6     string
}

// Mount is a directory or file of the host that the container sees.
type Mount struct {
	Source    string // absolute, on the host
	Target    string // absolute, in the container
	ReadOnly  bool
	Recursive bool
	Optional  bool // left out when Source is missing
}

// Node is a device node.
type Node struct {
	Block        bool
	Path         string // absolute, in the container
	Major, Minor uint32
	Mode         uint32
	UID, GID     int64 // in the container
}

// Type is one kind of device.
type Type struct {
	Name    string
	Options map[string]Option
	// Check looks at what single options cannot tell. May be nil.
	Check func(Device) error
	// Plan gives the effect in a container. It reads the host at most.
	Plan func(Device, Env) (Effect, error)
}

// Option is one option of a kind of device.
type Option struct {
	Help  string
	Check func(string) error // nil: any text without line breaks
}

// Validate checks one device as it stands in a configuration.
//
// Errors: Invalid naming the device, the option, its value and what is allowed.
func Validate(d Device) error {
	if err := checkName(d.Name); err != nil {
		return err
	}
	t, err := typeOf(d)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(d.Config)) {
		value := d.Config[key]
		if key == "type" || strings.HasPrefix(key, "user.") {
			continue
		}
		o, ok := t.Options[key]
		if !ok {
			return api.Errorf(api.Invalid, "device %s: option %q is not known for type %s; allowed are %s", d.Name, key, t.Name, strings.Join(slices.Sorted(maps.Keys(t.Options)), ", "))
		}
		if strings.ContainsAny(value, "\n\r\x00") {
			return api.Errorf(api.Invalid, "device %s: option %s: value %q holds a line break or NUL; neither is allowed", d.Name, key, value)
		}
		if o.Check == nil || value == "" {
			continue
		}
		if err := o.Check(value); err != nil {
			return api.Errorf(api.Invalid, "device %s: option %s: value %q: %w", d.Name, key, value, err)
		}
	}
	if t.Check != nil {
		return t.Check(d)
	}
	return nil
}

// Plan gives the effect of a valid device.
func Plan(d Device, env Env) (Effect, error) {
	t, err := typeOf(d)
	if err != nil || t.Plan == nil {
		return Effect{}, err
	}
	return t.Plan(d, env)
}

func typeOf(d Device) (Type, error) {
	name := d.Config["type"]
	for _, t := range All {
		if t.Name == name {
			return t, nil
		}
	}
	var known []string
	for _, t := range All {
		known = append(known, t.Name)
	}
	return Type{}, api.Errorf(api.Invalid, "device %s: type %q is not known; allowed are %s", d.Name, name, strings.Join(known, ", "))
}

func checkName(name string) error {
	bad := strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' })
	if name == "" || name == "." || name == ".." || len(name) > 64 || bad {
		return api.Errorf(api.Invalid, "device name %q is not allowed: use 1 to 64 characters, no white space and no slash", name)
	}
	return nil
}
