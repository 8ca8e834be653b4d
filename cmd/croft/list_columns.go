package main

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/croft-project/croft/api"
)

// column is one column of the list of instances.
type column struct {
	title string
	live  bool // needs the state of the instance
	value func(*api.InstanceFull) string
}

func needsState(cols []column) bool {
	return slices.ContainsFunc(cols, func(c column) bool { return c.live })
}

// columnFor is the column that a letter stands for.
func columnFor(r rune) (column, bool) {
	cols := map[rune]column{
		'4': {"IPV4", true, func(i *api.InstanceFull) string { return addressCell(i, "inet") }},
		'6': {"IPV6", true, func(i *api.InstanceFull) string { return addressCell(i, "inet6") }},
		'a': {"ARCHITECTURE", false, func(i *api.InstanceFull) string { return i.Architecture }},
		'b': {"STORAGE POOL", false, func(i *api.InstanceFull) string { return rootDisk(i)["pool"] }},
		'c': {"CREATED AT", false, func(i *api.InstanceFull) string { return dateTime(i.CreatedAt) }},
		'd': {"DESCRIPTION", false, func(i *api.InstanceFull) string { return i.Description }},
		'D': {"DISK USAGE", true, diskCell},
		'e': {"PROJECT", false, func(i *api.InstanceFull) string { return i.Project }},
		'f': {"BASE IMAGE", false, func(i *api.InstanceFull) string { return shortFingerprint(i.Config["volatile.base_image"]) }},
		'F': {"BASE IMAGE", false, func(i *api.InstanceFull) string { return i.Config["volatile.base_image"] }},
		'l': {"LAST USED AT", false, func(i *api.InstanceFull) string { return dateTime(i.LastUsedAt) }},
		'm': {"MEMORY USAGE", true, memoryCell},
		'M': {"MEMORY USAGE%", true, memoryShareCell},
		'n': {"NAME", false, func(i *api.InstanceFull) string { return i.Name }},
		'N': {"PROCESSES", true, processesCell},
		'p': {"PID", true, pidCell},
		'P': {"PROFILES", false, func(i *api.InstanceFull) string { return strings.Join(i.Profiles, "\n") }},
		's': {"STATE", false, func(i *api.InstanceFull) string { return strings.ToUpper(i.Status) }},
		'S': {"SNAPSHOTS", true, func(i *api.InstanceFull) string { return strconv.Itoa(len(i.Snapshots)) }},
		't': {"TYPE", false, typeCell},
		'u': {"CPU USAGE", true, cpuCell},
	}
	c, ok := cols[r]
	return c, ok
}

// parseColumns reads the value of --columns; see listHelp.
func parseColumns(spec string) ([]column, error) {
	var out []column
	for _, part := range strings.Split(spec, ",") {
		if part == "" {
			return nil, api.Errorf(api.Invalid, "columns %q: there is an empty entry", spec)
		}
		if strings.ContainsAny(part, ".:") {
			col, err := keyColumn(part)
			if err != nil {
				return nil, err
			}
			out = append(out, col)
			continue
		}
		for _, r := range part {
			col, ok := columnFor(r)
			switch {
			case ok:
				out = append(out, col)
			case r == 'L':
				return nil, api.Errorf(api.Invalid, "column L is possible only when the server is clustered")
			default:
				return nil, api.Errorf(api.Invalid, "unknown column %q in %q", r, part).WithHint("croft list --help shows the columns")
			}
		}
	}
	return out, nil
}

// keyColumn reads [config:|devices:]KEY[:TITLE[:WIDTH]].
func keyColumn(spec string) (column, error) {
	rest, isDevice := strings.CutPrefix(spec, "devices:")
	if !isDevice {
		rest = strings.TrimPrefix(spec, "config:")
	}
	parts := strings.Split(rest, ":")
	if parts[0] == "" || len(parts) > 3 {
		return column{}, api.Errorf(api.Invalid, "column %q: want [config:|devices:]KEY[:TITLE[:WIDTH]]", spec)
	}
	key, title, width := parts[0], parts[0], -1
	if len(parts) > 1 {
		title = parts[1]
	}
	if len(parts) > 2 {
		var err error
		if width, err = strconv.Atoi(parts[2]); err != nil || width < -1 {
			return column{}, api.Errorf(api.Invalid, "column %q: width %q is not a number from -1", spec, parts[2])
		}
	}
	if width == 0 {
		width = runewidth.StringWidth(title)
	}
	get := func(i *api.InstanceFull) string { return i.ExpandedConfig[key] }
	if isDevice {
		dev, k, ok := strings.Cut(key, ".")
		if !ok {
			return column{}, api.Errorf(api.Invalid, "column %q: want devices:DEVICE.KEY", spec)
		}
		get = func(i *api.InstanceFull) string { return i.ExpandedDevices[dev][k] }
	}
	return column{title: title, value: func(i *api.InstanceFull) string { return truncate(get(i), width) }}, nil
}

// truncate cuts s to width cells; -1 is no limit.
func truncate(s string, width int) string {
	if width < 0 {
		return s
	}
	return runewidth.Truncate(s, width, "")
}

type ifaceAddress struct{ address, iface string }

// addresses are the addresses of a running instance that others can reach.
func addresses(i *api.InstanceFull, family string) []ifaceAddress {
	if i.State == nil {
		return nil
	}
	var out []ifaceAddress
	for name, net := range i.State.Network {
		if net.Type == "loopback" {
			continue
		}
		for _, a := range net.Addresses {
			if a.Family == family && a.Scope != "link" && a.Scope != "local" {
				out = append(out, ifaceAddress{a.Address, name})
			}
		}
	}
	return out
}

func addressCell(i *api.InstanceFull, family string) string {
	var lines []string
	for _, a := range addresses(i, family) {
		lines = append(lines, fmt.Sprintf("%s (%s)", a.address, a.iface))
	}
	sort.Sort(sort.Reverse(sort.StringSlice(lines)))
	return strings.Join(lines, "\n")
}

// rootDisk is the device that holds the root filesystem.
func rootDisk(i *api.InstanceFull) configMap {
	for _, dev := range i.ExpandedDevices {
		if dev["type"] == "disk" && dev["path"] == "/" {
			return dev
		}
	}
	return nil
}

func typeCell(i *api.InstanceFull) string {
	t := strings.ToUpper(i.Type)
	if i.Ephemeral {
		t += " (EPHEMERAL)"
	}
	return t
}

func diskCell(i *api.InstanceFull) string {
	if i.State != nil && i.State.Disk["root"].Usage > 0 {
		return iecSize(i.State.Disk["root"].Usage)
	}
	return ""
}

func memoryCell(i *api.InstanceFull) string {
	if i.State != nil && i.State.Memory.Usage > 0 {
		return iecSize(i.State.Memory.Usage)
	}
	return ""
}

// memoryShareCell is the memory in use in percent of the instance's limit;
// without a limit in bytes it is empty.
func memoryShareCell(i *api.InstanceFull) string {
	limit, err := parseSize(i.ExpandedConfig["limits.memory"])
	if err != nil || limit <= 0 || i.State == nil || i.State.Memory.Usage <= 0 {
		return ""
	}
	return fmt.Sprintf("%.1f%%", 100*float64(i.State.Memory.Usage)/float64(limit))
}

func processesCell(i *api.InstanceFull) string {
	if i.State != nil && i.State.Processes > 0 {
		return strconv.FormatInt(i.State.Processes, 10)
	}
	return ""
}

func pidCell(i *api.InstanceFull) string {
	if i.State != nil && i.State.Pid > 0 {
		return strconv.FormatInt(i.State.Pid, 10)
	}
	return ""
}

func cpuCell(i *api.InstanceFull) string {
	if i.State != nil && i.State.Pid > 0 {
		return fmt.Sprintf("%ds", i.State.CPU.Usage/1e9)
	}
	return ""
}

// shortFingerprint is the part of a fingerprint that lists show.
func shortFingerprint(fp string) string {
	if len(fp) > 12 {
		return fp[:12]
	}
	return fp
}
