package instance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
	"github.com/croft-project/croft/internal/store/bolt"
)

// fixture is an engine with a real store and everything below it made up: the
// control groups are plain directories, a container is a shell as its monitor
// with a sleeping child as its init, volumes are directories.
type fixture struct {
	*Engine
	t        *testing.T
	deps     Deps
	groups   string // where the control group hierarchies are
	driver   *fakeDriver
	runtime  *fakeRuntime
	networks *fakeNetworks
	images   *fakeImages
}

const project = model.DefaultProject

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	db, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(dir, DatabaseFile)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	f := &fixture{t: t, groups: t.TempDir(), driver: newFakeDriver(t), networks: &fakeNetworks{noted: map[string]int{}}, images: &fakeImages{}}
	controllers := map[string]string{}
	for _, c := range []string{"memory", "pids", "cpuset", "freezer"} {
		controllers[c] = filepath.Join(f.groups, c)
	}
	cgroups, err := linux.NewCgroups("", controllers)
	if err != nil {
		t.Fatal(err)
	}
	f.runtime = &fakeRuntime{t: t, groups: controllers}
	f.deps = Deps{
		Store: db, Images: f.images, Pools: fakePools{f.driver}, Networks: f.networks, Templates: fakeTemplates{}, Runtime: f.runtime,
		Cgroups: cgroups, StateDir: dir, IDFile: filepath.Join(dir, "ids"), RunDir: filepath.Join(t.TempDir(), "run"),
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	f.put(&model.Pool{Name: "default", Driver: "fake", Phase: model.Ready})
	f.put(&model.Pool{Name: "other", Driver: "fake", Phase: model.Ready})
	f.put(&model.Network{Name: "br0", Type: "bridge", Phase: model.Ready})
	f.put(&model.Profile{Project: project, Name: "default", ProfilePut: api.ProfilePut{
		// Without a user namespace, which only root can make of whole ranges.
		Config:  map[string]string{"security.privileged": "true"},
		Devices: map[string]map[string]string{"root": {"type": "disk", "path": "/", "pool": "default"}, "eth0": {"type": "nic", "network": "br0"}},
	}})
	f.boot()
	t.Cleanup(f.halt)
	return f
}

// boot makes an engine out of what is on disk, as a daemon does at its start.
func (f *fixture) boot() {
	f.t.Helper()
	f.deps.Ops, f.deps.Locks = operation.New(operation.Deps{Events: nobody{}}), operation.NewLocks(nil)
	e, err := New(f.deps)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Engine, f.runtime.engine = e, e
	if err := e.Recover(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// halt ends the engine; containers run on.
func (f *fixture) halt() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f.LeaveSessions()
	if err := f.Ops.Shutdown(ctx, 0); err != nil {
		f.t.Error(err)
	}
	f.Close()
}

func (f *fixture) reboot() {
	f.t.Helper()
	f.halt()
	f.boot()
}

func (f *fixture) put(rec interface{ Key() string }) {
	f.t.Helper()
	err := f.deps.Store.Update(context.Background(), func(tx store.Tx) error { return store.Put(tx, rec.Key(), rec) })
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) rev() (rev store.Rev) {
	f.t.Helper()
	err := f.Store.View(context.Background(), func(tx store.Tx) error { rev = tx.Rev(); return nil })
	if err != nil {
		f.t.Fatal(err)
	}
	return rev
}

// events gives the lifecycle events since a revision.
func (f *fixture) events(from store.Rev) (actions []string) {
	f.t.Helper()
	to := f.rev()
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	batches, err := f.Store.Watch(ctx, from)
	if err != nil {
		f.t.Fatal(err)
	}
	for from < to {
		b := <-batches
		from = b.Rev
		for _, e := range b.Events {
			action := string(e.Payload)
			_, action, _ = strings.Cut(action, `"action":"`)
			action, _, _ = strings.Cut(action, `"`)
			actions = append(actions, action)
		}
	}
	return actions
}

// end waits for an operation and gives its error.
func end(op *operation.Op, err error) error {
	if err != nil {
		return err
	}
	<-op.Done()
	if a := op.API(); a.Err != "" {
		return api.Errorf(a.Kind, "%s", a.Err)
	}
	return nil
}

func (f *fixture) must(op *operation.Op, err error) {
	f.t.Helper()
	if err := end(op, err); err != nil {
		f.t.Fatal(err)
	}
}

func empty(name string) api.InstancesPost {
	return api.InstancesPost{Name: name, Source: api.InstanceSource{Type: "none"}}
}

func (f *fixture) create(name string, config ...string) {
	f.t.Helper()
	req := empty(name)
	req.Config = map[string]string{}
	for i := 0; i < len(config); i += 2 {
		req.Config[config[i]] = config[i+1]
	}
	f.must(f.Create(f.t.Context(), project, req))
}

func (f *fixture) state(action string) api.InstanceStatePut {
	return api.InstanceStatePut{Action: action, Timeout: -1}
}

func (f *fixture) start(name string) {
	f.t.Helper()
	f.must(f.SetState(f.t.Context(), project, name, f.state("start")))
}

func (f *fixture) status(name string) string {
	f.t.Helper()
	i, _, err := f.Get(f.t.Context(), project, name)
	if err != nil {
		return string(api.KindOf(err))
	}
	return i.Status
}

func (f *fixture) get(name string) api.Instance {
	f.t.Helper()
	i, _, err := f.Get(f.t.Context(), project, name)
	if err != nil {
		f.t.Fatal(err)
	}
	return i
}

func (f *fixture) local(name string) (l *model.Local) {
	f.t.Helper()
	err := f.Store.View(context.Background(), func(tx store.Tx) (err error) {
		l, _, err = store.Get[model.Local](tx, model.LocalKey(project, name))
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

// nothing checks that no trace of an instance is left.
func (f *fixture) nothing(name string) {
	f.t.Helper()
	for _, key := range []string{model.InstanceKey(project, name), model.LocalKey(project, name)} {
		_ = f.Store.View(context.Background(), func(tx store.Tx) error {
			if there, err := store.Exists(tx, key); there || err != nil {
				f.t.Errorf("key %s is left: %v", key, err)
			}
			return nil
		})
	}
	for _, path := range []string{f.driver.dir(name), f.path("containers", name), f.path("logs", name), f.path("devices", name), f.pidFile(project, name), f.lockFile(project, name)} {
		if _, err := os.Lstat(path); err == nil {
			f.t.Errorf("%s is left", path)
		}
	}
}

// eventually waits for what happens by itself.
func (f *fixture) eventually(what string, is func() bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	for !is() {
		if sleep(ctx, time.Millisecond) != nil {
			f.t.Fatalf("%s never happened", what)
		}
	}
}

func wantKind(t *testing.T, err error, kind api.Kind, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got %v (%s), want %s", err, api.KindOf(err), kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// newStoppedTimer is a timer whose time is over.
func newStoppedTimer() *time.Timer {
	t := time.AfterFunc(time.Hour, func() {})
	t.Stop()
	return t
}

type nobody struct{}

func (nobody) Publish(string, string, any) {}

type fakeTemplates struct{}

func (fakeTemplates) ApplyTemplates(context.Context, *os.File, *api.ImageMetadata, map[string][]byte, string, image.TemplateContext) error {
	return errors.New("templates are not expected here")
}

type fakeImages struct {
	mu   sync.Mutex
	used int // images in use now
}

func (i *fakeImages) Resolve(_ context.Context, _ string, src api.InstanceSource) (*model.Image, error) {
	if src.Alias != "img" {
		return nil, api.Errorf(api.NotFound, "image %q not found", src.Alias)
	}
	return &model.Image{
		Project: project, Fingerprint: strings.Repeat("ab", 32), Architecture: kernelArch(),
		Metadata:  api.ImageMetadata{Architecture: kernelArch(), CreationDate: 1, Properties: map[string]string{"os": "test"}},
		Templates: map[string][]byte{"hosts.tpl": []byte("x")},
	}, nil
}

func (i *fakeImages) StorageImage(m *model.Image) storage.Image {
	return storage.Image{Fingerprint: m.Fingerprint}
}

func (i *fakeImages) Use(context.Context, string, string) (func(), error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.used++
	return func() { i.mu.Lock(); i.used--; i.mu.Unlock() }, nil
}

func (i *fakeImages) NoteUse(store.Tx, string, string) error { return nil }

type fakeNetworks struct {
	mu    sync.Mutex
	noted map[string]int // leases by instance
}

func (n *fakeNetworks) Network(_ context.Context, name string) (*model.Network, error) {
	return &model.Network{Name: name, Type: "bridge"}, nil
}

func (n *fakeNetworks) SetLease(_ context.Context, _ string, l network.StaticLease) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.noted[l.Instance]++
	return nil
}

func (n *fakeNetworks) DeleteLease(_ context.Context, _ string, l network.StaticLease) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.noted[l.Instance]--
	return nil
}

func (n *fakeNetworks) leases(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.noted[name]
}

type fakePools struct{ d *fakeDriver }

func (p fakePools) Pool(_ context.Context, name string) (storage.Driver, error) {
	if err := p.d.failure("Pool"); err != nil {
		return nil, err
	}
	return p.d, nil
}

// fakeDriver keeps volumes as directories. Methods that are not here panic.
type fakeDriver struct {
	storage.Driver
	root string

	mu    sync.Mutex
	fails map[string]error // by method
}

func newFakeDriver(t *testing.T) *fakeDriver {
	return &fakeDriver{root: t.TempDir(), fails: map[string]error{}}
}

func (d *fakeDriver) fail(method string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails[method] = err
}

func (d *fakeDriver) failure(method string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fails[method]
}

func (d *fakeDriver) dir(name string) string { return filepath.Join(d.root, name) }

func (d *fakeDriver) CreateEmpty(_ context.Context, ref storage.Ref) error {
	if err := d.failure("Create"); err != nil {
		return err
	}
	if err := os.Mkdir(d.dir(ref.String()), 0o700); err != nil {
		return api.Errorf(api.Conflict, "volume %s: %w", ref, err)
	}
	return os.WriteFile(filepath.Join(d.dir(ref.String()), "of"), []byte(ref.Name), 0o600)
}

func (d *fakeDriver) Clone(ctx context.Context, ref storage.Ref, _ storage.Image) error {
	return d.CreateEmpty(ctx, ref)
}

func (d *fakeDriver) Rename(_ context.Context, from, to storage.Ref) error {
	if err := d.failure("Rename"); err != nil {
		return err
	}
	if _, err := os.Stat(d.dir(to.String())); err == nil {
		return api.Errorf(api.Conflict, "volume %s exists", to)
	}
	if err := os.Rename(d.dir(from.String()), d.dir(to.String())); err != nil {
		return api.Errorf(api.NotFound, "volume %s: %w", from, err)
	}
	return nil
}

func (d *fakeDriver) DeleteVolume(_ context.Context, ref storage.Ref) error {
	if err := d.failure("Delete"); err != nil {
		return err
	}
	if _, err := os.Stat(d.dir(ref.String())); err != nil {
		return api.Errorf(api.NotFound, "volume %s: %w", ref, err)
	}
	return os.RemoveAll(d.dir(ref.String()))
}

func (d *fakeDriver) Root(_ context.Context, ref storage.Ref) (storage.Root, error) {
	if _, err := os.Stat(d.dir(ref.String())); err != nil {
		return storage.Root{}, api.Errorf(api.NotFound, "volume %s: %w", ref, err)
	}
	return storage.Root{Dir: d.dir(ref.String()), Bind: "rootfs"}, nil
}

// fakeRuntime starts shells in the place of containers.
type fakeRuntime struct {
	t      *testing.T
	groups map[string]string // roots of the hierarchies
	engine *Engine

	mu       sync.Mutex
	err      error  // of the next start
	dies     bool   // the next container ends at once
	stubborn bool   // it does not take SIGPWR
	before   func() // called at each start
	started  int
}

func (r *fakeRuntime) set(change func(*fakeRuntime)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// limitFiles are what a control group of the fixture has.
var limitFiles = map[string]string{
	"freezer.state": "THAWED", "memory.limit_in_bytes": "-1", "memory.soft_limit_in_bytes": "-1", "memory.swappiness": "60", "pids.max": "max", "cpuset.cpus": "0",
}

func (r *fakeRuntime) Start(_ context.Context, req lxc.StartRequest) (lxc.Pids, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started++
	if r.before != nil {
		r.before()
	}
	if r.err != nil {
		return lxc.Pids{}, r.err
	}
	for file, value := range limitFiles {
		controller, _, _ := strings.Cut(file, ".")
		dir := filepath.Join(r.groups[controller], CgroupPrefix(r.engine.StateDir), req.Name)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, file), []byte(value), 0o600)); err != nil {
			return lxc.Pids{}, err
		}
	}
	pids, err := r.spawn()
	if err != nil {
		return lxc.Pids{}, err
	}
	return pids, writePids(req.PidFile, pids)
}

// spawn starts a monitor with an init. The monitor ends when its init has.
func (r *fakeRuntime) spawn() (lxc.Pids, error) {
	script := "sleep 3600 & echo $!; wait"
	if r.stubborn {
		script = "trap '' PWR; " + script
	}
	cmd := exec.Command("sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return lxc.Pids{}, err
	}
	if err := cmd.Start(); err != nil {
		return lxc.Pids{}, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return lxc.Pids{}, err
	}
	id, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return lxc.Pids{}, err
	}
	monitor, _, errM := linux.ReadProcess(cmd.Process.Pid)
	init, _, errI := linux.ReadProcess(id)
	fd, errO := linux.OpenProcess(init)
	if err := errors.Join(errM, errI, errO); err != nil {
		return lxc.Pids{}, err
	}
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		_ = cmd.Wait()
	}()
	r.t.Cleanup(func() {
		_ = fd.Signal(9)
		_ = cmd.Process.Kill()
		fd.Close()
		<-reaped
	})
	if r.dies {
		_ = fd.Signal(9)
		<-reaped
	}
	return lxc.Pids{Init: init, Monitor: monitor, BootID: r.engine.bootID}, nil
}

func (r *fakeRuntime) Exec(context.Context, lxc.ExecRequest) (*lxc.Session, error) {
	return nil, fmt.Errorf("no commands here")
}

func (r *fakeRuntime) RemoveLock(string) {}

// limit reads a control group file of a container.
func (f *fixture) limit(name, file string) string {
	f.t.Helper()
	controller, _, _ := strings.Cut(file, ".")
	text, err := f.Cgroups.Read(controller, f.payload(project, name), file)
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}
