package instance

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/option"
)

// limits turns the limits.* keys into values of control group files. A
// controller that the host lacks is a warning, never a failed start.
func (e *Engine) limits(config map[string]string) ([]lxc.Limit, error) {
	var out []lxc.Limit
	for _, part := range []func(map[string]string) ([]lxc.Limit, error){e.memoryLimits, e.processLimits, e.cpuLimits} {
		l, err := part(config)
		if err != nil {
			return nil, err
		}
		out = append(out, l...)
	}
	return slices.DeleteFunc(out, func(l lxc.Limit) bool {
		if e.Cgroups.Has(l.Controller) {
			return false
		}
		e.Log.Warn("the host lacks a control group controller; a limit is not applied", "controller", l.Controller, "file", l.File)
		return true
	}), nil
}

// memoryLimits maps limits.memory, .enforce and .swap. A soft limit is one that
// the kernel enforces only under pressure. Without swap, memory and swap
// together get the same limit (version 1) or swap gets none (version 2).
func (e *Engine) memoryLimits(config map[string]string) ([]lxc.Limit, error) {
	size, set, err := option.Size(config, "limits.memory", totalMemory())
	if err != nil {
		return nil, err
	}
	swap := config["limits.memory.swap"] == "" || option.Bool(config, "limits.memory.swap")
	soft := config["limits.memory.enforce"] == "soft"
	v2 := e.Cgroups.V2("memory")
	limit := func(file string, value int64) lxc.Limit {
		return lxc.Limit{Controller: "memory", File: file, Value: strconv.FormatInt(value, 10), V2: v2}
	}
	var out []lxc.Limit
	switch {
	case set && v2 && soft:
		out = append(out, limit("memory.high", size))
	case set && v2:
		out = append(out, limit("memory.max", size))
	case set && soft:
		out = append(out, limit("memory.soft_limit_in_bytes", size))
	case set:
		out = append(out, limit("memory.limit_in_bytes", size))
	}
	switch {
	case v2 && !swap:
		out = append(out, limit("memory.swap.max", 0))
	case !v2 && !swap:
		out = append(out, limit("memory.swappiness", 0))
		if set && !soft && e.hasFile("memory", "memory.memsw.limit_in_bytes") {
			out = append(out, limit("memory.memsw.limit_in_bytes", size))
		}
	}
	return out, nil
}

func (e *Engine) hasFile(controller, file string) bool {
	_, err := os.Stat(filepath.Join(e.Cgroups.Path(controller, ""), file))
	return err == nil
}

func (e *Engine) processLimits(config map[string]string) ([]lxc.Limit, error) {
	n, set, err := option.Int(config, "limits.processes")
	if err != nil || !set {
		return nil, err
	}
	return []lxc.Limit{{Controller: "pids", File: "pids.max", Value: strconv.FormatInt(n, 10), V2: e.Cgroups.V2("pids")}}, nil
}

// cpuLimits gives a container the processors of its set, or as many as it may
// have, those first that fewest others are bound to.
func (e *Engine) cpuLimits(config map[string]string) ([]lxc.Limit, error) {
	limit, set, err := option.CPUs(config, "limits.cpu")
	if err != nil || !set {
		return nil, err
	}
	cpus := limit.Set
	if cpus == nil {
		cpus = e.leastUsed(limit.Count)
	}
	for _, c := range cpus {
		if !slices.Contains(e.cpus, c) {
			return nil, api.Errorf(api.Invalid, "limits.cpu: value %q names processor %d, which this host does not have; it has %s", config["limits.cpu"], c, option.CPULimit{Set: e.cpus})
		}
	}
	return []lxc.Limit{{Controller: "cpuset", File: cpusetFile, Value: cpuList(cpus), V2: e.Cgroups.V2("cpuset")}}, nil
}

func cpuList(cpus []int) string {
	var parts []string
	for _, c := range cpus {
		parts = append(parts, strconv.Itoa(c))
	}
	return strings.Join(parts, ",")
}

// leastUsed picks n processors. More than there are means all.
func (e *Engine) leastUsed(n int) []int {
	load := map[int]int{}
	e.mu.Lock()
	for _, l := range e.live {
		l.mu.Lock()
		for _, c := range l.cpus {
			load[c]++
		}
		l.mu.Unlock()
	}
	e.mu.Unlock()
	cpus := slices.Clone(e.cpus)
	slices.SortStableFunc(cpus, func(a, b int) int { return load[a] - load[b] })
	cpus = cpus[:min(n, len(cpus))]
	slices.Sort(cpus)
	return cpus
}

// cpusetFile is the file that binds a control group to processors.
const cpusetFile = "cpuset.cpus"

// boundCPUs reads the processors out of limits; nil when unlimited.
func boundCPUs(limits []lxc.Limit) []int {
	for _, l := range limits {
		if l.File != cpusetFile {
			continue
		}
		var out []int
		for part := range strings.SplitSeq(l.Value, ",") {
			first, last, ranged := strings.Cut(part, "-")
			n, err := strconv.Atoi(first)
			end := n
			if ranged && err == nil {
				end, err = strconv.Atoi(last)
			}
			for ; err == nil && n <= end; n++ {
				out = append(out, n)
			}
		}
		return out
	}
	return nil
}

// boundTo asks the kernel which processors a container has: where the
// configuration says only how many, those were chosen at its start.
func (e *Engine) boundTo(group string) []int {
	text, err := e.Cgroups.Read("cpuset", group, cpusetFile)
	if err != nil {
		return nil
	}
	return boundCPUs([]lxc.Limit{{File: cpusetFile, Value: text}})
}

// unlimited are the values that lift a limit, by file.
var unlimited = map[string]string{
	"memory.limit_in_bytes": "-1", "memory.soft_limit_in_bytes": "-1", "memory.memsw.limit_in_bytes": "-1", "memory.swappiness": "60",
	"memory.max": "max", "memory.high": "max", "memory.swap.max": "max", "pids.max": "max",
}

// limitKey names the configuration key behind a control group's file.
func limitKey(file string) string {
	controller, _, _ := strings.Cut(file, ".")
	if key, ok := map[string]string{"memory": "limits.memory", "pids": "limits.processes", "cpuset": "limits.cpu"}[controller]; ok {
		return key
	}
	return file
}

// applyLimits changes the limits of a running container from old to new. When
// the kernel refuses one, those already changed are put back. What is about to
// be set is noted first: should the daemon die before the change is on record,
// the next one takes it back, see recoverLimits.
func (e *Engine) applyLimits(l *live, old, now []lxc.Limit) error {
	if err := writeLimits(e.limitsFile(l.project, l.name), now); err != nil {
		return err
	}
	var undo []lxc.Limit
	for _, change := range limitChanges(old, now, cpuList(e.cpus)) {
		before, err := e.Cgroups.Read(change.Controller, l.group, change.File)
		if err == nil {
			err = e.Cgroups.Write(change.Controller, l.group, change.File, change.Value)
		}
		if err != nil {
			err = api.Errorf(api.BadState, "%s: the kernel does not take %s for instance %s, which is running: %w", limitKey(change.File), change.Value, l.name, err)
			for _, u := range slices.Backward(undo) {
				err = errors.Join(err, e.Cgroups.Write(u.Controller, l.group, u.File, u.Value))
			}
			return api.Errorf(api.BadState, "%w", err)
		}
		back := change
		back.Value = before
		undo = append(undo, back)
	}
	l.mu.Lock()
	l.cpus = boundCPUs(now)
	l.mu.Unlock()
	return nil
}

// limitChanges lists what has to be written to get from one set of limits to
// another, in an order the kernel takes: memory with swap is never below memory,
// so of the two it is raised first and lowered last.
func limitChanges(old, now []lxc.Limit, allCPUs string) []lxc.Limit {
	var lift, set []lxc.Limit
	for _, o := range old {
		if !slices.ContainsFunc(now, func(n lxc.Limit) bool { return n.File == o.File }) {
			o.Value = unlimited[o.File]
			if o.File == cpusetFile {
				o.Value = allCPUs
			}
			lift = append(lift, o)
		}
	}
	for _, n := range now {
		if !slices.Contains(old, n) {
			set = append(set, n)
		}
	}
	slices.Reverse(lift)
	for i, s := range set {
		was := slices.IndexFunc(old, func(o lxc.Limit) bool { return o.File == s.File })
		if s.File == "memory.memsw.limit_in_bytes" && was >= 0 && number(s.Value) > number(old[was].Value) {
			set = slices.Insert(slices.Delete(set, i, i+1), 0, s)
			break
		}
	}
	return append(lift, set...)
}

// number is a limit's value in bytes; both are ours, so that it is one.
func number(value string) int64 {
	n, _ := strconv.ParseInt(value, 10, 64)
	return n
}

func writeLimits(file string, limits []lxc.Limit) error {
	data, err := json.Marshal(limits)
	if err != nil {
		return err
	}
	return replaceFile(file, data)
}

// recoverLimits makes the limits of a running container those on record. They
// may differ when an earlier daemon died in the middle of a change.
func (e *Engine) recoverLimits(i *loaded, l *live) error {
	data, err := os.ReadFile(e.limitsFile(i.Project, i.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var tried []lxc.Limit
	if err == nil {
		err = json.Unmarshal(data, &tried)
	}
	if err != nil {
		return err
	}
	now, err := e.limits(i.config)
	if err != nil {
		return err
	}
	// A mere number of processors is kept by those that the container has.
	if cpus, set, _ := option.CPUs(i.config, "limits.cpu"); set && cpus.Set == nil && len(boundCPUs(tried)) == len(boundCPUs(now)) {
		if now, err = e.limitsLike(tried, i.config, i.config); err != nil {
			return err
		}
	}
	return e.applyLimits(l, tried, now)
}

func totalMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// loadModules loads the kernel modules of linux.kernel_modules. One that is
// built into the kernel, or cannot be found, is no reason not to start.
func (e *Engine) loadModules(ctx context.Context, list string) error {
	modules, err := option.ParseModules(list)
	if err != nil {
		return api.Errorf(api.Invalid, "linux.kernel_modules: %w", err)
	}
	for _, m := range modules {
		if moduleLoaded(m) {
			continue
		}
		if out, err := exec.CommandContext(ctx, "modprobe", "--", m).CombinedOutput(); err != nil {
			e.Log.Warn("kernel module is not loaded and cannot be", "module", m, "err", err, "output", strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// moduleLoaded reports whether a module is loaded or built in. Some built-in
// ones show up only as a file system.
func moduleLoaded(name string) bool {
	if _, err := os.Stat("/sys/module/" + strings.ReplaceAll(name, "-", "_")); !errors.Is(err, fs.ErrNotExist) {
		return err == nil
	}
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return true
		}
	}
	return false
}
