//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// descendants returns every live process below root, parents first, root excluded.
func descendants(root int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		if pid, ppid, ok := parseStat(data); ok {
			children[ppid] = append(children[ppid], pid)
		}
	}
	var all []int
	for queue := children[root]; len(queue) > 0; queue = queue[1:] {
		all = append(all, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return all
}

// parseStat reads pid and parent from /proc/PID/stat, proc_pid_stat(5). The name in parentheses may hold anything.
func parseStat(data []byte) (pid, ppid int, ok bool) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 2 || end < open {
		return 0, 0, false
	}
	rest := strings.Fields(string(data[end+1:]))
	if len(rest) < 2 {
		return 0, 0, false
	}
	pid, err1 := strconv.Atoi(string(data[:open-1]))
	ppid, err2 := strconv.Atoi(rest[1])
	return pid, ppid, err1 == nil && err2 == nil
}

// helperMemory sums the PSS, in MiB, of everything below the supervisor except the daemon itself and what runs in a
// guest's process namespace: monitors, session helpers, dnsmasq and the like.
func helperMemory(supervisor, daemon int) (float64, error) {
	hostNS, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	var kib float64
	for _, pid := range descendants(supervisor) {
		if pid == daemon {
			continue
		}
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if err != nil || ns != hostNS {
			continue // ended, a zombie, or inside a guest
		}
		if v, err := procField(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:"); err == nil {
			kib += v
		}
	}
	return kib / 1024, nil
}

// residentMemory is the RSS of one process in MiB.
func residentMemory(pid int) (float64, error) {
	kib, err := procField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
	return kib / 1024, err
}

// procField returns the number after a line's label, such as "VmRSS:   1234 kB".
func procField(path, label string) (float64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, label); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				return strconv.ParseFloat(f[0], 64)
			}
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, label)
}
