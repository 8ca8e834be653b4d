package instance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/store"
)

// live is what the engine holds of a running container.
type live struct {
	project, name string
	uuid          string // of the instance: another one may get its name
	group         string // payload control group
	idmap         linux.IDMap
	monitor       *linux.PidFD
	orphaned      chan struct{}     // closed when the monitor is gone
	hostNames     map[string]string // interface inside to its other end
	leases        []lease           // noted with networks, undone at the end
	stopped       chan struct{}     // closed when the container has ended and that is on record

	mu     sync.Mutex
	init   *linux.PidFD
	net    *linux.NetNSWatch // nil if the namespace could not be watched
	meter  *linux.Meter
	frozen bool
	broken bool   // the monitor is gone, processes are left
	cpus   []int  // bound to; nil: to all
	silent bool   // tell nobody of the end
	ending bool   // it has ended, which is being recorded
	killed bool   // it is to end at once, also when its guest reboots meanwhile
	why    string // event to tell of the end; empty: instance-stopped, nobody asked
}

type lease struct {
	network string
	network.StaticLease
}

func (l *live) status() api.StatusCode {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.broken:
		return api.StatusError
	case l.frozen:
		return api.Frozen
	}
	return api.Running
}

func (l *live) initPID() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.init.PID
}

// restarting notes whether the coming end is half of a restart, which is one
// event. It reports whether it comes too late: the end is being recorded.
func (l *live) restarting(r bool) (late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = r
	return l.ending
}

func (l *live) setFrozen(f bool) {
	l.mu.Lock()
	l.frozen = f
	l.mu.Unlock()
}

// release lets go of the kernel's handles; the container goes on.
func (l *live) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init.Close()
	l.monitor.Close()
	l.meter.Close()
	if l.net != nil {
		l.net.Close()
	}
}

func (e *Engine) liveOf(project, name string) *live {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.live[model.InstanceKey(project, name)]
}

// running gives the live entry of a container that a command can be run in.
func (e *Engine) running(project, name string) (*live, error) {
	l := e.liveOf(project, name)
	if l == nil {
		return nil, api.Errorf(api.BadState, "instance %s is not running", name).WithHint("start it first: croft start %s", name)
	}
	switch l.status() {
	case api.Frozen:
		return nil, api.Errorf(api.BadState, "instance %s is frozen", name).WithHint("resume it first: croft start %s", name)
	case api.StatusError:
		return nil, api.Errorf(api.BadState, "instance %s has lost its monitor", name).WithHint("clean it up first: croft stop --force %s", name)
	}
	return l, nil
}

// attach opens handles on a container's processes and watches it from now on.
//
// Errors: linux.ErrGone if the monitor does not run any more.
func (e *Engine) attach(i *loaded, pids lxc.Pids, leases []lease) (*live, error) {
	monitor, err := linux.OpenProcess(pids.Monitor)
	if err != nil {
		return nil, err
	}
	l := &live{
		project: i.Project, name: i.Name, uuid: i.UUID, group: e.payload(i.Project, i.Name), monitor: monitor,
		orphaned: make(chan struct{}), idmap: i.idmap(), leases: leases, hostNames: i.hostNames(), stopped: make(chan struct{}),
	}
	e.tasks.Go(func() { e.watchMonitor(l) })
	init, err := linux.OpenProcess(pids.Init)
	if errors.Is(err, linux.ErrGone) {
		// The guest rebooted while nobody looked, or its end is on its way.
		init, err = e.nextInit(e.ctx, l, pids.Init.PID)
	}
	if err != nil {
		monitor.Close()
		return nil, err
	}
	l.mu.Lock()
	l.init, l.meter, l.frozen = init, e.Cgroups.Meter(l.group), e.Cgroups.Frozen(l.group)
	if i.config["limits.cpu"] != "" {
		l.cpus = e.boundTo(l.group)
	}
	l.mu.Unlock()
	l.net, err = linux.WatchNetNSOf(l.init.PID)
	if err != nil {
		e.Log.Warn("cannot watch the interfaces of a container", "project", i.Project, "instance", i.Name, "err", err)
	}
	e.mu.Lock()
	e.live[i.Key()] = l
	e.mu.Unlock()
	e.tasks.Go(func() { e.watch(l) })
	return l, nil
}

// watchMonitor notices when a container loses its monitor. An init that is left
// runs on, but nobody would ever clean up after it.
func (e *Engine) watchMonitor(l *live) {
	if l.monitor.Wait(e.ctx) != nil {
		return
	}
	l.mu.Lock()
	if l.init != nil && !l.init.Exited() {
		l.broken = true
		e.Log.Warn("the monitor of a container is gone but its init is not", "project", l.project, "instance", l.name)
	}
	l.mu.Unlock()
	close(l.orphaned) // last: from here on the handles may be closed
}

// watch follows a container until it has ended or the engine closes.
func (e *Engine) watch(l *live) {
	for {
		l.mu.Lock()
		init := l.init
		l.mu.Unlock()
		if err := init.Wait(e.ctx); err != nil {
			return
		}
		next, err := e.nextInit(e.ctx, l, init.PID)
		if err != nil {
			break
		}
		e.rebooted(l, next)
	}
	if e.ctx.Err() != nil {
		return
	}
	e.ended(l)
}

// nextInit waits, after init has gone, for what the monitor does next: it ends
// too, or it starts a new init because the guest rebooted. The kernel tells
// nobody but the parent of new children, so this looks, 20 times a second at
// most and only in this short moment of a container's life.
//
// Errors: linux.ErrGone when the monitor has ended.
func (e *Engine) nextInit(ctx context.Context, l *live, old int) (*linux.PidFD, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if p, ok := initBelow(l.monitor.PID, old); ok {
			if fd, err := linux.OpenProcess(p); err == nil {
				if !l.monitor.Exited() {
					return fd, nil
				}
				fd.Close() // the monitor's pid may have been another's by then
			}
		}
		look := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			look.Stop()
			return nil, ctx.Err()
		case <-l.orphaned:
			look.Stop()
			return nil, linux.ErrGone
		case <-look.C:
		}
	}
}

// initBelow finds a child of the monitor that is the first process of a pid
// namespace.
func initBelow(monitor, old int) (linux.Process, bool) {
	children, err := linux.Children(monitor)
	if err != nil {
		return linux.Process{}, false
	}
	for _, pid := range children {
		p, parent, err := linux.ReadProcess(pid)
		if err != nil || parent != monitor || pid == old || !firstInNamespace(pid) {
			continue
		}
		return p, true
	}
	return linux.Process{}, false
}

func firstInNamespace(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids := strings.Fields(rest)
			return len(ids) > 1 && ids[len(ids)-1] == "1"
		}
	}
	return false
}

// rebooted takes note of a container's new init.
func (e *Engine) rebooted(l *live, init *linux.PidFD) {
	net, err := linux.WatchNetNSOf(init.PID)
	if err != nil {
		net = nil
	}
	l.mu.Lock()
	old, oldNet, oldMeter := l.init, l.net, l.meter
	// liblxc has made the control groups anew.
	l.init, l.net, l.meter, l.frozen = init, net, e.Cgroups.Meter(l.group), false
	killed := l.killed
	l.mu.Unlock()
	if killed { // whoever killed the init before this one waits for the end
		_ = init.Signal(unix.SIGKILL)
	}
	old.Close()
	oldMeter.Close()
	if oldNet != nil {
		oldNet.Close()
	}
	pids := lxc.Pids{Init: init.Process, Monitor: l.monitor.Process, BootID: e.bootID}
	if err := writePids(e.pidFile(l.project, l.name), pids); err != nil {
		e.Log.Warn("cannot record a rebooted container", "project", l.project, "instance", l.name, "err", err)
	}
	err = e.updateLocal(e.ctx, l.project, l.name, "instance-restarted", func(local *model.Local, _ store.Tx) {
		local.LastUsedAt = e.Now().UTC()
	})
	if err != nil {
		e.Log.Warn("cannot record a rebooted container", "project", l.project, "instance", l.name, "err", err)
	}
}

func writePids(file string, p lxc.Pids) error {
	return replaceFile(file, fmt.Appendf(nil, "%d %d %d %d %s\n", p.Init.PID, p.Init.Start, p.Monitor.PID, p.Monitor.Start, p.BootID))
}

// replaceFile gives a file of this boot new content at once. It is not made
// durable: after a boot of the host nobody reads it.
func replaceFile(file string, data []byte) error {
	if err := os.WriteFile(file+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".tmp", file)
}

// ended records that a container's monitor is gone. If processes are left, the
// monitor was killed: they would corrupt the container if it were started
// again, so it is shown as broken until they are gone.
func (e *Engine) ended(l *live) {
	empty, err := e.Cgroups.Empty(l.group)
	if err != nil {
		e.Log.Warn("cannot tell whether a container is empty", "project", l.project, "instance", l.name, "err", err)
	}
	if !empty {
		l.mu.Lock()
		l.broken = true
		l.mu.Unlock()
		e.Log.Warn("the monitor of a container is gone but its processes are not", "project", l.project, "instance", l.name)
		if e.awaitEmpty(l) != nil {
			return
		}
	}
	e.finish(l)
}

// awaitEmpty waits until a broken container has no process left.
func (e *Engine) awaitEmpty(l *live) error {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if empty, err := e.Cgroups.Empty(l.group); err == nil && empty {
			return nil
		}
		if err := sleep(e.ctx, pause); err != nil {
			return err
		}
	}
}

// finish cleans up after a container that has ended and records it.
func (e *Engine) finish(l *live) {
	l.mu.Lock()
	action, silent := l.why, l.silent
	l.ending = true
	l.mu.Unlock()
	how := stopAsked
	if action == "" {
		action, how = "instance-stopped", stopFound
	}
	if silent {
		action, how = "", stopHalf
	}
	l.release()
	e.clean(l.project, l.name)
	e.dropLeases(l.leases)
	ephemeral := e.recordStopped(l.project, l.name, action, how)
	e.mu.Lock()
	delete(e.live, model.InstanceKey(l.project, l.name))
	keep := e.stopping
	e.mu.Unlock()
	close(l.stopped)
	if ephemeral && !keep {
		e.tasks.Go(func() { e.reapEphemeral(l.project, l.name, l.uuid) })
	}
}

// stopKind tells what a stop means for the power state on record.
type stopKind int

const (
	stopFound stopKind = iota // nobody asked for it
	stopAsked                 // asked for through the API
	stopHalf                  // half of a restart: a daemon that finds it so goes on with the other half
)

// recordStopped notes the power state, unless the host goes down, when what ran
// is to run again. What clients see as the last power state changes only when
// the stop was asked for through the API, as with LXD; a guest that halts itself
// is nevertheless not started again at the next boot. It reports whether the
// instance is ephemeral.
func (e *Engine) recordStopped(project, name, action string, how stopKind) (ephemeral bool) {
	e.mu.Lock()
	keep := e.stopping || how == stopHalf
	e.mu.Unlock()
	err := e.updateLocal(e.ctx, project, name, action, func(local *model.Local, tx store.Tx) {
		if keep {
			local.BootID = "" // so that it runs again also after a start in the same boot
		} else {
			local.Power = model.PowerStopped
		}
		if how == stopAsked && !keep {
			local.Volatile[lastPower] = string(model.PowerStopped)
		}
		for key := range local.Volatile {
			if strings.HasSuffix(key, ".host_name") {
				delete(local.Volatile, key)
			}
		}
		if inst, _, err := store.Get[model.Instance](tx, model.InstanceKey(project, name)); err == nil {
			ephemeral = inst.Ephemeral
		}
	})
	if err != nil && e.ctx.Err() == nil {
		e.Log.Error("cannot record that a container has stopped", "project", project, "instance", name, "err", err)
	}
	return ephemeral
}

// lastPower is where clients look for the power state.
const lastPower = "volatile.last_state.power"

// clean removes what a container leaves on the host: control groups, device
// nodes, the record of its processes.
func (e *Engine) clean(project, name string) {
	var errs []error
	errs = append(errs, e.removeGroup(e.payload(project, name)), e.removeGroup(e.monitorGroup(project, name)))
	errs = append(errs, os.RemoveAll(e.path("devices", model.DirName(project, name))))
	pids, limits := e.pidFile(project, name), e.limitsFile(project, name)
	for _, file := range []string{pids, limits, pids + ".tmp", limits + ".tmp"} {
		if err := os.Remove(file); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		e.Log.Warn("cannot clean up after a container", "project", project, "instance", name, "err", err)
	}
}

// removeGroup removes a control group. A process that is ending, such as a helper
// whose start has failed, may be in it for a moment more: that is waited for, half
// a second at most.
func (e *Engine) removeGroup(group string) error {
	for pause := time.Millisecond; ; pause *= 2 {
		err := e.Cgroups.Remove(group)
		if !errors.Is(err, unix.EBUSY) || pause > 256*time.Millisecond || sleep(e.ctx, pause) != nil {
			return err
		}
	}
}

// reapEphemeral deletes an ephemeral instance that has stopped by itself. The
// lock makes it wait for a restart in progress, after which there is nothing to
// do. Nor is there when the name belongs to another instance by then.
func (e *Engine) reapEphemeral(project, name, uuid string) {
	release, err := e.Locks.Acquire(e.ctx, owner("", "deleting"), lockKey(project, name))
	if err != nil {
		return
	}
	defer release()
	l, err := e.load(e.ctx, project, name, false)
	if err != nil || l.UUID != uuid || !l.Ephemeral || e.liveOf(project, name) != nil {
		return
	}
	if err := e.remove(e.ctx, project, name); err != nil && !errors.Is(err, api.NotFound) && e.ctx.Err() == nil {
		e.Log.Error("cannot delete an ephemeral instance", "project", project, "instance", name, "err", err)
	}
}

// payload is the control group of a container's processes. It and the monitor's
// have no common parent of their own: making and removing groups, ten
// hierarchies each, is what a start and a stop spend much of their time on.
func (e *Engine) payload(project, name string) string {
	return e.cgroup + "/" + model.DirName(project, name)
}

// Suffix and name of groups that no instance's own can have: dots are not
// allowed in names.
const (
	monitorSuffix = ".monitor"
	pivotGroup    = "lxc.pivot"
)

func (e *Engine) monitorGroup(project, name string) string {
	return e.payload(project, name) + monitorSuffix
}

func (e *Engine) pidFile(project, name string) string {
	return e.path("run", model.DirName(project, name)+".pids")
}

func (e *Engine) limitsFile(project, name string) string {
	return e.path("run", model.DirName(project, name)+".limits")
}

func (e *Engine) lockFile(project, name string) string {
	return e.path("run", model.DirName(project, name)+".lock")
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// idmap is nil for a privileged instance.
func (l *loaded) idmap() linux.IDMap {
	if option.Bool(l.config, "security.privileged") {
		return nil
	}
	return idmapOf(l.local)
}

// hostNames tells for each interface inside what its other end is called.
func (l *loaded) hostNames() map[string]string {
	out := map[string]string{}
	for name, d := range l.devices {
		if d["type"] != "nic" {
			continue
		}
		inside := cmp.Or(d["name"], name)
		out[inside] = cmp.Or(d["host_name"], l.local.Volatile["volatile."+name+".host_name"])
	}
	return out
}
