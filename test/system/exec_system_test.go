//go:build system

package system

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// connect gives a client of the daemon's API.
func (h *host) connect() *client.Client {
	h.t.Helper()
	c, err := client.Dial(h.ctx(), client.Options{Socket: filepath.Join(h.dir, "unix.socket")})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Close)
	return c
}

// ctx ends with patience.
func (h *host) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

func TestExecEnvironment(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1", "-c", "environment.FROM_CONFIG=yes")
	c := h.connect()
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	for name, x := range map[string]struct {
		post api.InstanceExecPost
		out  string
		code int
	}{
		"environment":     {api.InstanceExecPost{Command: sh(`echo "$A|$FROM_CONFIG|$HOME|$USER|$PATH"`), Environment: map[string]string{"A": "b c"}}, "b c|yes|/root|root|/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", 0},
		"user":            {api.InstanceExecPost{Command: sh("id -u; id -g"), User: 1000, Group: 1001}, "1000\n1001\n", 0},
		"directory":       {api.InstanceExecPost{Command: sh("pwd"), Cwd: "/tmp"}, "/tmp\n", 0},
		"exit code":       {api.InstanceExecPost{Command: sh("exit 77")}, "", 77},
		"signal":          {api.InstanceExecPost{Command: sh("kill -TERM $$")}, "", 128 + 15},
		"not there":       {api.InstanceExecPost{Command: []string{"/nosuch"}}, "", 127},
		"not a program":   {api.InstanceExecPost{Command: []string{"/etc/passwd"}}, "", 126},
		"empty input":     {api.InstanceExecPost{Command: sh("cat | wc -c")}, "0\n", 0},
		"terminal":        {api.InstanceExecPost{Command: sh("stty size; tty"), Interactive: true, Width: 97, Height: 31}, "31 97\r\n/dev/pts/", 0},
		"no terminal":     {api.InstanceExecPost{Command: sh("test -t 0 || test -t 1 || test -t 2 || echo none")}, "none\n", 0},
		"no descriptors":  {api.InstanceExecPost{Command: sh("ls /proc/self/fd | tr '\n' ' '")}, "0 1 2 3 ", 0}, // 3 is the directory that ls reads
		"opened again":    {api.InstanceExecPost{Command: sh("echo one >/dev/stdout; cat /dev/stdin; echo two >/dev/stderr"), User: 1000, Group: 1000}, "one\n", 0},
		"new privileges":  {api.InstanceExecPost{Command: sh("grep -c 'NoNewPrivs:.0' /proc/self/status")}, "1\n", 0},
		"confined as all": {api.InstanceExecPost{Command: sh("cmp /proc/1/uid_map /proc/self/uid_map && echo same")}, "same\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			code, err := c.Exec(h.ctx(), "c1", x.post, client.ExecIO{Stdout: &out, Stderr: &errOut})
			if code != x.code || !strings.HasPrefix(out.String(), x.out) {
				t.Errorf("code %d, want %d; output %q, want %q; %q, %v", code, x.code, out.String(), x.out, errOut.String(), err)
			}
		})
	}
	h.ok("delete", "-f", "c1")
}

// Every byte arrives, in both directions at once and on all streams.
func TestExecStreams(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1")
	in := make([]byte, 1<<20)
	for i := range in {
		in[i] = byte(i * 7 >> 3) // every value, NUL too
	}
	var out, errOut bytes.Buffer
	code, err := h.connect().Exec(h.ctx(), "c1", api.InstanceExecPost{Command: []string{"sh", "-c", "tee /dev/stderr; exit 5"}},
		client.ExecIO{Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &errOut})
	if code != 5 || err != nil || !bytes.Equal(out.Bytes(), in) || !bytes.Equal(errOut.Bytes(), in) {
		t.Errorf("code %d, %d and %d bytes of %d came back, %v", code, out.Len(), errOut.Len(), len(in), err)
	}
	h.ok("delete", "-f", "c1")
}

// expecter collects output and tells when something was in it.
type expecter struct {
	mu   sync.Mutex
	all  strings.Builder
	tell chan struct{}
}

func (e *expecter) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all.Write(p)
	select {
	case e.tell <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (e *expecter) expect(ctx context.Context, t *testing.T, word string) {
	t.Helper()
	for {
		e.mu.Lock()
		text := e.all.String()
		e.mu.Unlock()
		if strings.Contains(text, word) {
			return
		}
		select {
		case <-e.tell:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %q, got %q", word, text)
		}
	}
}

// A terminal changes its size, and signals reach the command.
func TestExecControl(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1")
	c := h.connect()
	for _, tty := range []bool{true, false} {
		in, stdin := io.Pipe()
		out := &expecter{tell: make(chan struct{}, 1)}
		control := make(chan api.InstanceExecControl)
		done := make(chan int, 1)
		script := `trap 'echo got usr1' USR1; trap 'echo got winch; stty size' WINCH; echo begun; read x; while [ "$x" != end ]; do read x; done; exit 9`
		go func() {
			post := api.InstanceExecPost{Command: []string{"sh", "-c", script}, Interactive: tty, Width: 80, Height: 24}
			code, err := c.Exec(h.ctx(), "c1", post, client.ExecIO{Stdin: in, Stdout: out, Control: control})
			if err != nil {
				t.Errorf("terminal %v: %v", tty, err)
			}
			done <- code
		}()
		out.expect(h.ctx(), t, "begun")
		control <- api.InstanceExecControl{Command: "signal", Signal: 10}
		out.expect(h.ctx(), t, "got usr1")
		if tty {
			control <- api.InstanceExecControl{Command: "window-resize", Args: map[string]string{"width": "133", "height": "44"}}
			out.expect(h.ctx(), t, "44 133")
		}
		if _, err := io.WriteString(stdin, "end\n"); err != nil {
			t.Fatal(err)
		}
		if code := <-done; code != 9 {
			t.Errorf("terminal %v: code %d, want 9", tty, code)
		}
		stdin.Close()
	}
	h.ok("delete", "-f", "c1")
}
