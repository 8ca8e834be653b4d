package device

import (
	"path"

	"github.com/croft-project/croft/api"
)

// disk is the root file system (path=/ and pool) or a directory or file of the
// host.
var disk = Type{
	Name: "disk",
	Options: map[string]Option{
		"path":      {"where it is in the container; / for the root", inside},
		"pool":      {"storage pool of the root", nil},
		"source":    {"directory or file of the host", absolute},
		"readonly":  {"refuse writes", boolean},
		"recursive": {"also the mounts below source", boolean},
		"optional":  {"start without it when source is missing", boolean},
		"required":  {"refuse to start when source is missing (default true)", boolean},
		"size":      {"quota of the root; not enforced by the drivers of this version, so only an empty value is allowed", noSize},
	},
	Check: checkDisk,
	Plan:  planDisk,
}

func noSize(string) error {
	return api.Errorf(api.Unsupported, "no storage driver of this version can limit the size")
}

// IsRoot reports whether a device is the root disk of an instance.
func IsRoot(d Device) bool { return d.Get("type") == "disk" && d.Get("path") == "/" }

func checkDisk(d Device) error {
	switch {
	case d.Get("path") == "":
		return api.Errorf(api.Invalid, "device %s: a disk needs path=PATH in the container", d.Name)
	case path.Clean(d.Get("path")) == "/" && d.Get("path") != "/":
		return api.Errorf(api.Invalid, "device %s: write the root as path=/, not %q", d.Name, d.Get("path"))
	case IsRoot(d) && d.Get("source") != "":
		return api.Errorf(api.Invalid, "device %s: the root disk has a pool and no source, got source %q", d.Name, d.Get("source"))
	case IsRoot(d) && d.Get("pool") == "":
		return api.Errorf(api.Invalid, "device %s: the root disk needs pool=POOL", d.Name)
	case IsRoot(d) && d.True("readonly"):
		return api.Errorf(api.Invalid, "device %s: the root disk cannot be readonly", d.Name)
	case !IsRoot(d) && d.Get("pool") != "":
		return api.Errorf(api.Unsupported, "device %s: volumes of pool %q cannot be attached in this version; only a source of the host can", d.Name, d.Get("pool"))
	case !IsRoot(d) && d.Get("source") == "":
		return api.Errorf(api.Invalid, "device %s: a disk other than the root needs source=PATH on the host", d.Name)
	}
	return nil
}

func planDisk(d Device, _ Env) (Effect, error) {
	if IsRoot(d) {
		return Effect{}, nil
	}
	return Effect{Mounts: []Mount{{
		Source: d.Get("source"), Target: path.Clean(d.Get("path")), ReadOnly: d.True("readonly"), Recursive: d.True("recursive"),
		Optional: d.True("optional") || d.Get("required") != "" && !d.True("required"),
	}}}, nil
}
