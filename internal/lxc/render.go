package lxc

import (
	"fmt"
	"strings"

	"github.com/croft-project/croft/api"
)

// Render turns a Spec into the text of liblxc's configuration file
// (lxc.container.conf(5)). It is pure; equal Specs give equal text.
//
// No string of the Spec can add a line: a newline, carriage return or NUL in
// any of them is refused with Invalid. Raw is the exception and is parsed line
// by line; keys that Croft depends on are refused in it.
func Render(s Spec) (string, error) {
	r := &renderer{}
	r.base(s)
	r.confinement(s)
	r.devices(s)
	r.mounts(s)
	for _, v := range s.Environment {
		r.set("lxc.environment", v.Name+"="+v.Value)
	}
	r.nics(s.Nics)
	for _, l := range s.Limits {
		key := "lxc.cgroup."
		if l.V2 {
			key = "lxc.cgroup2."
		}
		r.set(key+l.File, l.Value)
	}
	r.raw(s.Raw)
	if r.err != nil {
		return "", r.err
	}
	return r.b.String(), nil
}

type renderer struct {
	b   strings.Builder
	err error
}

func (r *renderer) set(key, value string) {
	if i := strings.IndexAny(key+value, "\n\r\x00"); i >= 0 && r.err == nil {
		r.err = api.Errorf(api.Invalid, "%s: value %q holds a line break or NUL; neither is allowed", key, value)
	}
	fmt.Fprintf(&r.b, "%s = %s\n", key, value)
}

func (r *renderer) base(s Spec) {
	r.set("lxc.log.file", s.LogFile)
	r.set("lxc.log.level", "warn")
	r.set("lxc.console.buffer.size", "auto")
	r.set("lxc.console.size", "auto")
	r.set("lxc.console.logfile", s.ConsoleLog)
	r.set("lxc.uts.name", s.Hostname)
	if s.Architecture != "" {
		r.set("lxc.arch", s.Architecture)
	}
	r.set("lxc.rootfs.path", "dir:"+s.Rootfs)
	r.set("lxc.rootfs.mount", s.MountPoint)
	r.set("lxc.pty.max", "1024")
	r.set("lxc.tty.max", "0")
	r.set("lxc.autodev", "1")
	r.set("lxc.cgroup.dir.monitor", s.MonitorCgroup)
	r.set("lxc.cgroup.dir.monitor.pivot", s.PivotCgroup)
	r.set("lxc.cgroup.dir.container", s.PayloadCgroup)
	for _, e := range s.IDMap {
		if e.UID {
			r.set("lxc.idmap", fmt.Sprintf("u %d %d %d", e.ContainerID, e.HostID, e.Count))
		}
		if e.GID {
			r.set("lxc.idmap", fmt.Sprintf("g %d %d %d", e.ContainerID, e.HostID, e.Count))
		}
	}
}

// droppedAlways are capabilities that concern the whole machine, so that even a
// privileged container does without them (capabilities(7)).
var droppedAlways = []string{"sys_time", "sys_module", "sys_rawio", "mac_admin", "mac_override"}

func (r *renderer) confinement(s Spec) {
	r.set("lxc.cap.drop", strings.Join(droppedAlways, " "))
	r.set("lxc.seccomp.profile", s.SeccompPolicy)
	if s.AppArmor {
		r.set("lxc.apparmor.profile", "generated")
		if s.Nesting {
			r.set("lxc.apparmor.allow_nesting", "1")
		}
	}
	if s.IDMap == nil {
		r.set("lxc.mount.auto", "proc:mixed sys:mixed cgroup:mixed")
		return
	}
	// Inside a user namespace the kernel itself guards what is not namespaced.
	r.set("lxc.mount.auto", "proc:rw sys:rw cgroup:rw:force")
}

// allowedDevices are the nodes that every container may use: those of the full
// set liblxc creates, terminals, and fuse and tun, whose drivers know
// namespaces. Nodes may be made of any kind ("m"), but not opened.
var allowedDevices = []string{
	"c *:* m", "b *:* m",
	"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", // null zero full random urandom
	"c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm", // tty console ptmx pts
	"c 10:229 rwm", "c 10:200 rwm", // fuse, net/tun
}

func (r *renderer) devices(s Spec) {
	prefix := "lxc.cgroup2.devices."
	if s.HybridCgroups {
		prefix = "lxc.cgroup.devices."
	}
	r.set(prefix+"deny", "a")
	for _, d := range allowedDevices {
		r.set(prefix+"allow", d)
	}
}

// hostFiles are bound into every container when the host has them.
var hostFiles = []struct{ path, kind string }{
	{"/dev/fuse", "file"},
	{"/dev/net/tun", "file"},
	{"/proc/sys/fs/binfmt_misc", ""},
	{"/sys/firmware/efi/efivars", ""},
	{"/sys/fs/fuse/connections", ""},
	{"/sys/fs/pstore", ""},
	{"/sys/kernel/config", ""},
	{"/sys/kernel/debug", ""},
	{"/sys/kernel/security", ""},
	{"/sys/kernel/tracing", ""},
}

func (r *renderer) mounts(s Spec) {
	r.mount(Mount{"mqueue", "dev/mqueue", "mqueue", []string{"rw", "relatime", "create=dir", "optional"}})
	for _, f := range hostFiles {
		options := []string{"rbind", "optional"}
		if f.kind != "" {
			options = []string{"bind", "create=" + f.kind, "optional"}
		}
		r.mount(Mount{f.path, strings.TrimPrefix(f.path, "/"), "none", options})
	}
	if s.Nesting {
		// The kernel lets a nested container mount proc and sysfs only where
		// fully visible ones are in its parent.
		r.mount(Mount{"proc", "dev/.lxc/proc", "proc", []string{"create=dir", "optional"}})
		r.mount(Mount{"sys", "dev/.lxc/sys", "sysfs", []string{"create=dir", "optional"}})
	}
	for _, m := range s.Mounts {
		r.mount(m)
	}
}

func (r *renderer) mount(m Mount) {
	r.set("lxc.mount.entry", fmt.Sprintf("%s %s %s %s 0 0", escape(m.Source), escape(m.Target), m.Type, strings.Join(m.Options, ",")))
}

// escape writes a path as fstab(5) wants it.
var escaper = strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`)

func escape(path string) string { return escaper.Replace(path) }

func (r *renderer) nics(nics []Nic) {
	if len(nics) == 0 {
		r.set("lxc.net.0.type", "empty")
	}
	for i, n := range nics {
		key := fmt.Sprintf("lxc.net.%d.", i)
		r.set(key+"type", "veth")
		r.set(key+"flags", "up")
		r.set(key+"name", n.Name)
		r.set(key+"hwaddr", n.MAC)
		r.set(key+"veth.pair", n.HostName)
		if n.Parent != "" {
			r.set(key+"link", n.Parent)
		}
		if n.MTU != "" {
			r.set(key+"mtu", n.MTU)
		}
	}
}

// refusedRaw are keys whose values Croft relies on.
var refusedRaw = []string{
	"lxc.log.", "lxc.logfile", "lxc.loglevel", "lxc.syslog", "lxc.rootfs.", "lxc.uts.", "lxc.idmap", "lxc.id_map",
	"lxc.cgroup.dir", "lxc.ephemeral", "lxc.net.", "lxc.network.", "lxc.console.logfile", "lxc.console.buffer", "lxc.include",
}

// CheckRaw validates the text of raw.lxc: lines "key = value", comments and
// empty lines. It names the first line that is not allowed.
func CheckRaw(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !ok || !strings.HasPrefix(key, "lxc.") || strings.ContainsAny(line, "\x00\r") {
			return api.Errorf(api.Invalid, "raw.lxc: line %q is not of the form lxc.KEY = VALUE", line)
		}
		for _, no := range refusedRaw {
			if strings.HasPrefix(key, no) {
				return api.Errorf(api.Invalid, "raw.lxc: key %s is set by Croft and cannot be overridden", key)
			}
		}
	}
	return nil
}

func (r *renderer) raw(text string) {
	if text == "" {
		return
	}
	if err := CheckRaw(text); err != nil && r.err == nil {
		r.err = err
	}
	r.b.WriteString(strings.TrimSuffix(text, "\n") + "\n")
}
