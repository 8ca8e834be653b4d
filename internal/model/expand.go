package model

import (
	"maps"
	"slices"
	"strings"
)

// Expand folds profiles, in the order given, and then the instance's own
// configuration and devices, into what the instance gets: later ones win, a key
// at a time for configuration and a whole device at a time for devices.
func Expand(profiles []*Profile, config map[string]string, devices map[string]map[string]string) (map[string]string, map[string]map[string]string) {
	c, d := map[string]string{}, map[string]map[string]string{}
	for _, p := range profiles {
		maps.Copy(c, p.Config)
		maps.Copy(d, p.Devices)
	}
	maps.Copy(c, config)
	maps.Copy(d, devices)
	return c, d
}

// RootDevice finds the disk that is the root of an instance: of type disk with
// path / and a pool.
func RootDevice(devices map[string]map[string]string) (name string, dev map[string]string, ok bool) {
	for _, n := range slices.Sorted(maps.Keys(devices)) {
		if d := devices[n]; d["type"] == "disk" && d["path"] == "/" {
			return n, d, true
		}
	}
	return "", nil, false
}

// SplitVolatile parts a configuration into the user's keys and the daemon's own.
func SplitVolatile(config map[string]string) (user, volatile map[string]string) {
	user, volatile = map[string]string{}, map[string]string{}
	for k, v := range config {
		if strings.HasPrefix(k, "volatile.") {
			volatile[k] = v
		} else {
			user[k] = v
		}
	}
	return user, volatile
}
