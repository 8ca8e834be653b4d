package linux

import (
	"bytes"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Usage is what a group uses, from the kernel's counters. -1 is unknown.
type Usage struct {
	Memory, MemoryPeak int64 // bytes
	Swap, SwapPeak     int64 // bytes
	CPU                int64 // nanoseconds
	Tasks              int64
}

// Meter reads the counters of one group again and again. It keeps their files
// open, so that a reading costs one system call each and no path look-up. It is
// safe for concurrent use.
type Meter struct {
	mu     sync.Mutex
	closed bool
	v2     [2]bool // memory, cpu
	files  [counters]int
}

// The files of a Meter.
const (
	tasks = iota
	memory
	memoryPeak
	swap // with memory in version 1
	swapPeak
	cpu
	counters
)

// Meter opens the counters of a group (cgroup-v1/memory.rst, cgroup-v2.rst).
// What the host lacks reads as unknown.
func (c *Cgroups) Meter(group string) *Meter {
	m := &Meter{v2: [2]bool{c.V2("memory"), c.V2("cpu")}}
	names := [counters]struct{ controller, file string }{
		{"pids", "pids.current"},
		{"memory", "memory.usage_in_bytes"}, {"memory", "memory.max_usage_in_bytes"},
		{"memory", "memory.memsw.usage_in_bytes"}, {"memory", "memory.memsw.max_usage_in_bytes"},
		{"cpuacct", "cpuacct.usage"},
	}
	if m.v2[0] {
		names[memory].file, names[memoryPeak].file = "memory.current", "memory.peak"
		names[swap].file, names[swapPeak].file = "memory.swap.current", "memory.swap.peak"
	}
	if m.v2[1] {
		names[cpu].controller, names[cpu].file = "cpu", "cpu.stat"
	}
	for i, n := range names {
		m.files[i] = -1
		if dir := c.Path(n.controller, group); dir != "" {
			if fd, err := unix.Open(dir+"/"+n.file, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
				m.files[i] = fd
			}
		}
	}
	return m
}

// Close frees the files; readings are unknown from then on.
func (m *Meter) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for i, fd := range m.files {
		if fd >= 0 {
			unix.Close(fd)
		}
		m.files[i] = -1
	}
}

// Read takes a reading.
func (m *Meter) Read() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := Usage{Tasks: m.number(tasks), Memory: m.number(memory), MemoryPeak: m.number(memoryPeak), Swap: m.number(swap), SwapPeak: m.number(swapPeak)}
	if !m.v2[0] {
		u.Swap, u.SwapPeak = difference(u.Swap, u.Memory), difference(u.SwapPeak, u.MemoryPeak)
	}
	if m.v2[1] {
		u.CPU = m.cpuStat()
	} else {
		u.CPU = m.number(cpu)
	}
	return u
}

// difference is a-b, not below zero, or unknown when one of them is.
func difference(a, b int64) int64 {
	if a < 0 || b < 0 {
		return -1
	}
	return max(a-b, 0)
}

func (m *Meter) text(i int, buf []byte) []byte {
	if m.files[i] < 0 {
		return nil
	}
	n, err := unix.Pread(m.files[i], buf, 0)
	if err != nil || n <= 0 {
		return nil
	}
	return buf[:n]
}

func (m *Meter) number(i int) int64 {
	var buf [32]byte
	n, err := strconv.ParseInt(string(bytes.TrimSpace(m.text(i, buf[:]))), 10, 64)
	if err != nil {
		return -1 // also for "max"
	}
	return n
}

// cpuStat finds the time used in cpu.stat, which has it in microseconds.
func (m *Meter) cpuStat() int64 {
	var buf [1024]byte
	for line := range bytes.Lines(m.text(cpu, buf[:])) {
		if v, ok := bytes.CutPrefix(line, []byte("usage_usec ")); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(v)), 10, 64)
			if err != nil {
				return -1
			}
			return n * 1000
		}
	}
	return -1
}
