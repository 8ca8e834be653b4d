package daemon

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/server"
	"github.com/croft-project/croft/internal/store"
	"github.com/croft-project/croft/internal/store/bolt"
)

// fakeEngine has no instances and notes what it is asked for.
type fakeEngine struct {
	server.Instances
	server.Profiles

	mu      sync.Mutex
	calls   []string
	restore chan struct{} // Restore waits until it is closed
	recover error
}

func (e *fakeEngine) note(call string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, call)
}

func (e *fakeEngine) Recover(context.Context) error { e.note("recover"); return e.recover }
func (e *fakeEngine) Shutdown(context.Context) error {
	e.note("shutdown")
	return nil
}
func (e *fakeEngine) LeaveSessions() {}

func (e *fakeEngine) Close() { e.note("close") }
func (e *fakeEngine) Restore(ctx context.Context) error {
	e.note("restore")
	select {
	case <-e.restore:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *fakeEngine) made(EngineDeps) (Engine, error) { return e, nil }

// newFake gives an engine whose Restore returns at once.
func newFake() *fakeEngine {
	e := &fakeEngine{restore: make(chan struct{})}
	close(e.restore)
	return e
}

// shortDir is a directory whose path leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "croft")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

type running struct {
	*Daemon
	dir    string
	cancel context.CancelFunc
	done   chan error
}

// start opens and runs a daemon; the test's end stops it.
func start(t *testing.T, o Options) *running {
	t.Helper()
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Daemon: d, dir: o.StateDir, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- errors.Join(d.Run(ctx), d.Close()) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err := r.wait(t); err != nil {
		t.Errorf("daemon ended with %v", err)
	}
}

// wait gives how the daemon ended; nil when that has been asked before.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err, ok := <-r.done:
		if ok {
			close(r.done)
		}
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the daemon does not end")
		return nil
	}
}

func (r *running) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Options{Socket: filepath.Join(r.dir, SocketName)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// awaitSocket waits until the socket is there, which it is before Run serves.
func (r *running) awaitReady(t *testing.T) {
	t.Helper()
	select {
	case <-r.Ready():
	case err := <-r.done:
		t.Fatalf("the daemon ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the daemon is not ready")
	}
}

func TestLifeOfADaemon(t *testing.T) {
	e := newFake()
	r := start(t, Options{StateDir: shortDir(t), NewEngine: e.made})
	r.awaitReady(t)
	srv, _, err := r.client(t).Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if env := srv.Environment; env.ServerPid != os.Getpid() || env.Driver != "lxc" || env.CertificateFingerprint == "" {
		t.Errorf("environment: got %+v", env)
	}
	r.stop(t)
	if _, err := os.Lstat(filepath.Join(r.dir, SocketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if want := []string{"recover", "restore", "close"}; !equal(e.calls, want) {
		t.Errorf("engine was asked for %v, want %v: a daemon that ends leaves instances alone", e.calls, want)
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestShutdownStopsInstances(t *testing.T) {
	e := newFake()
	r := start(t, Options{StateDir: shortDir(t), NewEngine: e.made})
	r.awaitReady(t)
	if _, err := r.client(t).Raw(t.Context(), http.MethodPut, "/internal/shutdown", nil); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
	if want := []string{"recover", "restore", "shutdown", "close"}; !equal(e.calls, want) {
		t.Errorf("engine was asked for %v, want %v", e.calls, want)
	}
}

func TestReadyAfterRestore(t *testing.T) {
	e := &fakeEngine{restore: make(chan struct{})}
	r := start(t, Options{StateDir: shortDir(t), NewEngine: e.made})
	var c *client.Client
	for c == nil { // the API is up long before
		got, err := client.Dial(t.Context(), client.Options{Socket: filepath.Join(r.dir, SocketName)})
		if err == nil {
			c = got
		}
	}
	defer c.Close()
	if _, _, err := c.Server(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Ready():
		t.Error("ready while instances are being started")
	default:
	}
	close(e.restore)
	if _, err := c.Raw(t.Context(), http.MethodGet, "/internal/ready", nil); err != nil {
		t.Error(err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	e := newFake()
	r := start(t, Options{StateDir: shortDir(t), NewEngine: e.made})
	r.awaitReady(t)
	if _, err := Open(t.Context(), Options{StateDir: r.dir, NewEngine: newFake().made}); !errors.Is(err, api.Unavailable) {
		t.Errorf("second daemon: got %v, want kind %s", err, api.Unavailable)
	}
	if _, _, err := r.client(t).Server(t.Context()); err != nil {
		t.Errorf("the first daemon was disturbed: %v", err)
	}
}

func TestFailedRecoveryLeavesNoSocket(t *testing.T) {
	e := newFake()
	e.recover = errors.New("no")
	dir := shortDir(t)
	d, err := Open(t.Context(), Options{StateDir: dir, NewEngine: e.made})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); err == nil {
		t.Error("Run hides the failure")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestInheritedSocketStays(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, SocketName)
	made, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := made.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	made.(*net.UnixListener).SetUnlinkOnClose(false)
	made.Close()
	inherited, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	e := newFake()
	r := start(t, Options{StateDir: dir, NewEngine: e.made, Inherited: inherited})
	r.awaitReady(t)
	if _, _, err := r.client(t).Server(t.Context()); err != nil {
		t.Error(err)
	}
	r.stop(t)
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the service manager's socket is gone: %v", err)
	}
}

func TestRefusesLXD(t *testing.T) {
	for _, name := range signsOfLXD {
		dir := shortDir(t)
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Options{StateDir: dir, NewEngine: newFake().made}); !errors.Is(err, api.Conflict) {
			t.Errorf("directory with %s: got %v, want kind %s", name, err, api.Conflict)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("directory with %s: was changed: %v, %v", name, entries, err)
		}
	}
}

func TestStateDirModes(t *testing.T) {
	umask := unix.Umask(0)
	defer unix.Umask(umask)
	dir := filepath.Join(shortDir(t), "state")
	e := newFake()
	r := start(t, Options{StateDir: dir, NewEngine: e.made})
	r.awaitReady(t)
	want := map[string]fs.FileMode{
		".": 0o711 | fs.ModeDir, "images": 0o700 | fs.ModeDir, "logs": 0o700 | fs.ModeDir, "containers": 0o711 | fs.ModeDir,
		"storage-pools": 0o711 | fs.ModeDir, "run": 0o700 | fs.ModeDir, dbDir: 0o700 | fs.ModeDir,
		filepath.Join(dbDir, dbFile): 0o600, "server.key": 0o600, SocketName: 0o600 | fs.ModeSocket,
	}
	for name, mode := range want {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if st.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, st.Mode(), mode)
		}
	}
}

func TestListenUnix(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, SocketName)
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	l, err := listenUnix(path, os.Getgid())
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	defer l.Close()
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("socket with a group: %v, %v", st.Mode(), err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(file, -1); !errors.Is(err, api.Conflict) {
		t.Errorf("file in the way: got %v, want kind %s", err, api.Conflict)
	}
	if data, _ := os.ReadFile(file); !bytes.Equal(data, []byte("precious")) {
		t.Error("the file in the way was changed")
	}
	long := filepath.Join(dir, string(bytes.Repeat([]byte("x"), 100)), SocketName)
	if _, err := listenUnix(long, -1); !errors.Is(err, api.Invalid) {
		t.Errorf("long path: got %v, want kind %s", err, api.Invalid)
	}
}

func TestUnknownGroup(t *testing.T) {
	if _, err := groupID("no-such-group-here"); !errors.Is(err, api.Invalid) {
		t.Errorf("got %v, want kind %s", err, api.Invalid)
	}
}

func openDB(t *testing.T, dir string) *bolt.DB {
	t.Helper()
	db, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(dir, dbDir, dbFile)})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestFirstProfiles(t *testing.T) {
	db := openDB(t, t.TempDir())
	defer db.Close()
	docker := model.ProfileKey(model.DefaultProject, "docker")
	exists := func() (ok bool) {
		err := db.View(t.Context(), func(tx store.Tx) (err error) {
			ok, err = store.Exists(tx, docker)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if err := addProfiles(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if !exists() {
		t.Error("a new daemon has no docker profile")
	}
	if err := db.Update(t.Context(), func(tx store.Tx) error { return store.Delete(tx, docker) }); err != nil {
		t.Fatal(err)
	}
	if err := addProfiles(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if exists() {
		t.Error("a deleted profile has come back")
	}
}

func TestNeedsStart(t *testing.T) {
	type instance struct {
		config  map[string]string
		profile map[string]string
		power   model.Power
	}
	on, off := map[string]string{"boot.autostart": "true"}, map[string]string{"boot.autostart": "false"}
	for name, c := range map[string]struct {
		inst *instance
		want bool
	}{
		"no instance":             {nil, false},
		"stopped":                 {&instance{power: model.PowerStopped}, false},
		"never started":           {&instance{}, false},
		"ran before":              {&instance{power: model.PowerRunning}, true},
		"ran before, to stay off": {&instance{config: off, power: model.PowerRunning}, false},
		"to start":                {&instance{config: on}, true},
		"to start by profile":     {&instance{profile: on}, true},
		"own key wins":            {&instance{config: off, profile: on}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if got, err := NeedsStart(t.Context(), dir); got || err != nil {
				t.Errorf("no database: got %v, %v", got, err)
			}
			db := openDB(t, dir)
			err := db.Update(t.Context(), func(tx store.Tx) error {
				if c.inst == nil {
					return nil
				}
				i := &model.Instance{Project: "default", Name: "c1", InstancePut: api.InstancePut{Config: c.inst.config, Profiles: []string{"p"}}}
				p := &model.Profile{Project: "default", Name: "p", ProfilePut: api.ProfilePut{Config: c.inst.profile}}
				err := errors.Join(store.Put(tx, i.Key(), i), store.Put(tx, p.Key(), p))
				if c.inst.power != "" {
					err = errors.Join(err, store.Put(tx, model.LocalKey("default", "c1"), &model.Local{Power: c.inst.power}))
				}
				return err
			})
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			if got, err := NeedsStart(t.Context(), dir); got != c.want || err != nil {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}
