package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/croft-project/croft/api"
)

// chunk is the size of the pieces in which standard input travels.
const chunk = 32 << 10

// ExecIO is what a command's streams are tied to.
type ExecIO struct {
	Stdin  io.Reader // nil is an empty input
	Stdout io.Writer // nil discards; the only output of an interactive command
	Stderr io.Writer // nil discards

	// Control messages (signals, window sizes) are sent as they come, until
	// the command has ended. It may be nil.
	Control <-chan api.InstanceExecControl
}

// Exec runs a command in an instance and returns its exit code when it and its
// output have ended. The code of a command that could not be run (126, 127) or
// that a signal ended (128 and above) comes from the server; in the first case
// the error says why as well.
//
// A read of s.Stdin that blocks outlives the call, because a read cannot be
// interrupted; what it reads then is lost.
func (c *Client) Exec(ctx context.Context, name string, post api.InstanceExecPost, s ExecIO) (int, error) {
	post.WaitForWS = true
	op, err := c.start(ctx, request{method: http.MethodPost, path: path("instances", name, "exec"), json: post})
	if err != nil {
		return -1, err
	}
	sess := &execSession{c: c, op: op, io: s, interactive: post.Interactive}
	defer sess.close()
	if err := sess.connect(ctx); err != nil {
		return -1, sess.connectError(ctx, err)
	}
	outErr := sess.run(ctx)
	last, err := op.Wait(ctx)
	code := returnCode(last)
	switch {
	case err == nil:
		err = outErr
	case errors.Is(err, api.Unavailable):
		err = api.Errorf(api.Unavailable, "lost the server while the command ran, it may run on: %w", err)
	}
	return code, err
}

// returnCode is the exit code in the metadata of an exec operation, or -1.
func returnCode(op api.Operation) int {
	if v, ok := op.Metadata["return"].(float64); ok {
		return int(v)
	}
	return -1
}

// execSession holds the websockets of one command. Non-interactive commands
// have the streams 0, 1 and 2, interactive ones have 0 for both directions, and
// both have control.
type execSession struct {
	c           *Client
	op          *Operation
	io          ExecIO
	interactive bool

	mu    sync.Mutex // guards conns while they are being connected
	conns map[string]*websocket.Conn
}

func (s *execSession) connect(ctx context.Context) error {
	fds, _ := s.op.last.Metadata["fds"].(map[string]any)
	streams := []string{"0", "1", "2", "control"}
	if s.interactive {
		streams = []string{"0", "control"}
	}
	s.conns = map[string]*websocket.Conn{}
	g, ctx := errgroup.WithContext(ctx)
	for _, stream := range streams {
		secret, ok := fds[stream].(string)
		if !ok && stream == "control" {
			continue // very old servers have none for non-interactive commands
		}
		if !ok {
			return api.Errorf(api.Internal, "the server offers no stream %q for the command", stream)
		}
		g.Go(func() error {
			conn, err := s.c.websocket(ctx, path("operations", s.op.ID(), "websocket"), url.Values{"secret": {secret}})
			if err != nil {
				return err
			}
			s.mu.Lock()
			s.conns[stream] = conn
			s.mu.Unlock()
			return nil
		})
	}
	return g.Wait()
}

// connectError prefers the reason why the operation ended over the failed
// handshake that followed from it.
func (s *execSession) connectError(ctx context.Context, err error) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelLimit)
	defer stop()
	op, opErr := s.c.Operation(ctx, s.op.ID())
	if opErr != nil {
		return err
	}
	if failed := operationError(op); failed != nil {
		return failed
	}
	if op.MayCancel {
		_ = s.op.Cancel(ctx) // nobody will ever attach
	}
	return err
}

// run moves the streams and returns when the command's output has ended. The
// command may live on with its output closed, so control stays open until the
// operation has ended: LXD kills the command when control closes.
func (s *execSession) run(ctx context.Context) error {
	go s.sendStdin(ctx, s.conns["0"])
	if conn := s.conns["control"]; conn != nil {
		go discard(ctx, conn)
		go s.sendControl(ctx, conn)
	}
	if s.interactive {
		err := receive(ctx, s.conns["0"], s.io.Stdout)
		_ = s.conns["0"].CloseNow() // a server waits for this before it ends the operation
		return err
	}
	go discard(ctx, s.conns["0"])
	var g errgroup.Group
	g.Go(func() error { return receive(ctx, s.conns["1"], s.io.Stdout) })
	g.Go(func() error { return receive(ctx, s.conns["2"], s.io.Stderr) })
	return g.Wait()
}

// sendStdin copies standard input. Its end is an empty text message. A failed
// write means that the command no longer reads, which is not an error.
//
// A terminal has no end of input: LXD hangs it up, which loses the output of
// the command. So the end-of-file key is typed instead, twice after an
// unfinished line, which the first one only completes (termios(3), VEOF).
func (s *execSession) sendStdin(ctx context.Context, conn *websocket.Conn) {
	in := s.io.Stdin
	if in == nil {
		in = eof{}
	}
	buf := make([]byte, chunk)
	last := byte('\n')
	for {
		n, err := in.Read(buf)
		if n > 0 {
			last = buf[n-1]
			if conn.Write(ctx, websocket.MessageBinary, buf[:n]) != nil {
				return
			}
		}
		switch {
		case err == nil:
			continue
		case !s.interactive:
			_ = conn.Write(ctx, websocket.MessageText, nil)
		case last == '\n' || last == '\r':
			_ = conn.Write(ctx, websocket.MessageBinary, []byte{4})
		default:
			_ = conn.Write(ctx, websocket.MessageBinary, []byte{4, 4})
		}
		return
	}
}

func (s *execSession) sendControl(ctx context.Context, conn *websocket.Conn) {
	for {
		select {
		case <-ctx.Done():
			return
		case msg, ok := <-s.io.Control:
			if !ok {
				return
			}
			raw, err := json.Marshal(msg)
			if err != nil || conn.Write(ctx, websocket.MessageText, raw) != nil {
				return
			}
		}
	}
}

func (s *execSession) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.CloseNow()
	}
}

// receive copies one output stream to w until its end: an empty text message or
// the end of the connection. Whether a connection that just ended is a loss
// shows when the operation is asked for its result.
func receive(ctx context.Context, conn *websocket.Conn, w io.Writer) error {
	if w == nil {
		w = io.Discard
	}
	buf := make([]byte, chunk)
	for {
		kind, r, err := conn.Reader(ctx)
		if err != nil || kind == websocket.MessageText {
			return nil
		}
		if err := copyMessage(w, r, buf); err != nil {
			_ = conn.CloseNow() // the command sees a closed pipe
			return err
		}
	}
}

// copyMessage copies one message. A read error is left to the next read of the
// connection, so only errors of w count.
func copyMessage(w io.Writer, r io.Reader, buf []byte) error {
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) || err != nil {
			return nil
		}
	}
}

// discard reads a connection that carries nothing for us, so that pings are
// answered and its end is noticed.
func discard(ctx context.Context, conn *websocket.Conn) {
	for {
		if _, _, err := conn.Reader(ctx); err != nil {
			return
		}
	}
}

// eof is an empty input.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
