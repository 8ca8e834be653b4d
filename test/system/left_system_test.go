//go:build system

package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/croft-project/croft/internal/instance"
)

// mentions tells whether text has the state directory or the id of the daemon in
// it, which everything that belongs to it has.
func (h *host) mentions(text string) bool {
	return strings.Contains(text, h.dir) || strings.Contains(text, instance.DaemonID(h.dir))
}

// processes are those that were started for this daemon: itself, monitors,
// keepers of sessions, dnsmasq, and whatever runs in containers. A zombie has only
// to be reaped by the host's init.
func (h *host) processes() []string {
	var out []string
	found, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range found {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		group, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if len(cmdline) == 0 {
			continue
		}
		if h.mentions(string(cmdline)) || h.mentions(string(group)) {
			out = append(out, fmt.Sprintf("process %s %q", filepath.Base(dir), cmdline))
		}
	}
	return out
}

// files are those outside of the state directory, and what the kernel has open:
// loop devices and sockets.
func (h *host) files() []string {
	var out []string
	for _, pattern := range []string{instance.LXCPath(h.dir) + "/*", "/run/lxc/*/*" + instance.DaemonID(h.dir) + "*"} {
		found, _ := filepath.Glob(pattern)
		out = append(out, found...)
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if backing, _ := os.ReadFile(l); h.mentions(string(backing)) {
			out = append(out, fmt.Sprintf("loop device %s of %s", l, strings.TrimSpace(string(backing))))
		}
	}
	sockets, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(sockets)) {
		if h.mentions(line) {
			out = append(out, "socket "+line)
		}
	}
	return out
}
