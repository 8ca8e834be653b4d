package instance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/store"
)

// Recover brings engine, store and kernel to agreement after the daemon has
// started: what was being made is undone, what was being removed or renamed is
// finished, containers and exec sessions that run are taken over. It returns
// when the API may show instances; Restore comes after it.
func (e *Engine) Recover(ctx context.Context) error {
	if err := makeDir(e.lxcPath(), 0o711); err != nil {
		return err
	}
	all, err := e.everything(ctx)
	if err != nil {
		return err
	}
	var bases []int64
	for _, l := range all {
		if b := idBase(l.local); b != 0 {
			bases = append(bases, b)
		}
	}
	if err := e.ids.reserve(bases); err != nil {
		return err
	}
	// One instance that cannot be recovered must not keep the others down.
	g := errgroup.Group{}
	g.SetLimit(4)
	for _, l := range all {
		g.Go(func() error {
			if err := e.recoverOne(ctx, l); err != nil {
				e.Log.Error("cannot recover an instance", "project", l.Project, "instance", l.Name, "err", err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := e.sweep(all); err != nil {
		e.Log.Warn("cannot sweep what an earlier run left", "err", err)
	}
	return e.adoptSessions(ctx)
}

// everything reads all instances of all projects, in whatever phase.
func (e *Engine) everything(ctx context.Context) ([]*loaded, error) {
	var out []*loaded
	err := e.Store.View(ctx, func(tx store.Tx) error {
		records, err := store.List[model.Instance](tx, model.InstancePrefix)
		if err != nil {
			return err
		}
		for _, r := range records {
			l, err := expand(tx, r.Value, r.Rev)
			if err != nil {
				return err
			}
			out = append(out, l)
		}
		return nil
	})
	return out, err
}

func (e *Engine) recoverOne(ctx context.Context, l *loaded) error {
	switch l.Phase {
	case model.Creating:
		return e.forget(ctx, l.Instance)
	case model.Deleting:
		return e.finishDelete(ctx, l.Instance, "instance-deleted")
	case model.Renaming:
		return e.finishRename(ctx, l.Instance)
	}
	pids, err := e.awaitStart(ctx, l)
	if err != nil {
		return err
	}
	if pids != nil && pids.BootID == e.bootID {
		l.local = e.recoverHostNames(l)
		running, err := e.attach(l, *pids, l.recoveredLeases())
		if err == nil {
			return errors.Join(e.recordRunning(ctx, l), e.recoverLimits(l, running))
		}
		if !errors.Is(err, linux.ErrGone) {
			return err
		}
		if empty, err := e.Cgroups.Empty(e.payload(l.Project, l.Name)); err != nil || !empty {
			return errors.Join(err, e.adoptBroken(l, *pids))
		}
	}
	e.clean(l.Project, l.Name)
	e.dropLeases(l.recoveredLeases())
	return e.recoverStopped(ctx, l)
}

// startPatience is how long start-up waits for one helper. A stuck one must not
// keep the daemon from starting; its instance stays as it is until the next start.
const startPatience = 30 * time.Second

// awaitStart waits for a start helper that an earlier daemon left at work, and
// reads which processes it has started; nil for none.
func (e *Engine) awaitStart(ctx context.Context, l *loaded) (*lxc.Pids, error) {
	lock, err := os.OpenFile(e.lockFile(l.Project, l.Name), os.O_RDWR, 0)
	if err == nil {
		defer lock.Close()
		ctx, cancel := context.WithTimeout(ctx, startPatience)
		defer cancel()
		locked := make(chan error, 1)
		go func() { locked <- unix.Flock(int(lock.Fd()), unix.LOCK_EX) }()
		select {
		case err := <-locked:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, api.Errorf(api.Busy, "a start helper of instance %s is still at work: %w", l.Name, ctx.Err())
		}
	}
	data, err := os.ReadFile(e.pidFile(l.Project, l.Name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pids, err := lxc.ParsePids(string(data))
	if err != nil {
		// Cut off by a crash of the host, after which nothing runs any more. Should
		// something run, its control group keeps the instance from being started.
		e.Log.Warn("the record of a container's processes is dropped", "project", l.Project, "instance", l.Name, "err", err)
		return nil, nil
	}
	return &pids, nil
}

// adoptBroken watches a container whose monitor is gone while its processes are
// not.
func (e *Engine) adoptBroken(l *loaded, pids lxc.Pids) error {
	e.Log.Warn("the monitor of a container is gone but its processes are not", "project", l.Project, "instance", l.Name)
	init, err := linux.OpenProcess(pids.Init)
	if err != nil {
		return fmt.Errorf("processes are left in control group %s, but no init: %w", e.payload(l.Project, l.Name), err)
	}
	b := &live{
		project: l.Project, name: l.Name, uuid: l.UUID, group: e.payload(l.Project, l.Name), idmap: l.idmap(), monitor: init, init: init,
		meter:  e.Cgroups.Meter(e.payload(l.Project, l.Name)),
		leases: l.recoveredLeases(), stopped: make(chan struct{}), broken: true,
	}
	e.mu.Lock()
	e.live[l.Key()] = b
	e.mu.Unlock()
	e.tasks.Go(func() {
		if e.awaitEmpty(b) == nil {
			e.finish(b)
		}
	})
	return nil
}

// recordRunning makes the record say what the kernel says; they differ when the
// daemon died between a start and its record.
func (e *Engine) recordRunning(ctx context.Context, l *loaded) error {
	if l.local.Power == model.PowerRunning && l.local.BootID == e.bootID {
		return nil
	}
	event := "instance-started"
	if l.local.Power == model.PowerRunning && l.local.BootID == "" {
		event = "" // it is the same run, and its restart never began
	}
	return e.updateLocal(ctx, l.Project, l.Name, event, func(local *model.Local, tx store.Tx) {
		maps.Copy(local.Volatile, l.local.Volatile)
		local.Power, local.BootID, local.LastUsedAt = model.PowerRunning, e.bootID, tx.Now()
		local.Volatile[lastPower] = string(model.PowerRunning)
	})
}

// recoverHostNames completes an instance's volatile keys by the names that the
// host's ends of its interfaces got at its start, should the daemon have died
// before they were on record. The configuration that liblxc was given has them.
func (e *Engine) recoverHostNames(l *loaded) *model.Local {
	conf, err := os.ReadFile(e.path("logs", model.DirName(l.Project, l.Name), "lxc.conf"))
	if err != nil {
		return l.local // as it is: only what is shown of the interfaces depends on it
	}
	names := lxc.HostNames(string(conf))
	local := l.local.Clone()
	for name, d := range l.devices {
		key := "volatile." + name + ".host_name"
		if pair := names[cmp.Or(d["name"], name)]; d["type"] == "nic" && d["host_name"] == "" && local.Volatile[key] == "" && pair != "" {
			local.Volatile[key] = pair
		}
	}
	return local
}

// recoverStopped settles an instance that does not run. What stopped while the
// daemon was away stays stopped; after a boot of the host the power state is
// restored, by Restore. An ephemeral instance that has run and is to stay
// stopped goes, also when that was on record before the daemon died.
func (e *Engine) recoverStopped(ctx context.Context, l *loaded) error {
	ran := l.local.Power == model.PowerRunning && l.local.BootID == e.bootID
	if ran {
		e.recordStopped(l.Project, l.Name, "instance-stopped", stopFound)
	}
	if l.Ephemeral && (ran || l.local.Power == model.PowerStopped && !l.local.LastUsedAt.IsZero()) {
		return e.remove(ctx, l.Project, l.Name)
	}
	return nil
}

// recoveredLeases are the leases of a container that was started by an earlier
// daemon.
func (l *loaded) recoveredLeases() []lease {
	p := &startPlan{loaded: l}
	for name, d := range l.devices {
		if d["type"] != "nic" || d["network"] == "" {
			continue
		}
		mac := d["hwaddr"]
		if mac == "" {
			mac = l.local.Volatile["volatile."+name+".hwaddr"]
		}
		// A device whose addresses cannot be parsed never got a lease.
		_ = p.addLease(linkOf(d, mac), name)
	}
	return p.leases
}

// sweep removes what belongs to no instance any more: control groups, device
// nodes and files of runs that a crash cut off.
func (e *Engine) sweep(all []*loaded) error {
	known := map[string]bool{pivotGroup: true}
	for _, l := range all {
		known[model.DirName(l.Project, l.Name)] = true
		if l.RenameTo != "" {
			known[model.DirName(l.Project, l.RenameTo)] = true
		}
	}
	var errs []error
	for _, root := range e.Cgroups.Roots() {
		entries, err := os.ReadDir(root + "/" + e.cgroup)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			if entry.IsDir() && !known[strings.TrimSuffix(entry.Name(), monitorSuffix)] {
				errs = append(errs, e.Cgroups.Remove(e.cgroup+"/"+entry.Name()))
			}
		}
	}
	for _, dir := range []string{"devices", "logs", "containers"} {
		entries, err := os.ReadDir(e.path(dir))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, entry := range entries {
			if !known[entry.Name()] {
				errs = append(errs, os.RemoveAll(e.path(dir, entry.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// Restore starts the instances that are to run, and returns when all have been
// tried: after a boot of the host
// those that ran before and those with boot.autostart, later only those that
// have never been started in this boot and have boot.autostart. Higher
// boot.autostart.priority goes first; those of one priority start together,
// four at a time.
func (e *Engine) Restore(ctx context.Context) error {
	all, err := e.everything(ctx)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(l *loaded) bool { return !e.wantsStart(l) })
	priority := func(l *loaded) int64 {
		n, _, _ := option.Int(l.config, "boot.autostart.priority")
		return n
	}
	slices.SortStableFunc(all, func(a, b *loaded) int { return int(priority(b) - priority(a)) })
	for len(all) > 0 && ctx.Err() == nil {
		n := 1
		for n < len(all) && priority(all[n]) == priority(all[0]) {
			n++
		}
		e.startTogether(ctx, all[:n])
		all = all[n:]
	}
	return ctx.Err()
}

func (e *Engine) wantsStart(l *loaded) bool {
	if l.Phase != model.Ready || e.liveOf(l.Project, l.Name) != nil {
		return false
	}
	booted := l.local.BootID == e.bootID // it was started since the host booted
	switch l.config["boot.autostart"] {
	case "":
		return l.local.Power == model.PowerRunning && !booted
	default:
		return option.Bool(l.config, "boot.autostart") && !booted
	}
}

func (e *Engine) startTogether(ctx context.Context, group []*loaded) {
	g := errgroup.Group{}
	g.SetLimit(4)
	for _, l := range group {
		g.Go(func() error {
			release, err := e.Locks.Acquire(ctx, owner("", "starting"), lockKey(l.Project, l.Name))
			if err != nil {
				return nil
			}
			defer release()
			if e.liveOf(l.Project, l.Name) == nil {
				if err := e.start(ctx, l.Project, l.Name, "instance-started"); err != nil {
					e.Log.Error("cannot start an instance", "project", l.Project, "instance", l.Name, "err", err)
				}
			}
			if delay, _ := strconv.Atoi(strings.TrimSpace(l.config["boot.autostart.delay"])); delay > 0 {
				_ = sleep(ctx, time.Duration(delay)*time.Second)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// Shutdown stops all running instances because the host goes down: higher
// boot.stop.priority first, each with its boot.host_shutdown_timeout before it is
// killed. Their power states stay, so that they come back at the next boot.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	e.stopping = true
	e.mu.Unlock()
	all, err := e.everything(ctx)
	if err != nil {
		return err
	}
	byPriority := map[int64][]*loaded{}
	for _, l := range all {
		if e.liveOf(l.Project, l.Name) != nil {
			n, _, _ := option.Int(l.config, "boot.stop.priority")
			byPriority[n] = append(byPriority[n], l)
		}
	}
	order := make([]int64, 0, len(byPriority))
	for n := range byPriority {
		order = append(order, n)
	}
	slices.Sort(order)
	var errs []error
	for _, n := range slices.Backward(order) {
		g := errgroup.Group{}
		for _, l := range byPriority[n] {
			g.Go(func() error { return e.shutdownOne(ctx, l) })
		}
		errs = append(errs, g.Wait())
	}
	return errors.Join(errs...)
}

func (e *Engine) shutdownOne(ctx context.Context, l *loaded) error {
	release, err := e.Locks.Acquire(ctx, owner("", "stopping with the host"), lockKey(l.Project, l.Name))
	if err != nil {
		return err
	}
	defer release()
	timeout, set, err := option.Int(l.config, "boot.host_shutdown_timeout")
	if err != nil || !set {
		timeout = 30
	}
	running := e.liveOf(l.Project, l.Name)
	if running == nil {
		return nil
	}
	if timeout > 0 && running.status() == api.Running {
		err := e.shutdown(ctx, running, int(timeout))
		if err == nil {
			return nil
		}
		e.Log.Warn("an instance did not shut down and is killed", "project", l.Project, "instance", l.Name, "err", err)
	}
	return e.kill(ctx, running)
}
