package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/croft-project/croft/api"
)

// execServer is a server that runs a Go function as the command. The function
// gets the websockets as streams and returns the exit code.
type execServer struct {
	t           *testing.T
	interactive bool
	command     func(ctx context.Context, conns map[string]*websocket.Conn) int

	mu    sync.Mutex
	conns map[string]*websocket.Conn
	ready chan struct{}
	code  chan int
	fail  map[string]any // the operation's end, instead of success
}

func (s *execServer) handler() http.Handler {
	s.conns, s.ready, s.code = map[string]*websocket.Conn{}, make(chan struct{}), make(chan int, 1)
	fds := map[string]any{"0": "s0", "1": "s1", "2": "s2", "control": "sc"}
	if s.interactive {
		fds = map[string]any{"0": "s0", "control": "sc"}
	}
	meta := map[string]any{"metadata": map[string]any{"fds": fds}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /1.0/instances/x/exec", func(w http.ResponseWriter, r *http.Request) {
		var post api.InstanceExecPost
		if err := json.NewDecoder(r.Body).Decode(&post); err != nil || !post.WaitForWS {
			s.t.Errorf("bad exec request: %+v, %v", post, err)
		}
		asyncReply(w, opJSON(api.Running, meta))
	})
	mux.HandleFunc("GET /1.0/operations/op1/websocket", func(w http.ResponseWriter, r *http.Request) {
		s.attach(w, r, fds)
	})
	mux.HandleFunc("GET /1.0/operations/op1/wait", func(w http.ResponseWriter, _ *http.Request) {
		if s.fail != nil {
			syncReply(w, opJSON(api.Failure, s.fail))
			return
		}
		syncReply(w, opJSON(api.Success, map[string]any{"metadata": map[string]any{"return": <-s.code}}))
	})
	return mux
}

// attach keeps a websocket open until the command has ended.
func (s *execServer) attach(w http.ResponseWriter, r *http.Request, fds map[string]any) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	conn.SetReadLimit(-1)
	s.mu.Lock()
	for name, secret := range fds {
		if secret == r.URL.Query().Get("secret") {
			s.conns[name] = conn
		}
	}
	last := len(s.conns) == len(fds)
	s.mu.Unlock()
	if !last {
		return
	}
	ctx := context.WithoutCancel(r.Context())
	go func() {
		code := s.command(ctx, s.conns)
		for _, name := range []string{"1", "2"} {
			if c := s.conns[name]; c != nil {
				_ = c.Write(ctx, websocket.MessageText, nil)
			}
		}
		if s.interactive {
			_ = s.conns["0"].Write(ctx, websocket.MessageText, nil)
			_, _, _ = s.conns["0"].Read(ctx) // as LXD: the client must let go
		}
		s.code <- code
	}()
}

func TestExecStreams(t *testing.T) {
	const size = 1<<20 + 17
	in, errOut := make([]byte, size), make([]byte, size)
	_, _ = rand.Read(in)
	_, _ = rand.Read(errOut)
	s := &execServer{t: t, command: func(ctx context.Context, conns map[string]*websocket.Conn) int {
		var wg sync.WaitGroup
		wg.Go(func() { // cat
			for {
				kind, raw, err := conns["0"].Read(ctx)
				if err != nil || kind == websocket.MessageText {
					return
				}
				_ = conns["1"].Write(ctx, websocket.MessageBinary, raw)
			}
		})
		wg.Go(func() {
			for chunk := errOut; len(chunk) > 0; {
				n := min(len(chunk), 100_000)
				_ = conns["2"].Write(ctx, websocket.MessageBinary, chunk[:n])
				chunk = chunk[n:]
			}
		})
		wg.Wait()
		return 42
	}}
	c := serve(t, Options{}, s.handler())
	var out, stderr bytes.Buffer
	code, err := c.Exec(t.Context(), "x", api.InstanceExecPost{Command: []string{"cat"}},
		ExecIO{Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &stderr})
	if err != nil || code != 42 {
		t.Fatalf("got code %d, %v; want 42", code, err)
	}
	if !bytes.Equal(out.Bytes(), in) || !bytes.Equal(stderr.Bytes(), errOut) {
		t.Errorf("streams differ: %d and %d bytes back of %d", out.Len(), stderr.Len(), size)
	}
}

// TestExecOpenStdin checks that a command that ends does not wait for an input
// that stays open.
func TestExecOpenStdin(t *testing.T) {
	s := &execServer{t: t, command: func(context.Context, map[string]*websocket.Conn) int { return 3 }}
	c := serve(t, Options{}, s.handler())
	r, w := io.Pipe()
	defer w.Close()
	code, err := c.Exec(t.Context(), "x", api.InstanceExecPost{}, ExecIO{Stdin: r})
	if err != nil || code != 3 {
		t.Errorf("got %d, %v; want 3", code, err)
	}
}

func TestExecInteractive(t *testing.T) {
	s := &execServer{t: t, interactive: true, command: func(ctx context.Context, conns map[string]*websocket.Conn) int {
		_, msg, _ := conns["control"].Read(ctx)
		_ = conns["0"].Write(ctx, websocket.MessageBinary, msg)
		_, typed, _ := conns["0"].Read(ctx)
		_, end, _ := conns["0"].Read(ctx)
		_ = conns["0"].Write(ctx, websocket.MessageBinary, append(typed, end...))
		return 0
	}}
	c := serve(t, Options{}, s.handler())
	control := make(chan api.InstanceExecControl, 1)
	control <- api.InstanceExecControl{Command: "signal", Signal: 15}
	var out bytes.Buffer
	code, err := c.Exec(t.Context(), "x", api.InstanceExecPost{Interactive: true},
		ExecIO{Stdin: bytes.NewReader([]byte("hi")), Stdout: &out, Control: control})
	if err != nil || code != 0 {
		t.Fatalf("got %d, %v", code, err)
	}
	if want := `{"command":"signal","args":null,"signal":15}` + "hi\x04\x04"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestExecNotFound(t *testing.T) {
	s := &execServer{t: t, command: func(context.Context, map[string]*websocket.Conn) int { return 0 }}
	s.fail = map[string]any{"err": "command not found", "metadata": map[string]any{"return": 127}}
	c := serve(t, Options{}, s.handler())
	code, err := c.Exec(t.Context(), "x", api.InstanceExecPost{}, ExecIO{})
	if code != 127 || err == nil {
		t.Errorf("got %d, %v; want 127 and an error", code, err)
	}
}

// TestExecOutputError checks that an output that cannot be written ends its
// stream, so that the command is not drained for ever.
func TestExecOutputError(t *testing.T) {
	s := &execServer{t: t, command: func(ctx context.Context, conns map[string]*websocket.Conn) int {
		for conns["1"].Write(ctx, websocket.MessageBinary, make([]byte, 4096)) == nil {
		}
		return 141
	}}
	c := serve(t, Options{}, s.handler())
	code, err := c.Exec(t.Context(), "x", api.InstanceExecPost{}, ExecIO{Stdout: failingWriter{}})
	if code != 141 || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %d, %v; want 141 and the write error", code, err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// TestExecHandshakeFailure checks that the reason of the operation is given
// when the websockets cannot be opened.
func TestExecHandshakeFailure(t *testing.T) {
	mux := http.NewServeMux()
	fds := map[string]any{"fds": map[string]any{"0": "a", "1": "b", "2": "c", "control": "d"}}
	mux.HandleFunc("POST /1.0/instances/x/exec", func(w http.ResponseWriter, _ *http.Request) {
		asyncReply(w, opJSON(api.Running, map[string]any{"metadata": fds}))
	})
	mux.HandleFunc("GET /1.0/operations/op1/websocket", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 404, map[string]any{"type": "error", "error": "not found", "error_code": 404})
	})
	mux.HandleFunc("GET /1.0/operations/op1", func(w http.ResponseWriter, _ *http.Request) {
		syncReply(w, opJSON(api.Failure, map[string]any{"err": "instance stopped", "err_kind": "bad-state"}))
	})
	c := serve(t, Options{}, mux)
	_, err := c.Exec(t.Context(), "x", api.InstanceExecPost{}, ExecIO{})
	if !errors.Is(err, api.BadState) {
		t.Errorf("got %v, want BadState", err)
	}
}
