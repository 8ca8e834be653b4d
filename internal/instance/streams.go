package instance

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/operation"
)

// streams are the websockets of an exec session. Each end of data is marked by
// an empty text message, as LXD's clients do and expect.
type streams struct {
	tty bool

	mu      sync.Mutex
	conns   map[string]*websocket.Conn
	waiting int           // streams that are not there yet; control does not count
	arrive  chan struct{} // closed when all but control are there
	closed  bool
	attach  func(name string, c *websocket.Conn) // set while a command runs: for those who come later
}

// chunk is how much is read from a command at once.
const chunk = 64 << 10

// maxRest bounds what is sent of an output after its command has ended: more is
// in no pipe or terminal, so that the rest is what a process in the background
// goes on writing.
const maxRest = 1 << 20

// maxControl is the size of the longest message on the control stream.
const maxControl = 64 << 10

func streamNames(tty bool) []string {
	if tty {
		return []string{"0", "control"}
	}
	return []string{"0", "1", "2", "control"}
}

func newStreams(tty bool) *streams {
	return &streams{tty: tty, conns: map[string]*websocket.Conn{}, waiting: len(streamNames(tty)) - 1, arrive: make(chan struct{})}
}

// connect takes over one websocket. A stream that is there already is refused.
func (s *streams) connect(_ context.Context, _ *operation.Op, name string, w http.ResponseWriter, r *http.Request) error {
	s.mu.Lock()
	taken := s.conns[name] != nil || s.closed
	s.mu.Unlock()
	if taken {
		return api.Errorf(api.Forbidden, "stream %s is connected already or has ended", name)
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil // the library has answered
	}
	conn.SetReadLimit(-1)
	if name == "control" {
		conn.SetReadLimit(maxControl) // its messages are read as a whole
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[name] != nil || s.closed {
		return conn.Close(websocket.StatusPolicyViolation, "stream is connected already")
	}
	s.conns[name] = conn
	if name != "control" {
		if s.waiting--; s.waiting == 0 {
			close(s.arrive)
		}
	}
	if s.attach != nil {
		s.attach(name, conn)
	}
	return nil
}

// await returns when all streams are connected. The control stream is not
// waited for: some clients never open it.
func (s *streams) await(ctx context.Context) error {
	select {
	case <-s.arrive:
		return nil
	case <-ctx.Done():
		return api.Errorf(api.Timeout, "the client did not connect all websockets within %s", connectTimeout)
	}
}

func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	conns := make([]*websocket.Conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		// The closing handshake waits for the peer, who may be gone.
		go c.Close(websocket.StatusNormalClosure, "")
	}
}

// relay moves data between the websockets and the command's streams. The
// function that it returns is called when the command has ended: it sends what
// is left and the ends of data, and closes the websockets.
func (s *streams) relay(ctx context.Context, session *lxc.Session) (finish func()) {
	r := &relay{streams: s, session: session, ended: make(chan struct{})}
	s.mu.Lock()
	s.attach = func(name string, c *websocket.Conn) { r.start(ctx, name, c) }
	for name, c := range s.conns {
		r.start(ctx, name, c)
	}
	s.mu.Unlock()
	return r.finish
}

type relay struct {
	*streams
	session *lxc.Session
	ended   chan struct{} // closed when the command has ended
	out     sync.WaitGroup
	input   sync.Once
}

func (r *relay) start(ctx context.Context, name string, c *websocket.Conn) {
	switch {
	case name == "control":
		go r.control(ctx, c)
	case r.tty:
		r.out.Go(func() { r.output(ctx, r.session.Files[0], c) })
		go r.typed(ctx, c)
	case name == "0":
		go r.typed(ctx, c)
	case name == "1":
		r.out.Go(func() { r.output(ctx, r.session.Files[1], c) })
	case name == "2":
		r.out.Go(func() { r.output(ctx, r.session.Files[2], c) })
	}
}

func (r *relay) finish() {
	close(r.ended)
	r.mu.Lock()
	r.closed = true // who comes now is too late, and must not begin to send
	r.mu.Unlock()
	for _, f := range r.session.Files {
		// A background process may keep an output open for ever: what it has
		// written by now is sent, the rest is nobody's.
		_ = f.SetReadDeadline(time.Unix(1, 0))
	}
	r.out.Wait()
	r.close()
}

// output sends what the command writes, until its end.
func (r *relay) output(ctx context.Context, from *os.File, to *websocket.Conn) {
	buf := make([]byte, chunk)
	for {
		n, err := from.Read(buf)
		if n > 0 && to.Write(ctx, websocket.MessageBinary, buf[:n]) != nil {
			r.lost()
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.rest(ctx, from, to, buf)
			break
		}
		if err != nil {
			break // end of file; EIO is a terminal's
		}
	}
	_ = to.Write(ctx, websocket.MessageText, nil)
}

// rest sends what is in a pipe or terminal right now.
func (r *relay) rest(ctx context.Context, from *os.File, to *websocket.Conn, buf []byte) {
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	for sent := 0; sent < maxRest; {
		var n int
		if err := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), buf) }); err != nil || n <= 0 {
			return
		}
		if err != nil || to.Write(ctx, websocket.MessageBinary, buf[:n]) != nil {
			return
		}
		sent += n
	}
}

// typed feeds the command's input.
func (r *relay) typed(ctx context.Context, from *websocket.Conn) {
	to := r.session.Files[0]
	for {
		kind, data, err := from.Reader(ctx)
		if err != nil {
			break
		}
		n, err := io.Copy(to, data)
		if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.EIO) {
			break
		}
		if kind == websocket.MessageText && n == 0 {
			break
		}
		if err != nil {
			_, _ = io.Copy(io.Discard, data) // nobody reads any more; the client may go on
		}
	}
	if !r.tty {
		r.endInput()
	}
}

func (r *relay) endInput() { r.input.Do(func() { _ = r.session.CloseInput() }) }

// control obeys the control stream. Its end before the command's is the
// client's end: nobody would ever see what the command still does.
func (r *relay) control(ctx context.Context, c *websocket.Conn) {
	for {
		_, data, err := c.Read(ctx)
		if err != nil {
			if status := websocket.CloseStatus(err); status != websocket.StatusNormalClosure && ctx.Err() == nil {
				r.lost()
			}
			return
		}
		var m api.InstanceExecControl
		if json.Unmarshal(data, &m) != nil {
			continue
		}
		switch m.Command {
		case "window-resize":
			width, errW := strconv.Atoi(m.Args["width"])
			height, errH := strconv.Atoi(m.Args["height"])
			if errW == nil && errH == nil && r.tty {
				_ = lxc.Resize(r.session.Files[0], width, height)
			}
		case "signal":
			if m.Signal > 0 && m.Signal < 65 {
				_ = r.session.Signal(unix.Signal(m.Signal))
			}
		}
	}
}

// lost ends a command whose client has vanished.
func (r *relay) lost() {
	select {
	case <-r.ended:
	default:
		if !r.tty {
			_ = r.session.Signal(unix.SIGKILL)
			return
		}
		// As when a line is cut: the terminal hangs up, which tells all that run
		// on it, the session's leader first.
		_ = r.session.Signal(unix.SIGHUP)
		r.endInput()
	}
}
