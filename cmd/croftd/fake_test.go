package main

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
	"github.com/croft-project/croft/internal/daemon"
)

// fakeAPI is the part of a daemon that init talks to.
type fakeAPI struct {
	t       *testing.T
	drivers []string

	mu       sync.Mutex
	config   map[string]any
	networks map[string]api.Network
	pools    map[string]api.StoragePool
	profiles map[string]api.Profile
	calls    []string          // what changed something: "POST /1.0/networks croftbr0"
	fail     map[string]string // "METHOD PATH" to the error that it answers
}

// newFake starts a daemon like one after its first start, and makes its
// directory the one that croftd uses.
func newFake(t *testing.T) *fakeAPI {
	t.Helper()
	f := &fakeAPI{
		t: t, drivers: []string{"dir", "overlay"}, config: map[string]any{}, fail: map[string]string{},
		networks: map[string]api.Network{"eth0": {Name: "eth0", Type: "physical"}},
		pools:    map[string]api.StoragePool{},
		profiles: map[string]api.Profile{"default": {Name: "default", ProfilePut: api.ProfilePut{Description: "Default profile"}}},
	}
	dir, err := os.MkdirTemp("", "croft") // short, for the socket
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, daemon.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: f}}
	srv.Start()
	t.Cleanup(func() { srv.Close(); os.RemoveAll(dir) })
	t.Setenv("CROFT_DIR", dir)
	return f
}

func (f *fakeAPI) client() *client.Client {
	f.t.Helper()
	c, err := dial(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if msg := f.fail[r.Method+" "+r.URL.Path]; msg != "" {
		refuse(w, http.StatusBadRequest, msg)
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/1.0"), "/")
	collection, name := "", ""
	if len(parts) > 1 {
		collection = parts[1]
	}
	if len(parts) > 2 {
		name = parts[2]
	}
	switch collection {
	case "":
		f.server(w, r)
	case "networks":
		serve(f, w, r, f.networks, name, func(p api.NetworksPost) (string, api.Network) {
			return p.Name, api.Network{NetworkPut: p.NetworkPut, Name: p.Name, Type: "bridge", Managed: true}
		}, func(n *api.Network) any { return &n.NetworkPut })
	case "storage-pools":
		serve(f, w, r, f.pools, name, func(p api.StoragePoolsPost) (string, api.StoragePool) {
			return p.Name, api.StoragePool{StoragePoolPut: p.StoragePoolPut, Name: p.Name, Driver: p.Driver}
		}, func(n *api.StoragePool) any { return &n.StoragePoolPut })
	case "profiles":
		serve(f, w, r, f.profiles, name, func(p api.ProfilesPost) (string, api.Profile) {
			return p.Name, api.Profile{ProfilePut: p.ProfilePut, Name: p.Name}
		}, func(n *api.Profile) any { return &n.ProfilePut })
	default:
		refuse(w, http.StatusNotFound, "not found")
	}
}

func (f *fakeAPI) server(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		var put api.ServerPut
		f.decode(r, &put)
		f.config = put.Config
		f.calls = append(f.calls, "PUT /1.0")
		answer(w, nil)
		return
	}
	srv := api.Server{ServerPut: api.ServerPut{Config: f.config}}
	srv.Environment.ServerPid = os.Getpid()
	for _, d := range f.drivers {
		srv.Environment.StorageSupportedDrivers = append(srv.Environment.StorageSupportedDrivers, api.ServerStorageDriverInfo{Name: d})
	}
	answer(w, srv)
}

// serve answers for one collection of objects.
func serve[Post, Object any](f *fakeAPI, w http.ResponseWriter, r *http.Request, all map[string]Object, name string, create func(Post) (string, Object), put func(*Object) any) {
	obj, known := all[name]
	switch {
	case r.Method == http.MethodPost:
		var p Post
		f.decode(r, &p)
		name, obj = create(p)
		all[name] = obj
	case name == "":
		list := []Object{}
		for _, n := range slices.Sorted(maps.Keys(all)) {
			list = append(list, all[n])
		}
		answer(w, list)
		return
	case !known:
		refuse(w, http.StatusNotFound, "not found")
		return
	case r.Method == http.MethodGet:
		answer(w, obj)
		return
	case r.Method == http.MethodPut:
		f.decode(r, put(&obj))
		all[name] = obj
	case r.Method == http.MethodDelete:
		delete(all, name)
	}
	f.calls = append(f.calls, r.Method+" "+r.URL.Path+" "+name)
	answer(w, nil)
}

func (f *fakeAPI) decode(r *http.Request, v any) {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		f.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
	}
}

func answer(w http.ResponseWriter, metadata any) {
	raw, _ := json.Marshal(metadata)
	_ = json.NewEncoder(w).Encode(api.Response{Type: api.TypeSync, Status: "Success", StatusCode: api.Success, Metadata: raw})
}

func refuse(w http.ResponseWriter, status int, msg string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Response{Type: api.TypeError, ErrorCode: status, Error: msg, Metadata: []byte("null")})
}
