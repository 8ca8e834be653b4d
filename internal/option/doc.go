// Package option holds the configuration keys: one typed table per entity, from
// which validation, defaults, documentation and completion come.
//
// A configuration is a map of strings, as the API has it. [Table.Validate]
// checks one at the edge, before anything acts on it; the getters ([Bool],
// [Int], [Size], [CPUs], …) parse the values where they are used. Keys that LXD
// knows and this version does not implement are in the tables too, so that they
// are refused by name instead of being ignored.
//
// Values end up in files that other programs read line by line (liblxc,
// dnsmasq, the environment of a process). Therefore no value may hold a NUL,
// and only keys that are marked as multi-line may hold a line break.
package option
