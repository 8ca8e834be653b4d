package helper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/croft-project/croft/api"
)

// Runner starts helpers. The zero value starts the running binary again.
// A Runner is safe for concurrent use.
type Runner struct {
	// Exe is the binary to start; empty means /proc/self/exe. Tests name their
	// own binary, whose TestMain calls Main.
	Exe string
	// Env is added to the child's environment, which otherwise holds only a
	// fixed PATH and LANG=C.
	Env []string
}

// Path is the search path of every helper: root's, in the order Debian has it.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// stderrTail is how much of a child's last words an error carries, in bytes.
const stderrTail = 2048

// killDelay is how long the pipes of a killed helper may stay open in a
// grandchild before they are closed on it.
const killDelay = 5 * time.Second

// ErrDied is in the chain of the error of a helper that ended without a reply:
// it crashed, was killed from outside or ran into a resource limit.
var ErrDied = errors.New("ended without a reply")

// Run starts helper name with request (encoded as JSON) and files, waits, and
// returns the reply. Run does not close the files. confine may be nil: the
// child then has all the caller's rights.
//
// Cancelling ctx kills the helper, and every process it started if
// [Confine.PIDs] is set or they kept their process group; the error is then
// Canceled or Timeout. Other errors have the kind that the helper gave, or
// Internal with the end of its standard error when it died without a reply.
func (r *Runner) Run(ctx context.Context, name string, request any, files []*os.File, confine *Confine) (json.RawMessage, error) {
	raw, err := json.Marshal(request)
	if err != nil {
		return nil, api.Errorf(api.Internal, "helper %s: encode request: %w", name, err)
	}
	msg, err := json.Marshal(header{Files: len(files), Limits: confine.limits(), Request: raw})
	if err != nil {
		return nil, api.Errorf(api.Internal, "helper %s: encode request: %w", name, err)
	}
	child, err := r.start(ctx, name, files, confine)
	if err != nil {
		return nil, api.Errorf(kindOfStart(ctx), "helper %s: start: %w", name, err)
	}
	rep, err := child.exchange(append(msg, '\n'))
	if ctxErr := ctx.Err(); ctxErr != nil {
		return nil, api.Errorf(kindOfStart(ctx), "helper %s: %w", name, ctxErr)
	}
	if err != nil {
		return nil, api.Errorf(api.Internal, "helper %s: %w%s", name, err, child.lastWords())
	}
	if e := rep.Error; e != nil {
		return nil, &api.Error{Kind: e.Kind, Message: e.Message, Hint: e.Hint}
	}
	return rep.Reply, nil
}

// Call is [Runner.Run] with a typed reply.
func Call[Resp any](ctx context.Context, r *Runner, name string, request any, files []*os.File, confine *Confine) (Resp, error) {
	var resp Resp
	raw, err := r.Run(ctx, name, request, files, confine)
	if err != nil {
		return resp, err
	}
	if err := json.Unmarshal(raw, &resp); err != nil {
		return resp, api.Errorf(api.Internal, "helper %s: decode reply: %w", name, err)
	}
	return resp, nil
}

func kindOfStart(ctx context.Context) api.Kind {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return api.Timeout
	case ctx.Err() != nil:
		return api.Canceled
	}
	return api.Internal
}

type child struct {
	cmd     *exec.Cmd
	request *os.File // our write end of fd 3
	reply   *os.File // our read end of fd 4
	stderr  tail
}

func (r *Runner) start(ctx context.Context, name string, files []*os.File, confine *Confine) (*child, error) {
	exe := r.Exe
	if exe == "" {
		exe = "/proc/self/exe"
	}
	c := &child{cmd: exec.CommandContext(ctx, exe, Arg, name)}
	reqR, reqW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reqR.Close()
	repR, repW, err := os.Pipe()
	if err != nil {
		reqW.Close()
		return nil, err
	}
	defer repW.Close()
	c.request, c.reply = reqW, repR

	c.cmd.Env = append([]string{"PATH=" + Path, "LANG=C"}, r.Env...)
	c.cmd.Dir = "/"
	c.cmd.Stderr = &c.stderr
	c.cmd.ExtraFiles = append([]*os.File{reqR, repW}, files...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.WaitDelay = killDelay
	c.cmd.Cancel = func() error { return killGroup(c.cmd.Process) }

	if err := confine.start(c.cmd); err != nil {
		reqW.Close()
		repR.Close()
		return nil, err
	}
	return c, nil
}

// exchange sends the request, reads the reply and reaps the child.
func (c *child) exchange(msg []byte) (reply, error) {
	defer c.reply.Close()
	_, writeErr := c.request.Write(msg) // the child reads all of it before it works
	if writeErr != nil && !errors.Is(writeErr, syscall.EPIPE) {
		_ = killGroup(c.cmd.Process)
	}
	// Ends when the child exits: nothing it starts inherits the write end.
	var buf bytes.Buffer
	_, readErr := io.Copy(&buf, io.LimitReader(c.reply, maxMessage+1))
	c.request.Close()
	// The child is done or dead. Its group goes with it, before Wait frees its
	// number for another process.
	_ = killGroup(c.cmd.Process)
	waitErr := c.cmd.Wait()

	var rep reply
	switch {
	case buf.Len() > maxMessage:
		return rep, fmt.Errorf("reply longer than %d bytes", maxMessage)
	case buf.Len() > 0 && json.Unmarshal(buf.Bytes(), &rep) == nil && (rep.Error != nil || rep.Reply != nil):
		return rep, nil
	case waitErr != nil:
		return rep, fmt.Errorf("%w: %w", ErrDied, waitErr)
	case readErr != nil:
		return rep, fmt.Errorf("read reply: %w", readErr)
	}
	return rep, ErrDied
}

func (c *child) lastWords() string {
	s := strings.TrimSpace(c.stderr.String())
	if s == "" {
		return ""
	}
	return ": " + s
}

func killGroup(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// tail keeps the last bytes written to it. exec.Cmd writes from one goroutine
// that has ended when Wait returns.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - stderrTail; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }
