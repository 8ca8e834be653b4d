package main

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
)

// filter is one condition of a list.
type filter struct {
	match func(*api.InstanceFull) bool
	live  bool // needs the state of the instance
}

// parseFilters reads the filters of list; see listHelp.
func parseFilters(args []string) ([]filter, error) {
	var out []filter
	for _, a := range args {
		if a == "" {
			continue
		}
		f := nameFilter(a)
		if key, value, ok := strings.Cut(a, "="); ok {
			var err error
			if f, err = keyFilter(key, value); err != nil {
				return nil, err
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// nameFilter fits names that begin with text or match it as a regular
// expression: a whole name, unless the expression has anchors of its own.
func nameFilter(text string) filter {
	expr := text
	if !strings.ContainsAny(text, "^$") {
		expr = "^(?:" + text + ")$"
	}
	re, err := regexp.Compile(expr)
	return filter{match: func(i *api.InstanceFull) bool {
		return strings.HasPrefix(i.Name, text) || err == nil && re.MatchString(i.Name)
	}}
}

func keyFilter(key, value string) (filter, error) {
	values := strings.Split(value, ",")
	oneOf := func(get func(*api.InstanceFull) string) filter {
		return filter{match: func(i *api.InstanceFull) bool {
			return slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, get(i)) })
		}}
	}
	switch key {
	case "type":
		return oneOf(func(i *api.InstanceFull) string { return i.Type }), nil
	case "status":
		return oneOf(func(i *api.InstanceFull) string { return i.Status }), nil
	case "architecture":
		return oneOf(func(i *api.InstanceFull) string { return i.Architecture }), nil
	case "location":
		return oneOf(func(i *api.InstanceFull) string { return i.Location }), nil
	case "ipv4", "ipv6":
		return addressFilter(key, values)
	}
	return configFilter(key, value), nil
}

// addressFilter fits instances that have one of the addresses, or an address
// within one of the networks.
func addressFilter(key string, values []string) (filter, error) {
	var nets []netip.Prefix
	for _, v := range values {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			addr, err := netip.ParseAddr(v)
			if err != nil {
				return filter{}, api.Errorf(api.Invalid, "filter %s=%s: want an address or a network such as 10.0.0.0/8", key, v)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		nets = append(nets, p)
	}
	family := map[string]string{"ipv4": "inet", "ipv6": "inet6"}[key]
	return filter{live: true, match: func(i *api.InstanceFull) bool {
		for _, a := range addresses(i, family) {
			addr, err := netip.ParseAddr(a.address)
			if err == nil && slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				return true
			}
		}
		return false
	}}, nil
}

// configFilter fits instances that have a configuration key, each of its parts
// perhaps shortened, with the value.
func configFilter(key, value string) filter {
	re, err := regexp.Compile("^(?:" + value + ")$")
	return filter{match: func(i *api.InstanceFull) bool {
		for k, v := range i.ExpandedConfig {
			if keyFits(key, k) && (v == value || err == nil && re.MatchString(v)) {
				return true
			}
		}
		return false
	}}
}

// keyFits reports whether short is key with parts shortened to prefixes.
func keyFits(short, key string) bool {
	s, k := strings.Split(short, "."), strings.Split(key, ".")
	if len(s) != len(k) {
		return false
	}
	for i := range s {
		if !strings.HasPrefix(k[i], s[i]) {
			return false
		}
	}
	return true
}

func needsStateFilter(filters []filter) bool {
	return slices.ContainsFunc(filters, func(f filter) bool { return f.live })
}

// selectInstances keeps the instances that fit all filters.
func selectInstances(all []api.InstanceFull, filters []filter) []api.InstanceFull {
	out := make([]api.InstanceFull, 0, len(all))
	for i := range all {
		if !slices.ContainsFunc(filters, func(f filter) bool { return !f.match(&all[i]) }) {
			out = append(out, all[i])
		}
	}
	return out
}
