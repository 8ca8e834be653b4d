package instance

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/store"
)

func TestLifeOfAnInstance(t *testing.T) {
	f := newFixture(t)
	rev := f.rev()
	req := empty("c1")
	req.Source = api.InstanceSource{Type: "image", Alias: "img"}
	f.must(f.Create(t.Context(), project, req))
	i := f.get("c1")
	if i.Status != "Stopped" || i.Config["image.os"] != "test" || i.Config["volatile.base_image"] == "" || !strings.HasPrefix(i.Config["volatile.eth0.hwaddr"], "00:16:3e:") {
		t.Errorf("new: %+v", i)
	}
	if to, err := os.Readlink(f.path("containers", "c1")); err != nil || to != f.driver.dir("c1") {
		t.Errorf("link: %s, %v", to, err)
	}
	if _, err := os.Stat(filepath.Join(f.driver.dir("c1"), "templates", "hosts.tpl")); err != nil || f.images.used != 0 {
		t.Errorf("templates: %v; %d images in use", err, f.images.used)
	}
	f.start("c1")
	wantKind(t, end(f.SetState(t.Context(), project, "c1", f.state("start"))), api.BadState, "already running")
	if f.status("c1") != "Running" || f.networks.leases("c1") != 1 || f.local("c1").Power != model.PowerRunning {
		t.Errorf("started: %s, %d leases", f.status("c1"), f.networks.leases("c1"))
	}
	f.must(f.SetState(t.Context(), project, "c1", f.state("freeze")))
	if f.status("c1") != "Frozen" {
		t.Errorf("frozen: %s", f.status("c1"))
	}
	wantKind(t, end(f.SetState(t.Context(), project, "c1", f.state("stop"))), api.BadState, "cannot shut down")
	_, err := f.Exec(t.Context(), project, "c1", api.InstanceExecPost{Command: []string{"true"}})
	wantKind(t, err, api.BadState, "frozen")
	f.must(f.SetState(t.Context(), project, "c1", f.state("start"))) // resumes
	f.must(f.SetState(t.Context(), project, "c1", f.state("restart")))
	wantKind(t, end(f.Delete(t.Context(), project, "c1")), api.BadState, "running")
	wantKind(t, end(f.Rename(t.Context(), project, "c1", api.InstancePost{Name: "c2"})), api.BadState, "running")
	f.must(f.SetState(t.Context(), project, "c1", f.state("stop")))
	if f.status("c1") != "Stopped" || f.networks.leases("c1") != 0 || f.local("c1").Power != model.PowerStopped {
		t.Errorf("stopped: %s, %d leases", f.status("c1"), f.networks.leases("c1"))
	}
	wantKind(t, end(f.SetState(t.Context(), project, "c1", f.state("stop"))), api.BadState, "already stopped")
	f.must(f.Rename(t.Context(), project, "c1", api.InstancePost{Name: "c2"}))
	renamed := f.get("c2")
	if renamed.Config["volatile.eth0.hwaddr"] != i.Config["volatile.eth0.hwaddr"] || renamed.Config["volatile.apply_template"] != "create" && renamed.Config["volatile.apply_template"] != "rename" {
		t.Errorf("renamed: %v", renamed.Config)
	}
	if f.status("c1") != string(api.NotFound) {
		t.Error("the old name is still there")
	}
	f.must(f.Delete(t.Context(), project, "c2"))
	f.nothing("c1")
	f.nothing("c2")
	if len(f.ids.used) != 0 {
		t.Errorf("id ranges are still in use: %v", f.ids.used)
	}
	want := []string{
		"instance-created", "instance-started", "instance-paused", "instance-resumed", "instance-restarted", "instance-shutdown",
		"instance-renamed", "instance-deleted",
	}
	if d := cmp.Diff(want, f.events(rev)); d != "" {
		t.Error(d)
	}
}

// A refused request names what is wrong and leaves everything as it is.
func TestCreateRefuses(t *testing.T) {
	f := newFixture(t)
	f.create("taken")
	rev := f.rev()
	ids := len(f.ids.used)
	for name, c := range map[string]struct {
		change func(*api.InstancesPost)
		kind   api.Kind
		words  string
	}{
		"name":          {func(r *api.InstancesPost) { r.Name = "a_b" }, api.Invalid, `"a_b"`},
		"taken":         {func(r *api.InstancesPost) { r.Name = "taken" }, api.Conflict, "taken already exists"},
		"type":          {func(r *api.InstancesPost) { r.Type = "virtual-machine" }, api.Invalid, "allowed is container"},
		"size":          {func(r *api.InstancesPost) { r.InstanceType = "t2.micro" }, api.Invalid, "c2-m4"},
		"source":        {func(r *api.InstancesPost) { r.Source.Type = "x" }, api.Invalid, "allowed are image, none"},
		"copy":          {func(r *api.InstancesPost) { r.Source.Type = "copy" }, api.Unsupported, `"copy"`},
		"server":        {func(r *api.InstancesPost) { r.Source = api.InstanceSource{Type: "image", Server: "https://x"} }, api.Unsupported, "https://x"},
		"image":         {func(r *api.InstancesPost) { r.Source = api.InstanceSource{Type: "image", Alias: "no"} }, api.NotFound, `"no"`},
		"key":           {func(r *api.InstancesPost) { r.Config = map[string]string{"limits.x": "1"} }, api.Invalid, "limits.x"},
		"value":         {func(r *api.InstancesPost) { r.Config = map[string]string{"limits.memory": "lots"} }, api.Invalid, `"lots"`},
		"processors":    {func(r *api.InstancesPost) { r.Config = map[string]string{"limits.cpu": "5000-5001"} }, api.Invalid, "limits.cpu"},
		"raw.lxc":       {func(r *api.InstancesPost) { r.Config = map[string]string{"raw.lxc": "lxc.idmap = u 0 0 1"} }, api.Invalid, "lxc.idmap"},
		"raw.idmap":     {func(r *api.InstancesPost) { r.Config = map[string]string{"raw.idmap": "both 0 0"} }, api.Unsupported, "raw.idmap"},
		"idmap size":    {func(r *api.InstancesPost) { r.Config = map[string]string{"security.idmap.size": "10"} }, api.Unsupported, "65536"},
		"address":       {func(r *api.InstancesPost) { r.Config = map[string]string{"volatile.eth0.hwaddr": "x"} }, api.Invalid, "volatile.eth0.hwaddr"},
		"line break":    {func(r *api.InstancesPost) { r.Config = map[string]string{"volatile.x": "a\nb"} }, api.Invalid, "volatile.x"},
		"profile":       {func(r *api.InstancesPost) { r.Profiles = []string{"no"} }, api.NotFound, "profile no"},
		"profile twice": {func(r *api.InstancesPost) { r.Profiles = []string{"default", "default"} }, api.Invalid, "twice"},
		"no root":       {func(r *api.InstancesPost) { r.Profiles = []string{} }, api.Invalid, "root disk"},
		"two roots": {func(r *api.InstancesPost) {
			r.Devices = map[string]map[string]string{"r": {"type": "disk", "path": "/", "pool": "other"}}
		}, api.Invalid, "one root disk"},
		"pool": {func(r *api.InstancesPost) {
			r.Devices = map[string]map[string]string{"root": {"type": "disk", "path": "/", "pool": "no"}}
		}, api.NotFound, "storage pool no"},
		"network":      {func(r *api.InstancesPost) { r.Devices = map[string]map[string]string{"eth0": {"type": "nic", "network": "no"}} }, api.NotFound, "network no"},
		"device":       {func(r *api.InstancesPost) { r.Devices = map[string]map[string]string{"x": {"type": "tpm2"}} }, api.Invalid, "tpm2"},
		"two of a nic": {func(r *api.InstancesPost) { r.Devices = map[string]map[string]string{"a": {"type": "nic", "network": "br0", "name": "eth0"}} }, api.Invalid, "both be called eth0"},
		"stateful":     {func(r *api.InstancesPost) { r.Stateful = true }, api.Unsupported, "stateful"},
		"architecture": {func(r *api.InstancesPost) { r.Architecture = "s390x" }, api.Invalid, "s390x"},
	} {
		req := empty("new")
		c.change(&req)
		err := end(f.Create(t.Context(), project, req))
		if err == nil {
			t.Errorf("%s: not refused", name)
			continue
		}
		t.Run(name, func(t *testing.T) { wantKind(t, err, c.kind, c.words) })
	}
	if f.rev() != rev || len(f.ids.used) != ids {
		t.Errorf("something was changed: revision %d, was %d; %d id ranges, were %d", f.rev(), rev, len(f.ids.used), ids)
	}
	f.nothing("new")
}

func TestCreateUndoes(t *testing.T) {
	f := newFixture(t)
	boom := api.Errorf(api.NoSpace, "the disk is full")
	for method, c := range map[string]struct {
		prepare, repair func()
		kind            api.Kind
	}{
		"volume": {func() { f.driver.fail("Create", boom) }, func() { f.driver.fail("Create", nil) }, api.NoSpace},
		"link": {
			func() { _ = os.Mkdir(f.path("containers", "c1"), 0o700); _ = os.WriteFile(f.path("containers", "c1", "x"), nil, 0o600) },
			func() { _ = os.RemoveAll(f.path("containers", "c1")) }, api.Internal,
		},
	} {
		c.prepare()
		err := end(f.Create(t.Context(), project, empty("c1")))
		c.repair()
		if api.KindOf(err) != c.kind {
			t.Errorf("%s: %v", method, err)
		}
		f.reboot() // what could not be undone at once is undone now
		f.nothing("c1")
		if len(f.ids.used) != 0 {
			t.Errorf("%s: id ranges are still in use: %v", method, f.ids.used)
		}
	}
	f.create("c1")
}

// A volume without an instance is somebody's data, whatever happened to its
// record.
func TestStrangeVolumesStay(t *testing.T) {
	f := newFixture(t)
	if err := os.Mkdir(f.driver.dir("c1"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantKind(t, end(f.Create(t.Context(), project, empty("c1"))), api.Conflict)
	f.create("c2")
	wantKind(t, end(f.Rename(t.Context(), project, "c2", api.InstancePost{Name: "c1"})), api.Conflict)
	if f.status("c2") != "Stopped" || f.status("c1") != string(api.NotFound) {
		t.Errorf("c2 is %s, c1 is %s", f.status("c2"), f.status("c1"))
	}
	for _, name := range []string{"c1", "c2"} {
		if _, err := os.Stat(f.driver.dir(name)); err != nil {
			t.Error(err)
		}
	}
	f.start("c2")
}

func TestDeleteAgain(t *testing.T) {
	f := newFixture(t)
	f.create("c1")
	f.driver.fail("Delete", api.Errorf(api.Internal, "device busy"))
	if err := end(f.Delete(t.Context(), project, "c1")); err == nil {
		t.Fatal("deleted against the driver's will")
	}
	f.driver.fail("Delete", nil)
	f.must(f.Delete(t.Context(), project, "c1"))
	f.nothing("c1")
	wantKind(t, end(f.Delete(t.Context(), project, "c1")), api.NotFound)

	f.create("c1", "security.protection.delete", "true")
	wantKind(t, end(f.Delete(t.Context(), project, "c1")), api.Forbidden, "protected")
}

func TestFailedStarts(t *testing.T) {
	f := newFixture(t)
	f.create("c1")
	f.runtime.set(func(r *fakeRuntime) { r.err = api.Errorf(api.Internal, "liblxc says no") })
	wantKind(t, end(f.SetState(t.Context(), project, "c1", f.state("start"))), api.Internal, "liblxc says no", "start instance c1")
	f.runtime.set(func(r *fakeRuntime) { r.err, r.dies = nil, true })
	wantKind(t, end(f.SetState(t.Context(), project, "c1", f.state("start"))), api.Internal, "right after its start")
	if f.status("c1") != "Stopped" || f.networks.leases("c1") != 0 || f.local("c1").Power != model.PowerStopped {
		t.Errorf("%s, %d leases, %+v", f.status("c1"), f.networks.leases("c1"), f.local("c1"))
	}
	req := empty("once")
	req.Ephemeral = true
	f.must(f.Create(t.Context(), project, req))
	wantKind(t, end(f.SetState(t.Context(), project, "once", f.state("start"))), api.Internal)
	f.eventually("the end of an ephemeral instance", func() bool { return f.status("once") == string(api.NotFound) })
	f.runtime.set(func(r *fakeRuntime) { r.dies = false })
	f.start("c1")
}

// What is left of an earlier run keeps an instance from being started and
// deleted until it is ended.
func TestLeftovers(t *testing.T) {
	f := newFixture(t)
	f.create("c1")
	procs := filepath.Join(f.groups, "pids", f.payload(project, "c1"), "cgroup.procs")
	if err := os.MkdirAll(filepath.Dir(procs), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(procs, []byte("1\n"), 0o600); err != nil { // pid 1 is never killed
		t.Fatal(err)
	}
	wantKind(t, end(f.SetState(t.Context(), project, "c1", f.state("start"))), api.BadState, "earlier run")
	wantKind(t, end(f.Delete(t.Context(), project, "c1")), api.BadState, "earlier run")
	force := f.state("stop")
	force.Force = true
	f.must(f.SetState(t.Context(), project, "c1", force))
	if err := os.Remove(procs); err != nil {
		t.Fatal(err)
	}
	wantKind(t, end(f.SetState(t.Context(), project, "c1", force)), api.BadState, "already stopped")
}

func TestForceAndTimeouts(t *testing.T) {
	f := newFixture(t)
	f.runtime.set(func(r *fakeRuntime) { r.stubborn = true })
	f.create("c1")
	f.start("c1")
	rev := f.rev()
	stop := f.state("stop")
	stop.Timeout = 1
	wantKind(t, end(f.SetState(t.Context(), project, "c1", stop)), api.Timeout, "did not stop within 1 s")
	restart := f.state("restart")
	restart.Timeout = 1
	wantKind(t, end(f.SetState(t.Context(), project, "c1", restart)), api.Timeout)
	if l := f.local("c1"); f.status("c1") != "Running" || l.Power != model.PowerRunning || l.BootID != f.bootID {
		t.Errorf("after a stop that failed: %s, %+v", f.status("c1"), l)
	}
	// One that waits for ever gives way to force.
	waiting, err := f.SetState(t.Context(), project, "c1", f.state("stop"))
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("the lock", func() bool { h, held := f.Locks.Holder(lockKey(project, "c1")); return held && h.Operation == waiting.ID() })
	stop.Force = true
	f.must(f.SetState(t.Context(), project, "c1", stop))
	wantKind(t, end(waiting, nil), api.Canceled)
	if f.status("c1") != "Stopped" {
		t.Errorf("after force: %s", f.status("c1"))
	}
	if d := cmp.Diff([]string{"instance-stopped"}, f.events(rev)); d != "" {
		t.Error(d)
	}
}

// A stop of all can be cancelled too: it holds everybody's lock.
func TestStopAll(t *testing.T) {
	f := newFixture(t)
	f.create("easy")
	f.create("hard")
	f.start("easy")
	f.runtime.set(func(r *fakeRuntime) { r.stubborn = true })
	f.start("hard")
	op, err := f.SetStateAll(t.Context(), project, f.state("stop"))
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("the stop of the easy one", func() bool { return f.status("easy") == "Stopped" })
	if err := op.Cancel(); err != nil {
		t.Fatal(err)
	}
	wantKind(t, end(op, nil), api.Canceled)
	force := f.state("stop")
	force.Force = true
	f.must(f.SetStateAll(t.Context(), project, force))
	if f.status("hard") != "Stopped" {
		t.Error("not stopped by force")
	}
}

func TestEndByItself(t *testing.T) {
	f := newFixture(t)
	req := empty("once")
	req.Ephemeral = true
	f.must(f.Create(t.Context(), project, req))
	f.create("c1")
	for _, name := range []string{"once", "c1"} {
		f.start(name)
		rev := f.rev()
		l := f.liveOf(project, name)
		if err := l.init.Signal(9); err != nil {
			t.Fatal(err)
		}
		<-l.stopped
		if got := f.events(rev); len(got) == 0 || got[0] != "instance-stopped" {
			t.Errorf("%s: events %v", name, got)
		}
	}
	f.eventually("the end of an ephemeral instance", func() bool { return f.status("once") == string(api.NotFound) })
	f.eventually("the removal of its volume", func() bool { _, err := os.Stat(f.driver.dir("once")); return err != nil })
	if l := f.local("c1"); l.Power != model.PowerStopped || l.Volatile[lastPower] != string(model.PowerRunning) {
		t.Errorf("c1: %+v", l)
	}
}

// Reaping goes by identity: the name may be another instance's by then.
func TestReapOnlyTheRightOne(t *testing.T) {
	f := newFixture(t)
	req := empty("c1")
	req.Ephemeral = true
	f.must(f.Create(t.Context(), project, req))
	f.reapEphemeral(project, "c1", "another")
	if f.status("c1") != "Stopped" {
		t.Error("the wrong instance was removed")
	}
}

// A monitor that is killed leaves a container that only force can end.
func TestLostMonitor(t *testing.T) {
	f := newFixture(t)
	f.create("c1")
	f.start("c1")
	l := f.liveOf(project, "c1")
	if err := l.monitor.Signal(9); err != nil {
		t.Fatal(err)
	}
	f.eventually("the notice", func() bool { return f.status("c1") == "Error" })
	wantKind(t, end(f.SetState(t.Context(), project, "c1", f.state("stop"))), api.BadState, "force")
	_, err := f.Exec(t.Context(), project, "c1", api.InstanceExecPost{Command: []string{"true"}})
	wantKind(t, err, api.BadState, "lost its monitor")

	// A daemon that comes up finds it so; its init is in no group of the fixture.
	procs := filepath.Join(f.groups, "pids", f.payload(project, "c1"), "cgroup.procs")
	if err := os.WriteFile(procs, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.reboot()
	if f.status("c1") != "Error" {
		t.Errorf("after a restart of the daemon: %s", f.status("c1"))
	}
	if err := f.liveOf(project, "c1").init.Signal(9); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(procs); err != nil {
		t.Fatal(err)
	}
	f.eventually("the end", func() bool { return f.status("c1") == "Stopped" })
}

// Signals that come too late are no errors.
func TestKillAfterTheEnd(t *testing.T) {
	f := newFixture(t)
	f.create("c1")
	f.start("c1")
	l := f.liveOf(project, "c1")
	f.must(f.SetState(t.Context(), project, "c1", f.state("stop")))
	if err := f.kill(t.Context(), l); err != nil {
		t.Errorf("kill: %v", err)
	}
	if err := f.shutdown(t.Context(), l, 1); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if l.init.Signal(0) == nil {
		t.Error("the handle is not closed")
	}
}

// A cancelled start that has come through is on record.
func TestStartedIsRecorded(t *testing.T) {
	f := newFixture(t)
	f.create("c1")
	ctx, cancel := context.WithCancel(t.Context())
	f.runtime.set(func(r *fakeRuntime) { r.before = cancel })
	if err := f.Engine.start(ctx, project, "c1", "instance-started"); err != nil {
		t.Fatal(err)
	}
	if l := f.local("c1"); f.status("c1") != "Running" || l.Power != model.PowerRunning || l.BootID != f.bootID {
		t.Errorf("%s, %+v", f.status("c1"), l)
	}
}

// The mount of a stopped instance is one at a time and gone before a start.
func TestOpenRoots(t *testing.T) {
	f := newFixture(t)
	f.create("c1")
	dir, err := os.Open(f.driver.dir("c1"))
	if err != nil {
		t.Fatal(err)
	}
	r := &openRoot{dir: dir}
	r.timer = newStoppedTimer()
	f.mu.Lock()
	f.roots[model.InstanceKey(project, "c1")] = r
	f.mu.Unlock()
	l, err := f.load(t.Context(), project, "c1", false)
	if err != nil {
		t.Fatal(err)
	}
	// Its time is over, but it is there: another mount beside it would be wrong.
	if got, err := f.stoppedRoot(t.Context(), l); err != nil || got != dir {
		t.Errorf("got %v, %v", got, err)
	}
	release, err := f.Locks.Acquire(t.Context(), owner("", "x"), lockKey(project, "c1"))
	if err != nil {
		t.Fatal(err)
	}
	f.expireRoot(project, "c1", r) // a request is under way
	if _, err := dir.Stat(); err != nil {
		t.Errorf("closed under a request: %v", err)
	}
	release()
	f.runtime.set(func(rt *fakeRuntime) {
		rt.before = func() {
			if _, err := dir.Stat(); err == nil {
				t.Error("the root is still open while the instance starts")
			}
		}
	})
	f.start("c1")
	f.expireRoot(project, "c1", r) // late, and harmless
}

func TestNamesAreUnique(t *testing.T) {
	f := newFixture(t)
	f.create("c1")
	// In the middle of a rename the new name is taken.
	err := f.Store.Update(t.Context(), func(tx store.Tx) error {
		i, _, err := store.Edit[model.Instance](tx, model.InstanceKey(project, "c1"))
		if err != nil {
			return err
		}
		i.Phase, i.RenameTo = model.Renaming, "c2"
		return store.Put(tx, i.Key(), i)
	})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, end(f.Create(t.Context(), project, empty("c2"))), api.Conflict)
	f.must(f.Create(t.Context(), project, empty("")))
}

func TestBoundTo(t *testing.T) {
	f := newFixture(t)
	f.create("c1", "limits.cpu", "1")
	f.start("c1")
	if d := cmp.Diff([]int{0}, f.liveOf(project, "c1").cpus); d != "" {
		t.Error(d)
	}
	if err := f.Cgroups.Write("cpuset", f.payload(project, "c1"), "cpuset.cpus", "0-2,5"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{0, 1, 2, 5}, f.boundTo(f.payload(project, "c1"))); d != "" {
		t.Error(d)
	}
	if got := f.boundTo("nowhere"); got != nil {
		t.Errorf("nowhere: %v", got)
	}
}

func TestGone(t *testing.T) {
	for err, want := range map[error]bool{linux.ErrGone: true, os.ErrClosed: true, os.ErrPermission: false} {
		if gone(err) != want {
			t.Errorf("%v: want %v", err, want)
		}
	}
}
