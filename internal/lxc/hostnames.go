package lxc

import "strings"

// HostNames reads, out of a configuration that [Render] has written, what the
// host's end of each interface is called, by the interface's name inside.
func HostNames(conf string) map[string]string {
	inside, pair := map[string]string{}, map[string]string{} // by number
	for line := range strings.Lines(conf) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		rest, isNet := strings.CutPrefix(key, "lxc.net.")
		if !ok || !isNet {
			continue
		}
		switch number, key, _ := strings.Cut(rest, "."); key {
		case "name":
			inside[number] = value
		case "veth.pair":
			pair[number] = value
		}
	}
	out := map[string]string{}
	for number, name := range inside {
		if p, ok := pair[number]; ok {
			out[name] = p
		}
	}
	return out
}
