package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/device"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

func owner(op, reason string) operation.Owner {
	return operation.Owner{Operation: op, Reason: reason}
}

// start brings up a stopped instance. The caller holds its lock. event tells
// what it was in the eyes of users: instance-started or instance-restarted.
func (e *Engine) start(ctx context.Context, project, name, event string) error {
	l, err := e.load(ctx, project, name, false)
	if err != nil {
		return err
	}
	if running := e.liveOf(project, name); running != nil {
		return api.Errorf(api.BadState, "instance %s is already running", name)
	}
	if empty, err := e.Cgroups.Empty(e.payload(project, name)); err != nil || !empty {
		return errors.Join(api.Errorf(api.BadState, "instance %s has processes left from an earlier run", name).WithHint("end them: croft stop --force %s", name), err)
	}
	if _, _, ok := model.RootDevice(l.devices); !ok {
		return api.Errorf(api.BadState, "instance %s has no root disk any more", name).WithHint("add it again: croft config device add %s root disk path=/ pool=%s", name, l.Pool)
	}
	e.closeRoot(project, name)
	driver, err := e.Pools.Pool(ctx, l.Pool)
	if err != nil {
		return err
	}
	if err := e.applyTemplates(ctx, driver, l); err != nil {
		return err
	}
	run, err := e.prepare(ctx, driver, l)
	if err != nil {
		return err
	}
	e.noteLeases(ctx, run.leases)
	pids, err := e.launch(ctx, run)
	if err != nil {
		e.dropLeases(run.leases)
		e.clean(project, name)
		return fmt.Errorf("start instance %s: %w", name, err)
	}
	return e.started(ctx, run, pids, event)
}

// startPlan is a start that has been thought through: nothing in it can be
// refused for what the user wrote any more.
type startPlan struct {
	*loaded
	spec     lxc.Spec
	root     storage.Root
	effects  device.Effect
	idmap    linux.IDMap
	volatile map[string]string // to be recorded when it runs
	mounts   []device.Mount    // staged, in the order of their names
	leases   []lease
}

// prepare plans the start of an instance and writes the files that the helper
// reads. What it writes is overwritten by the next start.
func (e *Engine) prepare(ctx context.Context, driver storage.Driver, l *loaded) (*startPlan, error) {
	root, err := driver.Root(ctx, storage.Ref{Project: l.Project, Name: l.Name})
	if err != nil {
		return nil, err
	}
	p := &startPlan{loaded: l, root: root, idmap: l.idmap(), volatile: map[string]string{}}
	if p.idmap == nil && !option.Bool(l.config, "security.privileged") {
		return nil, api.Errorf(api.Internal, "instance %s has no id range", l.Name)
	}
	if err := e.loadModules(ctx, l.config["linux.kernel_modules"]); err != nil {
		return nil, err
	}
	if err := e.planDevices(ctx, p); err != nil {
		return nil, err
	}
	limits, err := e.limits(l.config)
	if err != nil {
		return nil, err
	}
	dir := e.path("logs", model.DirName(l.Project, l.Name))
	if err := makeDir(dir, 0o700); err != nil {
		return nil, err
	}
	p.spec = e.spec(p, dir, limits)
	for _, n := range p.effects.Nodes {
		if err := e.makeNode(p, n); err != nil {
			return nil, err
		}
	}
	return p, e.writeConf(p, dir)
}

// spec puts together what liblxc is told.
func (e *Engine) spec(p *startPlan, logDir string, limits []lxc.Limit) lxc.Spec {
	s := lxc.Spec{
		Name: model.DirName(p.Project, p.Name), Hostname: p.Name, Architecture: p.Architecture,
		Rootfs: filepath.Join(e.stageDir(), storage.StageRootfs), MountPoint: filepath.Join(e.stageDir(), "mnt"),
		IDMap: p.idmap, Nesting: option.Bool(p.config, "security.nesting"),
		PayloadCgroup: e.payload(p.Project, p.Name), MonitorCgroup: e.monitorGroup(p.Project, p.Name), PivotCgroup: e.cgroup + "/" + pivotGroup,
		Limits: limits, LogFile: filepath.Join(logDir, "lxc.log"), ConsoleLog: filepath.Join(logDir, "console.log"),
		SeccompPolicy: filepath.Join(logDir, "seccomp"), AppArmor: e.apparmor, HybridCgroups: len(e.Cgroups.Controllers) > 0,
		Raw: p.config["raw.lxc"],
	}
	for _, key := range slices.Sorted(maps.Keys(p.config)) {
		if name, ok := strings.CutPrefix(key, "environment."); ok {
			s.Environment = append(s.Environment, lxc.Variable{Name: name, Value: p.config[key]})
		}
	}
	for _, link := range p.effects.Links {
		s.Nics = append(s.Nics, lxc.Nic{Name: link.Name, HostName: link.HostName, MAC: link.MAC, Parent: link.Parent, MTU: link.MTU})
	}
	for i, m := range p.mounts {
		create := "create=dir"
		if st, err := os.Stat(m.Source); err == nil && !st.IsDir() {
			create = "create=file"
		}
		options := []string{"rbind", create}
		if m.ReadOnly {
			options = append(options, "ro")
		}
		s.Mounts = append(s.Mounts, lxc.Mount{Source: e.stagedMount(i), Target: strings.TrimPrefix(m.Target, "/"), Type: "none", Options: options})
	}
	for _, n := range p.effects.Nodes {
		s.Mounts = append(s.Mounts, lxc.Mount{Source: e.nodePath(p, n), Target: strings.TrimPrefix(n.Path, "/"), Type: "none", Options: []string{"bind", "create=file"}})
		s.Limits = append(s.Limits, e.deviceRule(n))
	}
	return s
}

// stagedMount is where a disk of the host waits for liblxc, in the container's
// own mount namespace.
func (e *Engine) stagedMount(i int) string {
	return filepath.Join(e.stageDir(), "disk"+strconv.Itoa(i))
}

func (e *Engine) deviceRule(n device.Node) lxc.Limit {
	kind := "c"
	if n.Block {
		kind = "b"
	}
	return lxc.Limit{Controller: "devices", File: "devices.allow", Value: fmt.Sprintf("%s %d:%d rwm", kind, n.Major, n.Minor), V2: len(e.Cgroups.Controllers) == 0}
}

func (e *Engine) writeConf(p *startPlan, dir string) error {
	deny := strings.Fields(strings.ReplaceAll(p.config["security.syscalls.deny"], "\n", " "))
	policy, err := lxc.Seccomp(lxc.SeccompConfig{
		NoDefault: p.config["security.syscalls.deny_default"] != "" && !option.Bool(p.config, "security.syscalls.deny_default"),
		Compat:    option.Bool(p.config, "security.syscalls.deny_compat"),
		Deny:      deny, Allow: strings.Fields(p.config["security.syscalls.allow"]), Raw: p.config["raw.seccomp"],
	}, e.arch)
	if err != nil {
		return err
	}
	conf, err := lxc.Render(p.spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.spec.SeccompPolicy, []byte(policy), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "lxc.conf"), []byte(conf), 0o600)
}

// planDevices collects the effects of an instance's devices, in the order of
// their names.
func (e *Engine) planDevices(ctx context.Context, p *startPlan) error {
	env := device.Env{Privileged: p.idmap == nil, NetworkParent: func(name string) (string, string, error) {
		n, err := e.Networks.Network(ctx, name)
		if err != nil {
			return "", "", err
		}
		return n.Name, n.Config["bridge.mtu"], nil
	}}
	for _, name := range slices.Sorted(maps.Keys(p.devices)) {
		d := device.Device{Name: name, Config: p.devices[name]}
		env.Volatile = volatileOf(p.local.Volatile, name)
		if d.Get("type") == "nic" && d.Get("host_name") == "" {
			env.Volatile["host_name"] = device.NewHostName()
			p.volatile["volatile."+name+".host_name"] = env.Volatile["host_name"]
		}
		effect, err := device.Plan(d, env)
		if err != nil {
			return err
		}
		for _, l := range effect.Links {
			if err := p.addLease(l, name); err != nil {
				return err
			}
		}
		p.effects.Links = append(p.effects.Links, effect.Links...)
		p.effects.Nodes = append(p.effects.Nodes, effect.Nodes...)
		for _, m := range effect.Mounts {
			if _, err := os.Stat(m.Source); err != nil && m.Optional && errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return api.Errorf(api.Invalid, "device %s: source %s: %w", name, m.Source, err)
			}
			p.mounts = append(p.mounts, m)
		}
	}
	return nil
}

func (p *startPlan) addLease(l device.Link, name string) error {
	if l.Network == "" {
		return nil
	}
	s := network.StaticLease{Project: p.Project, Instance: p.Name, Device: name, MAC: l.MAC}
	for _, a := range []struct {
		text string
		to   *netip.Addr
	}{{l.IPv4, &s.IPv4}, {l.IPv6, &s.IPv6}} {
		if a.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(a.text)
		if err != nil {
			return api.Errorf(api.Invalid, "device %s: address %q: %w", name, a.text, err)
		}
		*a.to = addr
	}
	p.leases = append(p.leases, lease{l.Network, s})
	return nil
}

// volatileOf extracts a device's part of an instance's volatile keys.
func volatileOf(all map[string]string, name string) map[string]string {
	out := map[string]string{}
	for key, value := range all {
		if rest, ok := strings.CutPrefix(key, "volatile."+name+"."); ok {
			out[rest] = value
		}
	}
	return out
}

func (e *Engine) nodePath(p *startPlan, n device.Node) string {
	return e.path("devices", model.DirName(p.Project, p.Name), "unix."+strings.ReplaceAll(strings.TrimPrefix(n.Path, "/"), "/", "-"))
}

// makeNode makes a device node for a container, which cannot make it itself in
// a user namespace. It is bound into the container.
func (e *Engine) makeNode(p *startPlan, n device.Node) error {
	path := e.nodePath(p, n)
	if err := makeDir(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	mode := uint32(unix.S_IFCHR)
	if n.Block {
		mode = unix.S_IFBLK
	}
	uid, okUID := p.idmap.HostUID(n.UID)
	gid, okGID := p.idmap.HostGID(n.GID)
	if !okUID || !okGID {
		return api.Errorf(api.Invalid, "device node %s: owner %d:%d is outside the container's ids", n.Path, n.UID, n.GID)
	}
	if err := unix.Mknod(path, mode|n.Mode, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		return fmt.Errorf("make device node %s: %w", path, err)
	}
	return errors.Join(os.Chmod(path, fs.FileMode(n.Mode)), os.Lchown(path, int(uid), int(gid)))
}

// launch runs the start helper. The lock file stays locked as long as the
// helper runs, so that a daemon which comes up in the middle can wait for it.
func (e *Engine) launch(ctx context.Context, p *startPlan) (lxc.Pids, error) {
	lock, err := lockStart(e.lockFile(p.Project, p.Name))
	if err != nil {
		return lxc.Pids{}, err
	}
	defer lock.Close()
	var userns *os.File
	o := storage.StageOptions{Dir: e.stageDir()}
	if p.idmap != nil {
		if userns, err = linux.UserNS(p.idmap); err != nil {
			return lxc.Pids{}, fmt.Errorf("make a user namespace: %w", err)
		}
		defer userns.Close()
		uid, _ := p.idmap.HostUID(0)
		gid, _ := p.idmap.HostGID(0)
		o.UserNS, o.UID, o.GID = userns, int(uid), int(gid)
	}
	dir := filepath.Dir(p.spec.LogFile)
	return e.Runtime.Start(ctx, lxc.StartRequest{
		Name: p.spec.Name, Conf: filepath.Join(dir, "lxc.conf"), PidFile: e.pidFile(p.Project, p.Name), LogFile: p.spec.LogFile, Lock: lock,
		Keep: []string{"/proc", "/sys", "/dev", e.stageDir(), "/var/lib/lxcfs", e.path("devices")},
		Stage: func() error {
			if err := storage.Stage(ctx, p.root, o); err != nil {
				return err
			}
			if err := os.Mkdir(p.spec.MountPoint, 0o755); err != nil {
				return err
			}
			for i, m := range p.mounts {
				if err := stageMount(m, e.stagedMount(i), userns); err != nil {
					return fmt.Errorf("mount %s: %w", m.Source, err)
				}
			}
			return nil
		},
	})
}

// stageMount puts a directory or file of the host where liblxc binds it from,
// with owners as the host has them: host id 1000 is id 1000 inside. Where the
// file system cannot be mapped the owners show as nobody.
func stageMount(m device.Mount, at string, userns *os.File) error {
	st, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	if st.IsDir() {
		err = os.Mkdir(at, 0o755)
	} else {
		err = os.WriteFile(at, nil, 0o644)
	}
	if err != nil {
		return err
	}
	source, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return err
	}
	mnt, err := linux.CloneMount(source, m.Recursive)
	if err != nil {
		return err
	}
	defer mnt.Close()
	if userns != nil {
		err := linux.SetIDMap(mnt, userns, m.Recursive)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if m.ReadOnly {
		if err := linux.SetMountAttr(mnt, unix.MOUNT_ATTR_RDONLY, 0, m.Recursive); err != nil {
			return err
		}
	}
	return linux.MoveMount(mnt, at)
}

func lockStart(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, api.Errorf(api.Busy, "an earlier start is still under way: %w", err)
	}
	return f, nil
}

// started records a container that runs and begins to watch it.
func (e *Engine) started(ctx context.Context, p *startPlan, pids lxc.Pids, event string) error {
	p.local = p.local.Clone()
	maps.Copy(p.local.Volatile, p.volatile)
	// It runs, so that is noted, also when the operation is cancelled now.
	err := e.updateLocal(context.WithoutCancel(ctx), p.Project, p.Name, event, func(local *model.Local, tx store.Tx) {
		maps.Copy(local.Volatile, p.volatile)
		local.Power, local.BootID, local.LastUsedAt = model.PowerRunning, e.bootID, tx.Now()
		local.Volatile[lastPower] = string(model.PowerRunning)
	})
	if err != nil {
		// It runs all the same: watch it, so that what is shown stays true.
		_, attachErr := e.attach(p.loaded, pids, p.leases)
		return errors.Join(err, attachErr)
	}
	if _, err := e.attach(p.loaded, pids, p.leases); err != nil {
		e.dropLeases(p.leases)
		e.clean(p.Project, p.Name)
		if e.recordStopped(p.Project, p.Name, "instance-stopped", stopFound) {
			e.tasks.Go(func() { e.reapEphemeral(p.Project, p.Name, p.UUID) })
		}
		return api.Errorf(api.Internal, "instance %s ended right after its start: %w", p.Name, err).WithHint("see croft info --show-log %s", p.Name)
	}
	return nil
}

// noteLeases tells networks of an instance's interfaces, before its guest asks
// for addresses. A network that cannot take it is no reason not to start.
func (e *Engine) noteLeases(ctx context.Context, leases []lease) {
	for _, n := range leases {
		if err := e.Networks.SetLease(ctx, n.network, n.StaticLease); err != nil {
			e.Log.Warn("cannot note an instance with its network", "network", n.network, "instance", n.Instance, "err", err)
		}
	}
}

func (e *Engine) dropLeases(leases []lease) {
	for _, n := range leases {
		if err := e.Networks.DeleteLease(e.ctx, n.network, n.StaticLease); err != nil {
			e.Log.Warn("cannot take back a lease", "network", n.network, "instance", n.Instance, "err", err)
		}
	}
}

// linkOf is as much of a network device's link as its lease needs.
func linkOf(d map[string]string, mac string) device.Link {
	return device.Link{MAC: mac, Network: d["network"], IPv4: d["ipv4.address"], IPv6: d["ipv6.address"]}
}
