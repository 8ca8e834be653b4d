// Package resources describes the host's processors, memory, disks and network
// cards for GET /1.0/resources, from what the kernel shows below /proc and /sys.
// JSON names and units are those of LXD's API; what this version does not look
// at (graphics cards, USB and PCI devices, the mainboard) is left out.
package resources

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Resources is the host. Sizes are in bytes, frequencies in MHz.
type Resources struct {
	CPU     CPU     `json:"cpu"`
	Memory  Memory  `json:"memory"`
	Network Network `json:"network"`
	Storage Storage `json:"storage"`
}

// CPU is the processors.
type CPU struct {
	Architecture string   `json:"architecture"` // as uname(2) calls it
	Sockets      []Socket `json:"sockets"`
	Total        uint64   `json:"total"` // threads, offline ones too
}

// Socket is one processor package.
type Socket struct {
	Name      string  `json:"name,omitempty"`
	Vendor    string  `json:"vendor,omitempty"`
	Socket    uint64  `json:"socket"`
	Cache     []Cache `json:"cache,omitempty"` // of the first thread
	Cores     []Core  `json:"cores"`
	Frequency uint64  `json:"frequency,omitempty"`
}

// Cache is one cache of a processor.
type Cache struct {
	Level uint64 `json:"level"`
	Type  string `json:"type"` // Data, Instruction or Unified
	Size  uint64 `json:"size"`
}

// Core is a core and its threads.
type Core struct {
	Core      uint64   `json:"core"`
	Die       uint64   `json:"die"`
	Threads   []Thread `json:"threads"`
	Frequency uint64   `json:"frequency,omitempty"`
}

// Thread is what the kernel counts as a CPU.
type Thread struct {
	ID       int64  `json:"id"` // the kernel's number
	NUMANode uint64 `json:"numa_node"`
	Thread   uint64 `json:"thread"` // number in its core
	Online   bool   `json:"online"`
	Isolated bool   `json:"isolated"`
}

// Memory is the main memory.
type Memory struct {
	Nodes          []MemoryNode `json:"nodes"`
	HugepagesTotal uint64       `json:"hugepages_total"`
	HugepagesUsed  uint64       `json:"hugepages_used"`
	HugepagesSize  uint64       `json:"hugepages_size"`
	Used           uint64       `json:"used"` // without what the kernel would give back
	Total          uint64       `json:"total"`
}

// MemoryNode is the memory of a NUMA node.
type MemoryNode struct {
	NUMANode       uint64 `json:"numa_node"`
	HugepagesUsed  uint64 `json:"hugepages_used"`
	HugepagesTotal uint64 `json:"hugepages_total"`
	Used           uint64 `json:"used"`
	Total          uint64 `json:"total"`
}

// host reads below the root directory. What is not there reads as "" or 0: none
// of these files exists on every machine.
type host struct{ root fs.FS }

// Read describes the host whose root directory is root, usually os.DirFS("/");
// architecture is the machine of uname(2). Errors: what keeps /proc/meminfo or
// the list of CPUs from being read.
func Read(root fs.FS, architecture string) (Resources, error) {
	h := host{root}
	var r Resources
	var err error
	if r.Memory, err = h.memory(); err != nil {
		return r, fmt.Errorf("describe memory: %w", err)
	}
	if r.CPU, err = h.cpu(architecture); err != nil {
		return r, fmt.Errorf("describe processors: %w", err)
	}
	r.Storage, r.Network = h.storage(), h.network()
	return r, nil
}

func (h host) text(name string) string {
	raw, _ := fs.ReadFile(h.root, name)
	return strings.TrimSpace(string(raw))
}

func (h host) number(name string) uint64 {
	n, _ := strconv.ParseUint(h.text(name), 10, 64)
	return n
}

func (h host) exists(name string) bool {
	_, err := fs.Stat(h.root, name)
	return err == nil
}

// entries lists a directory.
func (h host) entries(dir string) []string {
	list, _ := fs.ReadDir(h.root, dir)
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names
}

// link is the last element of what a symlink points to.
func (h host) link(name string) string {
	target, err := fs.ReadLink(h.root, name)
	if err != nil {
		return ""
	}
	return path.Base(target)
}

// numbered lists the entries of dir that are prefix and a number, by number.
func (h host) numbered(dir, prefix string) []uint64 {
	var out []uint64
	for _, name := range h.entries(dir) {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			if n, err := strconv.ParseUint(rest, 10, 32); err == nil {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}

// meminfo reads a file in the format of /proc/meminfo, values in bytes. Lines of
// a node begin with "Node N".
func (h host) meminfo(name string) (map[string]uint64, error) {
	raw, err := fs.ReadFile(h.root, name)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(raw)) {
		key, value, ok := strings.Cut(line, ":")
		fields, words := strings.Fields(key), strings.Fields(value)
		if !ok || len(fields) == 0 || len(words) == 0 {
			continue
		}
		n, err := strconv.ParseUint(words[0], 10, 53)
		if err != nil {
			continue
		}
		if len(words) > 1 && words[1] == "kB" {
			n <<= 10
		}
		out[fields[len(fields)-1]] = n
	}
	return out, nil
}

// Source: proc_meminfo(5).
func (h host) memory() (Memory, error) {
	info, err := h.meminfo("proc/meminfo")
	if err != nil {
		return Memory{}, err
	}
	page := info["Hugepagesize"]
	m := Memory{
		Total: info["MemTotal"], Used: less(info["MemTotal"], info["MemAvailable"]), HugepagesSize: page,
		HugepagesTotal: info["HugePages_Total"] * page, HugepagesUsed: less(info["HugePages_Total"], info["HugePages_Free"]) * page,
		Nodes: []MemoryNode{},
	}
	const dir = "sys/devices/system/node"
	for _, n := range h.numbered(dir, "node") {
		info, err := h.meminfo(fmt.Sprintf("%s/node%d/meminfo", dir, n))
		if err != nil {
			continue // taken offline meanwhile
		}
		m.Nodes = append(m.Nodes, MemoryNode{
			NUMANode: n, Total: info["MemTotal"], Used: info["MemUsed"],
			HugepagesTotal: info["HugePages_Total"] * page, HugepagesUsed: less(info["HugePages_Total"], info["HugePages_Free"]) * page,
		})
	}
	return m, nil
}

// less is a-b, and 0 where b is the greater.
func less(a, b uint64) uint64 { return a - min(a, b) }

const cpuDir = "sys/devices/system/cpu"

// Source: Documentation/admin-guide/cputopology.rst of the kernel.
func (h host) cpu(architecture string) (CPU, error) {
	c := CPU{Architecture: architecture, Sockets: []Socket{}}
	if _, err := fs.ReadDir(h.root, cpuDir); err != nil {
		return c, err
	}
	models := h.cpuModels()
	isolated := h.text(cpuDir + "/isolated")
	for _, id := range h.numbered(cpuDir, "cpu") {
		c.Total++
		dir := fmt.Sprintf("%s/cpu%d", cpuDir, id)
		t := Thread{ID: int64(id), Online: !h.exists(dir+"/online") || h.text(dir+"/online") == "1", Isolated: inRanges(isolated, id)}
		if nodes := h.numbered(dir, "node"); len(nodes) > 0 {
			t.NUMANode = nodes[0]
		}
		freq := h.number(dir+"/cpufreq/scaling_cur_freq") / 1000
		s := find(&c.Sockets, func(s Socket) bool { return s.Socket == h.number(dir+"/topology/physical_package_id") })
		if s.Cores == nil {
			*s = Socket{Socket: h.number(dir + "/topology/physical_package_id"), Name: models[id].name, Vendor: models[id].vendor, Cache: h.caches(dir)}
		}
		coreID, die := h.number(dir+"/topology/core_id"), h.number(dir+"/topology/die_id")
		core := find(&s.Cores, func(c Core) bool { return c.Core == coreID && c.Die == die })
		core.Core, core.Die, core.Frequency = coreID, die, max(core.Frequency, freq)
		s.Frequency = max(s.Frequency, freq)
		t.Thread = uint64(len(core.Threads))
		core.Threads = append(core.Threads, t)
	}
	slices.SortFunc(c.Sockets, func(a, b Socket) int { return cmp.Compare(a.Socket, b.Socket) })
	return c, nil
}

// find gives the element that matches, or a new one at the end.
func find[T any](list *[]T, match func(T) bool) *T {
	i := slices.IndexFunc(*list, match)
	if i < 0 {
		var zero T
		*list, i = append(*list, zero), len(*list)
	}
	return &(*list)[i]
}

func (h host) caches(dir string) []Cache {
	var out []Cache
	for _, n := range h.numbered(dir+"/cache", "index") {
		at := fmt.Sprintf("%s/cache/index%d", dir, n)
		kib, _ := strconv.ParseUint(strings.TrimSuffix(h.text(at+"/size"), "K"), 10, 43)
		out = append(out, Cache{Level: h.number(at + "/level"), Type: h.text(at + "/type"), Size: kib << 10})
	}
	return out
}

type cpuModel struct{ name, vendor string }

// cpuModels reads the names of CPUs from /proc/cpuinfo, whose form depends on
// the architecture.
func (h host) cpuModels() map[uint64]cpuModel {
	out := map[uint64]cpuModel{}
	var id uint64
	for line := range strings.Lines(h.text("proc/cpuinfo")) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		m := out[id]
		switch strings.TrimSpace(key) {
		case "processor":
			id, _ = strconv.ParseUint(value, 10, 32)
			continue
		case "model name", "cpu":
			m.name = value
		case "vendor_id":
			m.vendor = value
		}
		out[id] = m
	}
	return out
}

// inRanges tells whether n is in a list such as 0-2,5.
func inRanges(list string, n uint64) bool {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 32)
		b, errB := strconv.ParseUint(last, 10, 32)
		if errA == nil && errB == nil && a <= n && n <= b {
			return true
		}
	}
	return false
}
