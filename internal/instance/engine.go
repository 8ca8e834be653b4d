// Package instance is the engine that makes, runs and removes containers. It
// also keeps the profiles, the other half of an instance's configuration.
//
// The store holds what is wanted; what is, the kernel is asked. For each running
// container the engine has a [live] entry: handles on its init and monitor, its
// control group and its network namespace, put there when it starts or when the
// daemon finds it at start-up, taken away when its monitor ends. Each change of
// an instance happens in an operation under the instance's lock; its phase in
// the store tells start-up what to finish or undo after a crash.
package instance

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/store"
)

// RunDir holds what containers' ids must be able to reach: the directory on
// which roots are staged and the names that liblxc knows daemons by.
const RunDir = "/run/croft"

// Engine makes, runs and removes containers. Its methods are safe for
// concurrent use.
type Engine struct {
	Deps
	ids      *idRegister
	bootID   string
	cgroup   string // prefix of this daemon's control groups
	apparmor bool
	cpus     []int // that the daemon may use
	arch     string

	ctx   context.Context // ends with Close; watchers live in it
	end   context.CancelFunc
	execs context.Context // ends with LeaveSessions
	leave context.CancelFunc
	tasks sync.WaitGroup // goroutines that Close waits for

	mu       sync.Mutex
	live     map[string]*live // by instance key; running containers only
	stopping bool             // the host goes down: power states are kept
	roots    map[string]*openRoot
}

// New makes an engine. Recover has to be called before anything else.
func New(d Deps) (*Engine, error) {
	boot, err := linux.BootID()
	if err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	cpus, err := onlineCPUs()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		Deps: d, bootID: boot, cgroup: CgroupPrefix(d.StateDir), arch: kernelArch(), cpus: cpus,
		live: map[string]*live{}, roots: map[string]*openRoot{},
	}
	e.RunDir = cmp.Or(d.RunDir, RunDir)
	e.ids = newIDRegister(cmp.Or(d.IDFile, defaultIDFile), d.StateDir)
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err == nil {
		e.apparmor = true
	}
	e.ctx, e.end = context.WithCancel(context.Background())
	e.execs, e.leave = context.WithCancel(e.ctx)
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{
		{e.RunDir, 0o711}, {e.stageDir(), 0o711}, {e.path("containers"), 0o711}, {e.path("devices"), 0o711},
		{e.path("logs"), 0o700}, {e.path("sessions"), 0o700}, {e.path("run"), 0o700},
	} {
		if err := makeDir(dir.path, dir.mode); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func makeDir(path string, mode fs.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode) // whatever the umask is
}

// LeaveSessions lets go of exec sessions, which run on until a later daemon
// takes them over. It comes first when the daemon alone stops, so that nobody
// waits for them.
func (e *Engine) LeaveSessions() { e.leave() }

// Close ends the watching of containers, which go on running.
func (e *Engine) Close() {
	e.end()
	e.tasks.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.live {
		l.release()
	}
	if len(e.live) == 0 {
		_ = os.Remove(e.lxcPath()) // stays if something is in it
	}
	for key, r := range e.roots {
		r.close()
		delete(e.roots, key)
	}
}

// DaemonID tells daemons with different state directories apart, in names of
// control groups and for liblxc.
func DaemonID(stateDir string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(stateDir)))
	return hex.EncodeToString(sum[:4])
}

// CgroupPrefix is the control group below which a daemon's containers are.
func CgroupPrefix(stateDir string) string { return "croft-" + DaemonID(stateDir) }

// LXCPath is the path that names a daemon's containers to liblxc.
func LXCPath(stateDir string) string { return filepath.Join(RunDir, DaemonID(stateDir)) }

func (e *Engine) lxcPath() string { return filepath.Join(e.RunDir, DaemonID(e.StateDir)) }

func (e *Engine) path(parts ...string) string {
	return filepath.Join(append([]string{e.StateDir}, parts...)...)
}

func (e *Engine) stageDir() string { return filepath.Join(e.RunDir, "stage") }

func kernelArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// lockKey is what operations on an instance lock.
func lockKey(project, name string) string { return "instance " + project + "/" + name }

// resources are what an operation about instances shows.
func resources(names ...string) map[string][]string {
	var instances, containers []string
	for _, n := range names {
		instances = append(instances, "/1.0/instances/"+n)
		containers = append(containers, "/1.0/containers/"+n)
	}
	return map[string][]string{"instances": instances, "containers": containers}
}

// loaded is an instance with all that its configuration is made of, from one
// view of the store.
type loaded struct {
	*model.Instance
	rev      store.Rev
	local    *model.Local
	profiles []*model.Profile
	config   map[string]string // expanded, without volatile keys
	devices  map[string]map[string]string
}

// load reads an instance. A record that is being made or removed counts as
// absent, except for the operation that does it (any).
func (e *Engine) load(ctx context.Context, project, name string, any bool) (*loaded, error) {
	var out *loaded
	err := e.Store.View(ctx, func(tx store.Tx) error {
		inst, rev, err := store.Get[model.Instance](tx, model.InstanceKey(project, name))
		if err != nil {
			return err
		}
		if !any && !visible(inst) {
			return api.Errorf(api.NotFound, "instance %s not found", name)
		}
		out, err = expand(tx, inst, rev)
		return err
	})
	return out, err
}

func visible(i *model.Instance) bool { return i.Phase == model.Ready || i.Phase == model.Renaming }

func expand(tx store.Tx, inst *model.Instance, rev store.Rev) (*loaded, error) {
	l := &loaded{Instance: inst, rev: rev}
	for _, name := range inst.Profiles {
		p, _, err := store.Get[model.Profile](tx, model.ProfileKey(inst.Project, name))
		if err != nil {
			return nil, err
		}
		l.profiles = append(l.profiles, p)
	}
	l.config, l.devices = model.Expand(l.profiles, inst.Config, inst.Devices)
	local, _, err := store.Get[model.Local](tx, model.LocalKey(inst.Project, inst.Name))
	if errors.Is(err, api.NotFound) {
		local, err = &model.Local{}, nil
	}
	l.local = local
	return l, err
}

// begin starts an operation that holds the locks of instances while it runs.
// reason fits after "is", for those who find the instance locked.
func (e *Engine) begin(ctx context.Context, spec operation.Spec, reason string, keys []string, run func(ctx context.Context, op *operation.Op) error) (*operation.Op, error) {
	who := auth.From(ctx)
	spec.Requestor = who.Requestor()
	spec.Run = func(ctx context.Context, op *operation.Op) error {
		ctx = auth.With(ctx, who)
		release, err := e.Locks.Acquire(ctx, operation.Owner{Operation: op.ID(), Reason: reason}, keys...)
		if err != nil {
			return err
		}
		defer release()
		return run(ctx, op)
	}
	return e.Ops.Start(spec)
}

// requestorOf is who asked, as events show it; nil for the daemon itself.
func requestorOf(ctx context.Context) *api.EventLifecycleRequestor { return auth.From(ctx).Requestor() }

// emit adds a lifecycle event about an instance to a transaction.
func emit(ctx context.Context, tx store.Tx, action, project, name string, details map[string]any) error {
	return store.EmitLifecycle(tx, project, api.EventLifecycleMetadata{
		Action: action, Source: "/1.0/instances/" + name, Context: details, Requestor: requestorOf(ctx),
	})
}

// updateLocal changes an instance's host-local record, with an event if action
// is not empty. The record comes into being when there is none.
func (e *Engine) updateLocal(ctx context.Context, project, name, action string, change func(*model.Local, store.Tx)) error {
	return e.Store.Update(ctx, func(tx store.Tx) error {
		key := model.LocalKey(project, name)
		local, _, err := store.Edit[model.Local](tx, key)
		if errors.Is(err, api.NotFound) {
			local, err = &model.Local{}, nil
		}
		if err != nil {
			return err
		}
		local = local.Clone()
		change(local, tx)
		if err := store.Put(tx, key, local); err != nil {
			return err
		}
		if action == "" {
			return nil
		}
		return emit(ctx, tx, action, project, name, nil)
	})
}

// onlineCPUs are the processors this process may run on.
func onlineCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read the processor set: %w", err)
	}
	var out []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			out = append(out, i)
		}
	}
	return out, nil
}
