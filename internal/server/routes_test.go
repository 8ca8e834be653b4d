package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
)

var root = auth.Identity{Protocol: auth.ProtocolUnix, Username: "root", Address: "@"}

// bare is a server without services, whose handlers are replaced by one that
// tells which route was taken.
func bare(t testing.TB) *Server {
	t.Helper()
	s, err := New(Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sample fills the parameters of a pattern.
func sample(pattern string) string {
	segs := strings.Split(pattern, "/")
	for i, seg := range segs {
		if strings.HasPrefix(seg, "{") {
			segs[i] = "x%2Fy"
		}
	}
	return strings.Join(segs, "/")
}

func TestRoutesAreReachable(t *testing.T) {
	s := bare(t)
	for _, rt := range s.routes() {
		n, values := s.table.find(sample(rt.pattern))
		if n == nil || n.pattern != rt.pattern {
			t.Errorf("%s %s: not found by %s", rt.method, rt.pattern, sample(rt.pattern))
			continue
		}
		found, _ := n.route(rt.method)
		if found == nil || found.pattern != rt.pattern {
			t.Errorf("%s %s: no route", rt.method, rt.pattern)
		}
		if len(values) != len(n.names) || slices.Contains(values, "x%2Fy") {
			t.Errorf("%s: parameters %v have values %v", rt.pattern, n.names, values)
		}
	}
}

// Every path of the table refuses the methods it does not have and names those
// it has.
func TestMethodNotAllowed(t *testing.T) {
	s := bare(t)
	has := map[string][]string{}
	for _, rt := range s.routes() {
		has[rt.pattern] = append(has[rt.pattern], rt.method)
	}
	for pattern, methods := range has {
		for _, m := range []string{http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodPost, http.MethodDelete, http.MethodTrace} {
			if slices.Contains(methods, m) {
				continue
			}
			rec := httptest.NewRecorder()
			s.ServeHTTP(rec, request(m, sample(pattern), root))
			if rec.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: got %d, want 405", m, pattern, rec.Code)
			}
			for _, want := range methods {
				if !strings.Contains(rec.Header().Get("Allow"), want) {
					t.Errorf("%s %s: Allow %q lacks %s", m, pattern, rec.Header().Get("Allow"), want)
				}
			}
		}
	}
}

// Who is nobody gets nothing but what anybody may see.
func TestAccess(t *testing.T) {
	s := bare(t)
	for _, rt := range s.routes() {
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, request(rt.method, sample(rt.pattern), auth.Identity{}))
		want := http.StatusForbidden
		if rt.access == anybody {
			want = http.StatusOK
		}
		if rec.Code != want {
			t.Errorf("%s %s without identity: got %d, want %d", rt.method, rt.pattern, rec.Code, want)
		}
		if strings.Contains(rec.Body.String(), "environment") || strings.Contains(rec.Body.String(), `"config"`) {
			t.Errorf("%s %s without identity shows too much: %s", rt.method, rt.pattern, rec.Body)
		}
	}
}

func request(method, target string, id auth.Identity) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader("{}"))
	return r.WithContext(auth.With(r.Context(), id))
}

func TestClashingRoutes(t *testing.T) {
	for _, pair := range [][2]route{
		{{get, "/a/{x}", nil, trusted}, {get, "/a/{x}", nil, trusted}},
		{{get, "/a/{x}", nil, trusted}, {put, "/a/{y}", nil, trusted}},
	} {
		var r router
		if err := r.add(pair[0]); err != nil {
			t.Fatal(err)
		}
		if r.add(pair[1]) == nil {
			t.Errorf("%s %s after %s was taken", pair[1].method, pair[1].pattern, pair[0].pattern)
		}
	}
}

func TestFind(t *testing.T) {
	s := bare(t)
	for _, c := range []struct {
		path, pattern string
		values        []string
	}{
		{"/1.0/images/aliases", "/1.0/images/aliases", nil},
		{"/1.0/images/aliases/export", "/1.0/images/aliases/{name...}", []string{"export"}},
		{"/1.0/images/aliases/a/b", "/1.0/images/aliases/{name...}", []string{"a/b"}},
		{"/1.0/images/aliases/a%2Fb%3F", "/1.0/images/aliases/{name...}", []string{"a/b?"}},
		{"/1.0/images/aliases//", "/1.0/images/aliases/{name...}", []string{"/"}},
		{"/1.0/images/abc", "/1.0/images/{fingerprint}", []string{"abc"}},
		{"/1.0/instances/a%2Fb/state", "/1.0/instances/{name}/state", []string{"a/b"}},
		{"/1.0/storage-pools/p/volumes/custom/v", "/1.0/storage-pools/{pool}/volumes/{type}/{volume}", []string{"p", "custom", "v"}},
		{"/1.0/instances//state", "", nil},
		{"/1.0/instances/%zz", "", nil},
		{"/1.0/instances/c1/state/x", "", nil},
		{"/1.0/images/aliases/", "", nil},
		{"/1.0/../1.0", "", nil},
		{"1.0", "", nil},
		{"", "", nil},
	} {
		n, values := s.table.find(c.path)
		got := ""
		if n != nil {
			got = n.pattern
		}
		if got != c.pattern || !slices.Equal(values, c.values) {
			t.Errorf("%q: got %q %q, want %q %q", c.path, got, values, c.pattern, c.values)
		}
	}
}

func FuzzFind(f *testing.F) {
	for _, seed := range []string{"/", "/1.0/images/aliases/a%2Fb", "/1.0/instances/x/files", "//", "/1.0/%", "/1.0/images/aliases/%2e%2e/%00"} {
		f.Add(seed)
	}
	s := bare(f)
	f.Fuzz(func(t *testing.T, path string) {
		n, values := s.table.find(path)
		if n == nil {
			return
		}
		if len(values) != len(n.names) || slices.Contains(values, "") {
			t.Fatalf("%q: %s has values %q for %q", path, n.pattern, values, n.names)
		}
		if !strings.HasPrefix(path, "/") {
			t.Fatalf("%q was found", path)
		}
	})
}

// A path that the server names leads back to the name it was made of.
func FuzzAliasPath(f *testing.F) {
	for _, seed := range []string{"debian/12", "a//b", "../x", "%2F", "a?b#c", "ü", "\x00", " "} {
		f.Add(seed)
	}
	s := bare(f)
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" {
			return
		}
		n, values := s.table.find(apiPath("images", "aliases", name))
		if n == nil || n.pattern != "/1.0/images/aliases/{name...}" || values[0] != name {
			t.Fatalf("%q: got %v %q", name, n, values)
		}
	})
}

func TestPanic(t *testing.T) {
	s := bare(t)
	var log bytes.Buffer
	s.Log = testLog(&log)
	if err := s.table.add(route{get, "/panic", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("ETag", "x")
		panic("oops")
	}, trusted}); err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, request(get, "/panic", root))
	if rec.Code != 500 || rec.Header().Get("ETag") != "" || !strings.Contains(rec.Body.String(), `"error_code":500`) {
		t.Errorf("got %d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	if strings.Contains(rec.Body.String(), "oops") {
		t.Errorf("the panic is shown to the client: %s", rec.Body)
	}
	if !strings.Contains(log.String(), "oops") || !strings.Contains(log.String(), "TestPanic") {
		t.Errorf("log lacks the panic or its stack: %s", log.String())
	}
}

// An error after the answer has begun must not look like a whole answer.
func TestErrorAfterAnswer(t *testing.T) {
	s := bare(t)
	for name, fn := range map[string]handlerFunc{
		"error": func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "half")
			return errors.New("no more")
		},
		"panic": func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(200)
			panic("oops")
		},
	} {
		if err := s.table.add(route{get, "/" + name, fn, trusted}); err != nil {
			t.Fatal(err)
		}
		got := func() (p any) {
			defer func() { p = recover() }()
			s.ServeHTTP(httptest.NewRecorder(), request(get, "/"+name, root))
			return nil
		}()
		if got != http.ErrAbortHandler {
			t.Errorf("%s: got %v, want the connection aborted", name, got)
		}
	}
}

func TestErrorStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{api.Errorf(api.NotFound, "x"), 404},
		{api.Errorf(api.Busy, "x"), 400},
		{errors.New("x"), 500},
		{context.Canceled, 499},
		{context.DeadlineExceeded, 408},
		{profileTaken.on(api.Errorf(api.Conflict, "x")), 500},
		{profileTaken.on(api.Errorf(api.Invalid, "x")), 400},
		{logGone.on(errors.New("x")), 500},
	} {
		rec := httptest.NewRecorder()
		writeError(rec, c.err)
		if rec.Code != c.want {
			t.Errorf("%v: got %d, want %d", c.err, rec.Code, c.want)
		}
	}
	if kind := api.KindOf(profileTaken.on(api.Errorf(api.Conflict, "x"))); kind != api.Conflict {
		t.Errorf("an override hides the kind: %s", kind)
	}
}

func TestBodyLimit(t *testing.T) {
	s := bare(t)
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/1.0/profiles", &repeat{n: maxBody + 1, b: ' '})
	s.ServeHTTP(rec, r.WithContext(auth.With(r.Context(), root)))
	if rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d %s, want 413", rec.Code, rec.Body)
	}
}
