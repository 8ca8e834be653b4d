package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/event"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/store/bolt"
)

var testTime = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// world is a server with fake services around real operations and events.
type world struct {
	t      testing.TB
	server *Server
	client *http.Client
	socket string
	ops    *operation.Manager
	hub    *event.Hub
	ready  chan struct{}
	forced *bool // what Shutdown was called with
	*fakeEngine
	*fakeImages
	*fakeAliases
	*fakeInventory
}

// newWorld serves the API on a unix socket until the test ends.
func newWorld(t testing.TB, adapt ...func(*Deps)) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st, err := bolt.Open(ctx, bolt.Options{Path: filepath.Join(t.TempDir(), "db", "croft.db")})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := event.New(ctx, event.Options{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, hub: hub, ready: make(chan struct{}), socket: filepath.Join(t.TempDir(), "unix.socket")}
	w.ops = operation.New(operation.Deps{Events: hub, Now: func() time.Time { return testTime }, Linger: time.Minute})
	w.fakeEngine = newFakeEngine(w.ops, t.TempDir())
	w.fakeImages = &fakeImages{ops: w.ops, dir: t.TempDir()}
	w.fakeAliases = &fakeAliases{}
	w.fakeInventory = &fakeInventory{config: map[string]string{"user.a": "1"}}
	d := Deps{
		Instances: w.fakeEngine, Profiles: w.fakeEngine, Images: w.fakeImages, Aliases: w.fakeAliases,
		Pools: w.fakeInventory, Networks: w.fakeInventory, Config: w.fakeInventory,
		Operations: w.ops, Events: hub, Ready: w.ready,
		Environment: func(context.Context) (api.ServerEnvironment, error) {
			return api.ServerEnvironment{Server: "lxd", Driver: "lxc"}, nil
		},
		Shutdown: func(_ context.Context, force bool) error {
			w.forced = &force
			return nil
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, fn := range adapt {
		fn(&d)
	}
	if w.server, err = New(d); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := hub.Run(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, api.Canceled) {
			t.Errorf("hub: %v", err)
		}
	})
	wg.Go(func() {
		if err := w.server.Serve(ctx, l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.socket)
	}}
	w.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		wg.Wait()
		if err := w.ops.Shutdown(context.Background(), time.Second); err != nil {
			t.Errorf("operations: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("store: %v", err)
		}
	})
	return w
}

// do sends a request and reads the whole answer.
func (w *world) do(method, path string, header http.Header, body io.Reader) (*http.Response, []byte) {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://croft"+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, raw
}

func notFound(what, name string) error {
	return api.Errorf(api.NotFound, "%s %s not found", what, name)
}

func checkTag(ifMatch string) error {
	if ifMatch != "" && ifMatch != "7" {
		return api.Errorf(api.Precondition, "it has changed: If-Match is %q, its ETag is %q", ifMatch, "7")
	}
	return nil
}

// fakeEngine has the instances c1 and c2 and the profile default.
type fakeEngine struct {
	ops      *operation.Manager
	mu       sync.Mutex
	puts     map[string]api.InstancePut
	profiles map[string]api.ProfilePut
	written  FilePut // the last file that was put
	content  []byte
	logs     string // directory
}

func newFakeEngine(ops *operation.Manager, logs string) *fakeEngine {
	inst := func(role string) api.InstancePut {
		return api.InstancePut{Config: map[string]string{"user.role": role}, Profiles: []string{"default"}}
	}
	return &fakeEngine{
		ops:      ops,
		puts:     map[string]api.InstancePut{"c1": inst("web"), "c2": inst("db")},
		profiles: map[string]api.ProfilePut{"default": {Config: map[string]string{}, Devices: map[string]map[string]string{}}},
		logs:     logs,
	}
}

func (f *fakeEngine) start(description, name string) (*operation.Op, error) {
	return f.ops.Start(operation.Spec{
		Project: "default", Description: description, Owner: "unix:root",
		Resources: map[string][]string{"instances": {"/1.0/instances/" + name}},
		Run:       func(context.Context, *operation.Op) error { return nil },
	})
}

func (f *fakeEngine) show(name string) api.Instance {
	return api.Instance{
		InstancePut: f.puts[name], Name: name, Status: "Stopped", StatusCode: api.Stopped,
		Location: "none", Type: "container", Project: "default", CreatedAt: testTime,
	}
}

func (f *fakeEngine) names() []string {
	var out []string
	for n := range f.puts {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (f *fakeEngine) known(name string) error {
	if _, ok := f.puts[name]; !ok {
		return notFound("instance", name)
	}
	return nil
}

func (f *fakeEngine) List(context.Context, string) ([]api.Instance, error) {
	var out []api.Instance
	for _, n := range f.names() {
		out = append(out, f.show(n))
	}
	return out, nil
}

func (f *fakeEngine) ListFull(context.Context, string) ([]api.InstanceFull, error) {
	var out []api.InstanceFull
	for _, n := range f.names() {
		out = append(out, api.InstanceFull{Instance: f.show(n), State: &api.InstanceState{Status: "Stopped", StatusCode: api.Stopped}})
	}
	return out, nil
}

func (f *fakeEngine) Get(_ context.Context, _, name string) (api.Instance, string, error) {
	return f.show(name), "7", f.known(name)
}

func (f *fakeEngine) GetFull(_ context.Context, _, name string) (api.InstanceFull, string, error) {
	return api.InstanceFull{Instance: f.show(name), State: &api.InstanceState{Status: "Stopped"}}, "7", f.known(name)
}

func (f *fakeEngine) State(_ context.Context, _, name string) (api.InstanceState, error) {
	return api.InstanceState{Status: "Stopped", StatusCode: api.Stopped}, f.known(name)
}

func (f *fakeEngine) Create(_ context.Context, _ string, req api.InstancesPost) (*operation.Op, error) {
	if f.known(req.Name) == nil {
		return nil, api.Errorf(api.Conflict, "instance %s exists", req.Name)
	}
	return f.start("Creating instance", req.Name)
}

func (f *fakeEngine) Update(_ context.Context, _, name, ifMatch string, mutate func(*api.InstancePut) error) error {
	if err := f.known(name); err != nil {
		return err
	}
	if err := checkTag(ifMatch); err != nil {
		return err
	}
	put := f.puts[name]
	if err := mutate(&put); err != nil {
		return err
	}
	f.puts[name] = put
	return nil
}

func (f *fakeEngine) Replace(_ context.Context, _, name, ifMatch string, put api.InstancePut) (*operation.Op, error) {
	if err := f.known(name); err != nil {
		return nil, err
	}
	if err := checkTag(ifMatch); err != nil {
		return nil, err
	}
	f.puts[name] = put
	return f.start("Updating instance", name)
}

func (f *fakeEngine) Rename(_ context.Context, _, name string, req api.InstancePost) (*operation.Op, error) {
	if err := f.known(name); err != nil {
		return nil, err
	}
	return f.start("Renaming instance to "+req.Name, name)
}

func (f *fakeEngine) Delete(_ context.Context, _, name string) (*operation.Op, error) {
	if err := f.known(name); err != nil {
		return nil, err
	}
	return f.start("Deleting instance", name)
}

func (f *fakeEngine) SetState(_ context.Context, _, name string, req api.InstanceStatePut) (*operation.Op, error) {
	if err := f.known(name); err != nil {
		return nil, err
	}
	return f.start(req.Action, name)
}

func (f *fakeEngine) SetStateAll(_ context.Context, _ string, req api.InstanceStatePut) (*operation.Op, error) {
	return f.start(req.Action, "all")
}

// Exec gives a websocket operation that waits to be cancelled.
func (f *fakeEngine) Exec(_ context.Context, _, name string, req api.InstanceExecPost) (*operation.Op, error) {
	if err := f.known(name); err != nil {
		return nil, err
	}
	return f.ops.Start(operation.Spec{
		Project: "default", Class: api.ClassWebsocket, Description: "Executing command", Cancel: true, Owner: "unix:root",
		Secrets: map[string]string{"0": "sesame"}, Metadata: map[string]any{"command": req.Command},
		Run: func(ctx context.Context, _ *operation.Op) error {
			<-ctx.Done()
			return ctx.Err()
		},
		Connect: func(_ context.Context, _ *operation.Op, fd string, _ http.ResponseWriter, r *http.Request) error {
			return api.Errorf(api.Invalid, "stream %s: not a websocket", fd)
		},
	})
}

func (f *fakeEngine) GetFile(_ context.Context, _, name, path string) (*File, error) {
	if err := f.known(name); err != nil {
		return nil, err
	}
	base := File{UID: 1000, GID: 100, Mode: 0o640, Modified: testTime}
	switch path {
	case "/etc":
		base.Type, base.Mode, base.Entries = "directory", 0o755, []string{"hosts", "passwd"}
	case "/empty":
		base.Type = "directory"
	case "/link":
		base.Type, base.Mode, base.Target = "symlink", 0o777, "/etc/hosts"
	case "/etc/hosts":
		base.Type, base.Size, base.Content = "file", 6, io.NopCloser(strings.NewReader("hosts\n"))
	case "/proc/stat": // as the kernel's files: no size, but content
		base.Type, base.Content = "file", io.NopCloser(strings.NewReader("cpu 1 2 3\n"))
	case "/grows":
		base.Type, base.Size, base.Content = "file", 3, io.NopCloser(strings.NewReader("abcdef"))
	case "/shrinks":
		base.Type, base.Size, base.Content = "file", 10, io.NopCloser(strings.NewReader("abc"))
	default:
		return nil, notFound("file", path)
	}
	return &base, nil
}

func (f *fakeEngine) PutFile(_ context.Context, _, name, path string, put FilePut) error {
	if err := f.known(name); err != nil {
		return err
	}
	var raw []byte
	if put.Content != nil {
		var err error
		if raw, err = io.ReadAll(put.Content); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written, f.content = put, raw
	return nil
}

func (f *fakeEngine) DeleteFile(_ context.Context, _, name, path string) error {
	if path != "/etc/hosts" {
		return notFound("file", path)
	}
	return f.known(name)
}

func (f *fakeEngine) Logs(_ context.Context, _, name string) ([]string, error) {
	return []string{"lxc.conf", "lxc.log"}, f.known(name)
}

func (f *fakeEngine) OpenLog(_ context.Context, _, name, file string) (*os.File, error) {
	if err := f.known(name); err != nil {
		return nil, err
	}
	if file != "lxc.conf" {
		return nil, notFound("log file", file)
	}
	path := filepath.Join(f.logs, file)
	if err := os.WriteFile(path, []byte("lxc.uts.name = c1\n"), 0o600); err != nil {
		return nil, err
	}
	return os.Open(path)
}

func (f *fakeEngine) DeleteLog(_ context.Context, _, name, file string) error { return f.known(name) }

func (f *fakeEngine) Metadata(_ context.Context, _, name string) (api.ImageMetadata, string, error) {
	return api.ImageMetadata{Architecture: "x86_64"}, "7", f.known(name)
}

func (f *fakeEngine) profile(name string) api.Profile {
	return api.Profile{ProfilePut: f.profiles[name], Name: name, UsedBy: []string{}}
}

func (f *fakeEngine) ListProfiles(context.Context, string) ([]api.Profile, error) {
	out := []api.Profile{}
	for n := range f.profiles {
		out = append(out, f.profile(n))
	}
	slices.SortFunc(out, func(a, b api.Profile) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (f *fakeEngine) GetProfile(_ context.Context, _, name string) (api.Profile, string, error) {
	if _, ok := f.profiles[name]; !ok {
		return api.Profile{}, "", notFound("profile", name)
	}
	return f.profile(name), "7", nil
}

func (f *fakeEngine) CreateProfile(_ context.Context, _ string, req api.ProfilesPost) error {
	if _, ok := f.profiles[req.Name]; ok {
		return api.Errorf(api.Conflict, "profile %s exists", req.Name)
	}
	f.profiles[req.Name] = req.ProfilePut
	return nil
}

func (f *fakeEngine) UpdateProfile(_ context.Context, _, name, ifMatch string, mutate func(*api.ProfilePut) error) error {
	put, ok := f.profiles[name]
	if !ok {
		return notFound("profile", name)
	}
	if err := checkTag(ifMatch); err != nil {
		return err
	}
	if err := mutate(&put); err != nil {
		return err
	}
	f.profiles[name] = put
	return nil
}

func (f *fakeEngine) RenameProfile(_ context.Context, _, from, to string) error {
	if _, ok := f.profiles[to]; ok {
		return api.Errorf(api.Conflict, "profile %s exists", to)
	}
	f.profiles[to] = f.profiles[from]
	delete(f.profiles, from)
	return nil
}

func (f *fakeEngine) DeleteProfile(_ context.Context, _, name string) error {
	if name == "default" {
		return api.Errorf(api.Forbidden, "profile default cannot be deleted")
	}
	delete(f.profiles, name)
	return nil
}

// repeat is a reader of n times the same byte that holds nothing in memory.
type repeat struct {
	n     int64
	b     byte
	block []byte
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	if r.block == nil {
		r.block = bytes.Repeat([]byte{r.b}, 64<<10)
	}
	n := copy(p[:min(int64(len(p)), r.n)], r.block)
	r.n -= int64(n)
	return n, nil
}
