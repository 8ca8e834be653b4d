//go:build system

package crash

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/croft-project/croft/internal/instance"
	"github.com/croft-project/croft/internal/linux"
)

// facts are what a daemon and its containers have on the host, by kind, one
// line a thing, sorted.
type facts map[string][]string

// facts looks at everything that a container could leave behind.
func (d *croftDaemon) facts() facts {
	d.t.Helper()
	f := facts{
		"mounts": d.mounts(), "control groups": d.cgroupDirs(), "links": d.links(), "files": d.files(),
		"processes": d.processes(), "loop devices": d.loops(), "sockets": d.sockets(), "descriptors": d.descriptors(),
		"run files": grep(append(listTree("/run/croft"), listTree("/run/lxc")...), instance.DaemonID(d.dir)),
	}
	for _, lines := range f {
		slices.Sort(lines)
	}
	return f
}

// more lists what is in f and was not in before.
func (f facts) more(before facts) []string {
	var out []string
	for kind, lines := range f {
		old := map[string]int{}
		for _, l := range before[kind] {
			old[l]++
		}
		for _, l := range lines {
			if old[l]--; old[l] < 0 {
				out = append(out, kind+": "+l)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (d *croftDaemon) mounts() []string {
	mounts, err := linux.ThreadMounts()
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for _, m := range mounts {
		out = append(out, m.Target+" "+m.FSType+" "+m.Source+" "+m.Root)
	}
	return out
}

func cgroupRoots() []string {
	c, err := linux.FindCgroups()
	if err != nil {
		return nil
	}
	return c.Roots()
}

// cgroupDirs are the control groups below the daemon's prefix, but for those
// that stay for ever: the prefix and liblxc's pivot.
func (d *croftDaemon) cgroupDirs() []string {
	var out []string
	for _, root := range cgroupRoots() {
		top := filepath.Join(root, instance.CgroupPrefix(d.dir))
		_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() && path != top && filepath.Base(path) != "lxc.pivot" {
				out = append(out, path)
			}
			return nil
		})
	}
	return out
}

func (d *croftDaemon) links() []string {
	all, err := net.Interfaces()
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for _, i := range all {
		out = append(out, i.Name)
	}
	return out
}

// files are all files of the state directory.
func (d *croftDaemon) files() []string { return listTree(d.dir) }

func listTree(dir string) []string {
	var out []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != dir {
			out = append(out, path)
		}
		return nil
	})
	return out
}

func grep(lines []string, word string) []string {
	return slices.DeleteFunc(lines, func(l string) bool { return !strings.Contains(l, word) })
}

// processes are those that run our program, are in our control groups or in our
// network namespace, but for the test itself. A zombie counts if the daemon is
// its parent: nobody else will reap it.
func (d *croftDaemon) processes() []string {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		d.t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat := readFile(fmt.Sprintf("/proc/%d/stat", pid))
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		if fields[0] == "Z" {
			if d.cmd != nil && fields[1] == strconv.Itoa(d.cmd.Process.Pid) {
				out = append(out, fmt.Sprintf("%d zombie of the daemon: %s", pid, stat))
			}
			continue
		}
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		netns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		group := readFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if exe == croftd || netns == ours || strings.Contains(group, instance.CgroupPrefix(d.dir)+"/") {
			out = append(out, fmt.Sprintf("%d %s %s", pid, exe, strings.ReplaceAll(readFile(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00", " ")))
		}
	}
	return out
}

func readFile(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}

// loops are the loop devices on files of the state directory.
func (d *croftDaemon) loops() []string {
	found, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var out []string
	for _, f := range found {
		if backing := readFile(f); strings.HasPrefix(backing, filepath.Dir(d.dir)) {
			out = append(out, f+" "+strings.TrimSpace(backing))
		}
	}
	return out
}

// sockets are the unix sockets of liblxc's monitors and of exec sessions.
func (d *croftDaemon) sockets() []string {
	var out []string
	for line := range strings.Lines(readFile("/proc/net/unix")) {
		if f := strings.Fields(line); len(f) > 7 && strings.Contains(f[7], instance.DaemonID(d.dir)) {
			out = append(out, f[7])
		}
	}
	return out
}

// descriptors are the daemon's open files by what they lead to, without the
// numbers that change.
func (d *croftDaemon) descriptors() []string {
	dir := fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		kind, _, _ := strings.Cut(target, ":[")
		out = append(out, kind)
	}
	return out
}

// memory is the daemon's resident memory in kB and its number of threads.
func (d *croftDaemon) memory() (rss, threads int) {
	for line := range strings.Lines(readFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			rss, _ = strconv.Atoi(strings.Fields(v)[0])
		}
		if v, ok := strings.CutPrefix(line, "Threads:"); ok {
			threads, _ = strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return rss, threads
}
