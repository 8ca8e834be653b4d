package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

// serve answers on a unix socket and gives a client that is connected to it.
func serve(t *testing.T, opts Options, h http.Handler) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "croft") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	opts.Socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", opts.Socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	srv.Start()
	t.Cleanup(srv.Close)
	c, err := Dial(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// reply writes an envelope.
func reply(w http.ResponseWriter, status int, env map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(env)
}

func syncReply(w http.ResponseWriter, meta any) {
	reply(w, 200, map[string]any{"type": "sync", "status": "Success", "status_code": 200, "metadata": meta})
}

func asyncReply(w http.ResponseWriter, op map[string]any) {
	reply(w, 202, map[string]any{
		"type": "async", "status": "Operation created", "status_code": 100,
		"operation": "/1.0/operations/" + op["id"].(string), "metadata": op,
	})
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   api.Error
	}{
		{"ours", 400, `{"type":"error","error":"in use","error_code":400,"kind":"in-use","hint":"detach it"}`,
			api.Error{Kind: api.InUse, Message: "in use", Hint: "detach it"}},
		{"LXD", 404, `{"type":"error","error":"Instance not found","error_code":404}`,
			api.Error{Kind: api.NotFound, Message: "Instance not found"}},
		{"not JSON", 503, `oops`, api.Error{Kind: api.Unavailable, Message: "server answered 503 Service Unavailable"}},
		{"error with status 200", 200, `{"type":"error","error":"odd","error_code":409}`,
			api.Error{Kind: api.Conflict, Message: "odd"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			_, _, err := c.Instance(t.Context(), "x")
			var got *api.Error
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want an *api.Error", err)
			}
			if got.Kind != tt.want.Kind || got.Message != tt.want.Message || got.Hint != tt.want.Hint {
				t.Errorf("got %q %q %q, want %q %q %q", got.Kind, got.Message, got.Hint, tt.want.Kind, tt.want.Message, tt.want.Hint)
			}
		})
	}
}

func TestDialErrors(t *testing.T) {
	dir, err := os.MkdirTemp("", "croft")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, socket := range []string{filepath.Join(dir, "none"), stale} {
		if _, err := Dial(t.Context(), Options{Socket: socket}); !errors.Is(err, api.Unavailable) || api.HintOf(err) == "" {
			t.Errorf("%s: got %v, want Unavailable with a hint", socket, err)
		}
	}
	if _, err := Dial(t.Context(), Options{}); !errors.Is(err, api.Invalid) {
		t.Errorf("no socket: got %v, want Invalid", err)
	}
}

func TestServerGone(t *testing.T) {
	c := serve(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	}))
	if err := c.DeleteProfile(t.Context(), "p"); !errors.Is(err, api.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
}

// TestRequests checks what goes over the wire for a few calls: method, path
// with query, If-Match, user agent and body.
func TestRequests(t *testing.T) {
	var got string
	c := serve(t, Options{Project: "p 1", UserAgent: "test"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = fmt.Sprintf("%s %s etag=%s ua=%s %s", r.Method, r.RequestURI, r.Header.Get("If-Match"), r.Header.Get("User-Agent"), body)
		w.Header().Set("ETag", "e2")
		syncReply(w, map[string]any{"name": "x"})
	}))
	ctx := t.Context()
	for _, tt := range []struct {
		want string
		call func() error
	}{
		{"GET /1.0/profiles/a%2Fb%3F?project=p+1 etag= ua=test ", func() error {
			p, etag, err := c.Profile(ctx, "a/b?")
			if p.Name != "x" || etag != "e2" {
				t.Errorf("got profile %q, etag %q", p.Name, etag)
			}
			return err
		}},
		{`PUT /1.0/networks/n?project=p+1 etag=e1 ua=test {"config":{"k":"v"},"description":""}`, func() error {
			return c.UpdateNetwork(ctx, "n", api.NetworkPut{Config: map[string]string{"k": "v"}}, "e1")
		}},
		{"GET /1.0/x?a=b&project=p+1 etag= ua=test ", func() error {
			_, err := c.Raw(ctx, "GET", "/1.0/x?a=b", nil)
			return err
		}},
		{"GET /1.0/x?project=other etag= ua=test ", func() error {
			_, err := c.Raw(ctx, "GET", "/1.0/x?project=other", nil)
			return err
		}},
		{`POST /1.0/x?project=p+1 etag= ua=test {}`, func() error {
			_, err := c.Raw(ctx, "POST", "/1.0/x", strings.NewReader("{}"))
			return err
		}},
	} {
		if err := tt.call(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, Options{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	_, _, err := c.Server(ctx)
	if !errors.Is(err, api.Canceled) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
}
