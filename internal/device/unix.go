package device

import (
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

var unixChar = unixType("unix-char", unix.S_IFCHR)

var unixBlock = unixType("unix-block", unix.S_IFBLK)

// unixType is a device node, named by its path alone or by its numbers.
func unixType(name string, kind uint32) Type {
	return Type{
		Name: name,
		Options: map[string]Option{
			"path":     {"where it is in the container", inside},
			"source":   {"node of the host; the same as path by default", absolute},
			"major":    {"major number; the source's by default", number(0, 4095)},
			"minor":    {"minor number; the source's by default", number(0, 1048575)},
			"mode":     {"permissions (default 0660)", octalMode},
			"uid":      {"owner (default 0)", number(0, 4294967294)},
			"gid":      {"group (default 0)", number(0, 4294967294)},
			"required": {"refuse to start when the source is missing (default true)", boolean},
		},
		Check: func(d Device) error {
			if d.Get("path") == "" && d.Get("source") == "" {
				return api.Errorf(api.Invalid, "device %s: a %s needs path=PATH or source=PATH", d.Name, name)
			}
			if (d.Get("major") == "") != (d.Get("minor") == "") {
				return api.Errorf(api.Invalid, "device %s: give both of major and minor, or none", d.Name)
			}
			return nil
		},
		Plan: func(d Device, _ Env) (Effect, error) { return planUnix(d, kind) },
	}
}

func planUnix(d Device, kind uint32) (Effect, error) {
	n := Node{Block: kind == unix.S_IFBLK, Path: path.Clean(first(d.Get("path"), d.Get("source"))), Mode: 0o660}
	if v := d.Get("mode"); v != "" {
		mode, err := strconv.ParseUint(v, 8, 32)
		if err != nil {
			return Effect{}, err
		}
		n.Mode = uint32(mode)
	}
	n.UID, _ = strconv.ParseInt(d.Get("uid"), 10, 64) // checked by the options; empty is 0
	n.GID, _ = strconv.ParseInt(d.Get("gid"), 10, 64)
	if d.Get("major") != "" {
		major, _ := strconv.ParseUint(d.Get("major"), 10, 32)
		minor, _ := strconv.ParseUint(d.Get("minor"), 10, 32)
		n.Major, n.Minor = uint32(major), uint32(minor)
		return Effect{Nodes: []Node{n}}, nil
	}
	source := first(d.Get("source"), d.Get("path"))
	var st unix.Stat_t
	err := unix.Stat(source, &st)
	if err == nil && st.Mode&unix.S_IFMT != kind {
		return Effect{}, api.Errorf(api.Invalid, "device %s: %s is not a device of type %s", d.Name, source, d.Get("type"))
	}
	if err != nil {
		if d.Get("required") != "" && !d.True("required") {
			return Effect{}, nil
		}
		return Effect{}, api.Errorf(api.Invalid, "device %s: source %s: %w", d.Name, source, err).WithHint("set required=false to start without it")
	}
	n.Major, n.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	return Effect{Nodes: []Node{n}}, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
