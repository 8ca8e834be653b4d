package instance

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/store"
)

// SetState starts an operation that changes the power state of an instance.
// What cannot work whatever happens next is refused now.
func (e *Engine) SetState(ctx context.Context, project, name string, req api.InstanceStatePut) (*operation.Op, error) {
	if _, err := e.load(ctx, project, name, false); err != nil {
		return nil, err
	}
	change, err := e.stateChange(req)
	if err != nil {
		return nil, err
	}
	if req.Force {
		e.preempt(project, name)
	}
	spec := operation.Spec{Project: project, Description: change.description, Resources: map[string][]string{"instances": {"/1.0/instances/" + name}}, Cancel: change.cancel}
	return e.begin(ctx, spec, change.reason, []string{lockKey(project, name)}, func(ctx context.Context, _ *operation.Op) error {
		return change.run(ctx, project, name)
	})
}

// preempt ends a clean stop that is under way, which may wait for its guest for
// ever, in favour of one by force. Other operations are not cancelled by it: they
// say so, or end by themselves.
func (e *Engine) preempt(project, name string) {
	if h, held := e.Locks.Holder(lockKey(project, name)); held && (h.Reason == "stopping" || h.Reason == "restarting") {
		_ = e.Ops.Cancel(h.Operation, nil)
	}
}

// SetStateAll changes the power state of all instances of a project for which
// the change means something.
func (e *Engine) SetStateAll(ctx context.Context, project string, req api.InstanceStatePut) (*operation.Op, error) {
	change, err := e.stateChange(req)
	if err != nil {
		return nil, err
	}
	all, err := e.List(ctx, project)
	if err != nil {
		return nil, err
	}
	var names, keys []string
	for _, i := range all {
		if change.applies(i.StatusCode) {
			names, keys = append(names, i.Name), append(keys, lockKey(project, i.Name))
		}
	}
	paths := []string{}
	for _, n := range names {
		paths = append(paths, "/1.0/instances/"+n)
	}
	spec := operation.Spec{Project: project, Description: change.description, Resources: map[string][]string{"instances": paths}, Cancel: change.cancel}
	return e.begin(ctx, spec, change.reason, keys, func(ctx context.Context, _ *operation.Op) error {
		return forEach(names, func(name string) error { return change.run(ctx, project, name) })
	})
}

// stateChange is one of the actions of InstanceStatePut.
type stateChange struct {
	description, reason string
	cancel              bool // the operation may be cancelled
	applies             func(api.StatusCode) bool
	run                 func(ctx context.Context, project, name string) error
}

func (e *Engine) stateChange(req api.InstanceStatePut) (stateChange, error) {
	if req.Stateful {
		return stateChange{}, api.Errorf(api.Unsupported, "stateful: keeping memory and processor state is not supported by this version")
	}
	is := func(want api.StatusCode) func(api.StatusCode) bool {
		return func(s api.StatusCode) bool { return s == want }
	}
	up := func(s api.StatusCode) bool { return s != api.Stopped }
	switch req.Action {
	case "start":
		return stateChange{"Starting instance", "starting", false, is(api.Stopped), e.startOrResume}, nil
	case "stop":
		return stateChange{"Stopping instance", "stopping", !req.Force, up, func(ctx context.Context, project, name string) error {
			return e.stopAndReap(ctx, project, name, req)
		}}, nil
	case "restart":
		return stateChange{"Restarting instance", "restarting", !req.Force, up, func(ctx context.Context, project, name string) error {
			return e.restart(ctx, project, name, req)
		}}, nil
	case "freeze":
		return stateChange{"Freezing instance", "freezing", false, is(api.Running), e.freeze}, nil
	case "unfreeze":
		return stateChange{"Unfreezing instance", "unfreezing", false, is(api.Frozen), e.unfreeze}, nil
	}
	return stateChange{}, api.Errorf(api.Invalid, "action %q is not known; allowed are start, stop, restart, freeze, unfreeze", req.Action)
}

// startOrResume starts a stopped instance and resumes a frozen one.
func (e *Engine) startOrResume(ctx context.Context, project, name string) error {
	if l := e.liveOf(project, name); l != nil && l.status() == api.Frozen {
		return e.unfreeze(ctx, project, name)
	}
	return e.start(ctx, project, name, "instance-started")
}

// stopAndReap stops an instance and deletes it if it is ephemeral.
func (e *Engine) stopAndReap(ctx context.Context, project, name string, req api.InstanceStatePut) error {
	if err := e.stop(ctx, project, name, req); err != nil {
		return err
	}
	l, err := e.load(ctx, project, name, false)
	if errors.Is(err, api.NotFound) {
		return nil
	}
	if err != nil || !l.Ephemeral {
		return err
	}
	return e.remove(ctx, project, name)
}

func (e *Engine) restart(ctx context.Context, project, name string, req api.InstanceStatePut) error {
	if l := e.liveOf(project, name); l != nil {
		l.restarting(true)
		defer l.restarting(false)
		if err := e.setBootID(ctx, project, name, ""); err != nil {
			return err
		}
		if err := e.stop(ctx, project, name, req); err != nil {
			return errors.Join(err, e.giveUpRestart(context.WithoutCancel(ctx), l))
		}
	} else if err := e.stop(ctx, project, name, req); err != nil {
		return err
	}
	err := e.start(ctx, project, name, "instance-restarted")
	if err != nil && e.liveOf(project, name) == nil {
		e.recordStopped(project, name, "instance-stopped", stopAsked)
	}
	return err
}

// giveUpRestart settles an instance whose restart has failed at its first half: it
// runs on, or has ended in this moment after all and stays so.
func (e *Engine) giveUpRestart(ctx context.Context, l *live) error {
	if !l.restarting(false) {
		return e.setBootID(ctx, l.project, l.name, e.bootID)
	}
	select {
	case <-l.stopped:
		e.recordStopped(l.project, l.name, "instance-stopped", stopAsked)
		return nil
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
}

// setBootID notes the boot in which an instance was started. Without one, a
// daemon that finds it stopped starts it: what died in the middle of a restart
// is not left at half of it.
func (e *Engine) setBootID(ctx context.Context, project, name, id string) error {
	return e.updateLocal(ctx, project, name, "", func(local *model.Local, _ store.Tx) { local.BootID = id })
}

// stop ends a running container, by asking its init or, when req.Force is set,
// by killing it, and returns when it has ended and that is on record.
//
// Errors: BadState if it does not run; Timeout, with the container running on;
// ctx's.
func (e *Engine) stop(ctx context.Context, project, name string, req api.InstanceStatePut) error {
	l := e.liveOf(project, name)
	if l == nil {
		if req.Force {
			return e.forceClean(ctx, project, name)
		}
		return api.Errorf(api.BadState, "instance %s is already stopped", name)
	}
	if !req.Force {
		return e.shutdown(ctx, l, req.Timeout)
	}
	return e.kill(ctx, l)
}

// forceClean ends what a container without a monitor has left behind; a stop
// of an instance that has simply stopped is an error.
func (e *Engine) forceClean(ctx context.Context, project, name string) error {
	empty, err := e.Cgroups.Empty(e.payload(project, name))
	if err != nil {
		return err
	}
	if empty {
		return api.Errorf(api.BadState, "instance %s is already stopped", name)
	}
	if err := e.Cgroups.Kill(ctx, e.payload(project, name)); err != nil {
		return err
	}
	e.clean(project, name)
	return nil
}

// haltSignal is what asks an init to shut down: systemd takes SIGRTMIN+3, known
// by its blocking it for a signalfd (systemd(1), "Signals"); others SIGPWR. ok is
// false while init would take neither, as in the first moments of its life: the
// kernel drops signals to an init that has no handler for them.
func haltSignal(init int) (sig unix.Signal, ok bool) {
	const rtmin3 = 34 + 3
	blocked, caught := linux.SignalMasks(init)
	if blocked&(1<<(rtmin3-1)) != 0 {
		return rtmin3, true
	}
	return unix.SIGPWR, (blocked|caught)&(1<<(unix.SIGPWR-1)) != 0
}

func (e *Engine) shutdown(ctx context.Context, l *live, timeout int) error {
	if s := l.status(); s != api.Running {
		return api.Errorf(api.BadState, "instance %s is %s and cannot shut down", l.name, s).WithHint("croft stop --force %s", l.name)
	}
	l.mu.Lock()
	l.why = "instance-shutdown"
	l.mu.Unlock()
	var limit <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(time.Duration(timeout) * time.Second)
		defer t.Stop()
		limit = t.C
	}
	// Until init is ready to be asked, look again now and then.
	ready := time.NewTimer(0)
	defer ready.Stop()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		select {
		case <-ready.C:
			asked, err := l.askToHalt()
			if err != nil {
				return err
			}
			if asked { // it may have been lost all the same: again, but not in haste
				pause = max(pause, time.Second)
			}
			ready.Reset(pause)
			continue
		case <-l.stopped:
			return nil
		case <-limit:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return api.Errorf(api.Timeout, "instance %s did not stop within %d s", l.name, timeout).WithHint("croft stop --force %s", l.name)
	}
}

// askToHalt sends init the signal to shut down, if it would take it.
func (l *live) askToHalt() (asked bool, err error) {
	l.mu.Lock()
	init := l.init
	l.mu.Unlock()
	sig, ok := haltSignal(init.PID)
	if !ok {
		return false, nil
	}
	if err := init.Signal(sig); err != nil && !gone(err) {
		return false, err
	}
	return true, nil
}

// kill ends a container at once.
func (e *Engine) kill(ctx context.Context, l *live) error {
	l.mu.Lock()
	l.why, l.killed = "instance-stopped", true
	init, frozen, broken := l.init, l.frozen, l.broken
	l.mu.Unlock()
	// The death of init is the death of all processes in its pid namespace.
	if err := init.Signal(unix.SIGKILL); err != nil && !gone(err) {
		return err
	}
	if frozen {
		// A frozen process of control groups version 1 does not take the signal.
		if err := e.Cgroups.Freeze(l.group, false); err != nil {
			return err
		}
	}
	if broken {
		if err := e.Cgroups.Kill(ctx, l.group); err != nil {
			return err
		}
	}
	select {
	case <-l.stopped:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// gone reports whether a signal has come too late: the process has ended, and its
// handle may be closed already.
func gone(err error) bool { return errors.Is(err, linux.ErrGone) || errors.Is(err, os.ErrClosed) }

func (e *Engine) freeze(ctx context.Context, project, name string) error {
	l := e.liveOf(project, name)
	if l == nil {
		return api.Errorf(api.BadState, "instance %s is not running", name)
	}
	if l.status() != api.Running {
		return api.Errorf(api.BadState, "instance %s is already frozen", name)
	}
	if err := e.Cgroups.Freeze(l.group, true); err != nil {
		return err
	}
	for pause := time.Millisecond; !e.Cgroups.Frozen(l.group); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-l.stopped:
			return api.Errorf(api.BadState, "instance %s stopped before it was frozen", name)
		default:
		}
		if err := sleep(ctx, pause); err != nil {
			return errors.Join(err, e.Cgroups.Freeze(l.group, false))
		}
	}
	l.setFrozen(true)
	return e.announce(ctx, project, name, "instance-paused")
}

func (e *Engine) unfreeze(ctx context.Context, project, name string) error {
	l := e.liveOf(project, name)
	if l == nil {
		return api.Errorf(api.BadState, "instance %s is not running", name)
	}
	if l.status() != api.Frozen {
		return api.Errorf(api.BadState, "instance %s is not frozen", name)
	}
	if err := e.Cgroups.Freeze(l.group, false); err != nil {
		return err
	}
	l.setFrozen(false)
	return e.announce(ctx, project, name, "instance-resumed")
}

// announce stores an event that changes no record.
func (e *Engine) announce(ctx context.Context, project, name, action string) error {
	return e.Store.Update(ctx, func(tx store.Tx) error {
		if _, _, err := store.Get[model.Instance](tx, model.InstanceKey(project, name)); err != nil {
			return err
		}
		return emit(ctx, tx, action, project, name, nil)
	})
}
