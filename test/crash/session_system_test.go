//go:build system

package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/croft-project/croft/api"
)

// A session with websockets, as clients make it, goes on under the next daemon:
// with the same secrets, streams and command.
func TestSessionSurvives(t *testing.T) {
	d := newDaemon(t)
	d.create(subject)
	d.setState(subject, "start")
	for _, tty := range []bool{false, true} {
		t.Run(fmt.Sprintf("tty=%v", tty), func(t *testing.T) {
			s := d.openSession(tty)
			s.say(t, "one")
			s.expect(t, "got one")
			d.kill()
			d.start()
			s.connect(t)
			s.say(t, "two")
			s.expect(t, "got two")
			d.kill()
			d.start()
			// Nobody connects this time; the command hears from elsewhere.
			d.exec(subject, 0, "touch", "/tmp/over")
			op, err := d.c.AttachOperation(d.ctx(), s.id)
			if err != nil {
				t.Fatal(err)
			}
			last, err := op.Wait(d.ctx())
			if code := fmt.Sprint(last.Metadata["return"]); err != nil || code != "9" {
				t.Errorf("the session ended with code %s, error %v; want 9", code, err)
			}
			d.exec(subject, 0, "rm", "/tmp/over")
		})
	}
}

// session is an exec session's websockets.
type session struct {
	d       *croftDaemon
	id      string
	tty     bool
	secrets map[string]string
	in      *websocket.Conn
	out     *bufio.Reader
}

const echo = `(while [ ! -e /tmp/over ]; do usleep 10000; done; kill -USR1 $$) & trap 'exit 9' USR1
while :; do read line && echo got $line || usleep 10000; done`

func (d *croftDaemon) openSession(tty bool) *session {
	d.t.Helper()
	body, err := json.Marshal(api.InstanceExecPost{Command: []string{"sh", "-c", echo}, WaitForWS: true, Interactive: tty})
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.c.Raw(d.ctx(), "POST", "/1.0/instances/"+subject+"/exec", strings.NewReader(string(body)))
	if err != nil {
		d.t.Fatal(err)
	}
	var op struct {
		ID       string
		Metadata struct{ FDs map[string]string }
	}
	if err := json.Unmarshal(resp.Metadata, &op); err != nil {
		d.t.Fatal(err)
	}
	s := &session{d: d, id: op.ID, tty: tty, secrets: op.Metadata.FDs}
	s.connect(d.t)
	return s
}

// connect opens all websockets of the session.
func (s *session) connect(t *testing.T) {
	t.Helper()
	ctx := s.d.ctx()
	conns := map[string]*websocket.Conn{}
	for name, secret := range s.secrets {
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.d.dir, "unix.socket"))
		}}
		conn, _, err := websocket.Dial(ctx, "http://croft/1.0/operations/"+s.id+"/websocket?secret="+secret, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
		if err != nil {
			t.Fatalf("connect stream %s: %v\n%s", name, err, s.d.logTail())
		}
		t.Cleanup(func() { conn.CloseNow() })
		conns[name] = conn
	}
	out := conns["1"]
	if s.tty {
		out = conns["0"]
	}
	s.in, s.out = conns["0"], bufio.NewReader(websocket.NetConn(ctx, out, websocket.MessageBinary))
}

func (s *session) say(t *testing.T, line string) {
	t.Helper()
	if err := s.in.Write(s.d.ctx(), websocket.MessageBinary, []byte(line+"\n")); err != nil {
		t.Fatal(err)
	}
}

// expect reads lines until the given one has come.
func (s *session) expect(t *testing.T, want string) {
	t.Helper()
	for {
		line, err := s.out.ReadString('\n')
		if strings.TrimSpace(line) == want {
			return
		}
		if err != nil {
			t.Fatalf("waiting for %q: %v", want, errors.Join(err, errors.New(s.d.logTail())))
		}
	}
}

// What runs in a container handles signals as if it had been started at a boot,
// whatever the daemon ignores.
func TestSignalsAreDefault(t *testing.T) {
	d := newDaemon(t)
	d.create(subject)
	d.setState(subject, "start")
	for _, pid := range []string{"1", "self"} {
		d.exec(subject, 0, "grep", "-q", "^SigIgn:.0000000000000000$", "/proc/"+pid+"/status")
		d.exec(subject, 0, "grep", "-q", "^SigBlk:.0000000000000000$", "/proc/"+pid+"/status")
	}
}
