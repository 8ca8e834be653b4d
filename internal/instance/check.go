package instance

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/device"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/store"
)

// policy checks the final state of an instance. It is called wherever a record
// is about to be committed, with what the profiles make of it, and nowhere else
// decides what an instance may be.
//
// Errors: Invalid, naming the field, its value and what is allowed; NotFound
// for a pool or network that does not exist.
func (e *Engine) policy(tx store.Tx, l *loaded) error {
	if err := model.CheckInstanceName(l.Name); err != nil {
		return err
	}
	for i, p := range l.Profiles {
		if slices.Contains(l.Profiles[:i], p) {
			return api.Errorf(api.Invalid, "profiles: %s is given twice", p)
		}
	}
	if l.Stateful {
		return api.Errorf(api.Unsupported, "stateful: instances that keep their memory are not supported by this version")
	}
	if l.Architecture != e.arch {
		return api.Errorf(api.Invalid, "architecture %q cannot run on this host; allowed is %s", l.Architecture, e.arch)
	}
	if err := CheckConfig(l.Config); err != nil {
		return err
	}
	if err := e.checkExpanded(l.config); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(l.devices)) {
		if err := device.Validate(device.Device{Name: name, Config: l.devices[name]}); err != nil {
			return err
		}
	}
	return checkReferences(tx, l)
}

// CheckConfig validates the keys of an instance or a profile.
func CheckConfig(config map[string]string) error {
	if err := option.Instance.Validate(config); err != nil {
		return err
	}
	if config["raw.idmap"] != "" {
		return api.Errorf(api.Unsupported, "key raw.idmap: not supported by this version yet")
	}
	if v := config["security.idmap.size"]; v != "" {
		if n, err := strconv.Atoi(v); err != nil || n != idRange {
			return api.Errorf(api.Unsupported, "key security.idmap.size: value %q: this version gives every instance %d ids", v, idRange)
		}
	}
	return lxc.CheckRaw(config["raw.lxc"])
}

// checkVolatile validates the volatile keys that a client may set. What they hold
// ends up in the configuration of liblxc and of name servers.
func checkVolatile(volatile map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(volatile)) {
		value := volatile[key]
		if strings.ContainsFunc(value, unicode.IsControl) {
			return api.Errorf(api.Invalid, "key %s: value %q holds a control character; none is allowed", key, value)
		}
		if !strings.HasSuffix(key, ".hwaddr") || value == "" {
			continue
		}
		if mac, err := net.ParseMAC(value); err != nil || len(mac) != 6 || len(value) != 17 || value[2] != ':' {
			return api.Errorf(api.Invalid, "key %s: value %q is not allowed; allowed is a MAC address such as 00:16:3e:12:34:56", key, value)
		}
	}
	return nil
}

// checkExpanded looks at what profiles and instance say together.
func (e *Engine) checkExpanded(config map[string]string) error {
	if err := option.Instance.Validate(config); err != nil {
		return err
	}
	_, err := e.limits(config)
	return err
}

// checkReferences looks up what devices refer to.
func checkReferences(tx store.Tx, l *loaded) error {
	roots := 0
	names := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(l.devices)) {
		d := device.Device{Name: name, Config: l.devices[name]}
		if device.IsRoot(d) {
			roots++
			if _, _, err := store.Get[model.Pool](tx, model.PoolKey(d.Get("pool"))); err != nil {
				return err
			}
		}
		if d.Get("type") != "nic" {
			continue
		}
		if n := d.Get("network"); n != "" {
			if _, _, err := store.Get[model.Network](tx, model.NetworkKey(n)); err != nil {
				return err
			}
		}
		inside := d.Get("name")
		if inside == "" {
			inside = name
		}
		if other, taken := names[inside]; taken {
			return api.Errorf(api.Invalid, "devices %s and %s would both be called %s in the instance", other, name, inside)
		}
		names[inside] = name
	}
	if roots > 1 {
		return api.Errorf(api.Invalid, "devices: an instance has one root disk (type disk, path / and a pool), this one has %d", roots)
	}
	return nil
}

// CheckDevices validates the devices of a profile, which may be incomplete: a
// root without a pool can get it from another profile.
func CheckDevices(devices map[string]map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if err := device.Validate(device.Device{Name: name, Config: devices[name]}); err != nil {
			return err
		}
	}
	return nil
}

// checkNow is policy on a state that is not stored yet, for use in a request.
func (e *Engine) checkNow(ctx context.Context, l *loaded) error {
	return e.Store.View(ctx, func(tx store.Tx) error { return e.policy(tx, l) })
}
