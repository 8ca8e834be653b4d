package lxc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

// Command is what an exec session runs.
type Command struct {
	Args   []string // looked up in the PATH of Env
	Env    []Variable
	Cwd    string // absolute, inside the container
	AnyCwd bool   // run in / when Cwd cannot be entered
	UID    uint32 // inside the container
	GID    uint32
}

// Stdio is one session's standard streams: the command's ends and the ends that
// the daemon uses. [NewPipes], [NewTerminal] and the like make it.
type Stdio struct {
	Inner [3]*os.File // the command's 0, 1 and 2
	Outer []*os.File  // the daemon's: input, output, error of pipes; or the terminal alone
	TTY   bool
}

// Close closes all ends that are still open.
func (s *Stdio) Close() {
	s.closeInner()
	for _, f := range s.Outer {
		f.Close()
	}
}

func (s *Stdio) closeInner() {
	for i, f := range s.Inner {
		if f != nil && (i == 0 || f != s.Inner[0]) {
			f.Close()
		}
	}
	s.Inner = [3]*os.File{}
}

// reopenOuter makes the daemon's ends non-blocking again: handing a file to a
// child process switches its open file description to blocking mode.
func (s *Stdio) reopenOuter() error {
	for i, f := range s.Outer {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return err
		}
		f.Close()
		s.Outer[i] = os.NewFile(uintptr(fd), f.Name())
	}
	return nil
}

// NewPipes makes three pipes, the daemon's ends of which are non-blocking. They
// belong to the given ids, as the host sees them: the command may open them again
// through /dev/stdout and the like.
func NewPipes(uid, gid int) (*Stdio, error) {
	s := &Stdio{Outer: make([]*os.File, 0, 3)}
	for i := range s.Inner {
		r, w, err := os.Pipe()
		if err != nil {
			s.Close()
			return nil, err
		}
		if i == 0 {
			s.Inner[i] = r
			s.Outer = append(s.Outer, w)
		} else {
			s.Inner[i] = w
			s.Outer = append(s.Outer, r)
		}
		if err := unix.Fchown(int(s.Inner[i].Fd()), uid, gid); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Session is a command that runs in a container, together with its keeper, the
// helper process that holds its streams and outlives the daemon. The fields are
// fixed; the methods may be used from several goroutines.
type Session struct {
	PID   int        // of the command as the host sees it
	Files []*os.File // the daemon's ends of the streams, see Stdio.Outer

	conn   *net.UnixConn
	proc   *linux.PidFD
	socket string
	once   sync.Once
}

// ExecRequest is what [Runtime.Exec] needs.
type ExecRequest struct {
	Name   string // as in Spec
	Conf   string // the configuration the container was started with
	Socket string // path at which later daemons reach the session; removed when it is done
	Command
	Stdio *Stdio
	// Await, if given, returns when the command is to run. Meanwhile the
	// container is being entered. After an error of Await the command never runs.
	Await func(ctx context.Context) error
}

// Exec runs a command in a running container. It takes over req.Stdio, also
// when it fails.
//
// Errors: NotFound if there is no such program, Invalid if it cannot be
// executed or the working directory is not there, Internal if the container
// cannot be entered.
func (r *Runtime) Exec(ctx context.Context, req ExecRequest) (*Session, error) {
	defer req.Stdio.closeInner()
	s, err := r.exec(ctx, req)
	if err != nil {
		req.Stdio.Close()
		_ = os.Remove(req.Socket)
	}
	return s, err
}

func (r *Runtime) exec(ctx context.Context, req ExecRequest) (*Session, error) {
	listener, err := listenPacket(req.Socket)
	if err != nil {
		return nil, fmt.Errorf("make the socket of an exec session: %w", err)
	}
	defer listener.Close()
	ours, theirs, err := packetPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(r.Exe, "forkexec", r.LXCPath, req.Name, req.Conf)
	cmd.Env = []string{"PATH=" + r.BinDir}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = req.Stdio.Inner[0], req.Stdio.Inner[1], req.Stdio.Inner[2]
	cmd.ExtraFiles = append([]*os.File{theirs, listener}, req.Stdio.Outer...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the exec helper: %w", err)
	}
	go cmd.Wait() // reaps the keeper whenever it leaves
	theirs.Close()
	if err := req.Stdio.reopenOuter(); err != nil {
		ours.Close()
		return nil, err
	}
	if _, err := ours.Write(encode(req.Command, req.Stdio.TTY)); err != nil {
		ours.Close()
		return nil, fmt.Errorf("send the command to the exec helper: %w", err)
	}
	if req.Await != nil {
		if err := req.Await(ctx); err != nil {
			ours.Close()
			return nil, err
		}
	}
	// A helper that has failed already has said why, which is read below.
	if _, err := ours.Write([]byte{'G'}); err != nil && !errors.Is(err, unix.EPIPE) {
		ours.Close()
		return nil, fmt.Errorf("start the command: %w", err)
	}
	pid, err := firstWord(ctx, ours, req.Command)
	if err != nil {
		ours.Close()
		return nil, err
	}
	return newSession(pid, req.Stdio.Outer, ours, req.Socket)
}

func newSession(pid int, files []*os.File, conn *net.UnixConn, socket string) (*Session, error) {
	s := &Session{PID: pid, Files: files, conn: conn, socket: socket}
	// The command is a child of its keeper, who does not reap it unseen: the
	// pid is still its own here, or the process is a zombie, or gone for good.
	if p, _, err := linux.ReadProcess(pid); err == nil {
		if s.proc, err = linux.OpenProcess(p); err != nil && !errors.Is(err, linux.ErrGone) {
			return nil, err
		}
	}
	return s, nil
}

// firstWord reads the keeper's first message: the pid or why there is none.
func firstWord(ctx context.Context, conn *net.UnixConn, c Command) (int, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, 1024)
	n, err := conn.Read(buf)
	if err != nil || n == 0 {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, api.Errorf(api.Internal, "the exec helper ended without a word")
	}
	word := string(buf[1:n])
	switch buf[0] {
	case 'P':
		return strconv.Atoi(word)
	case 'E':
		return 0, execError(word, c)
	}
	return 0, api.Errorf(api.Internal, "exec: %s", word)
}

func execError(word string, c Command) error {
	n, _ := strconv.Atoi(word)
	errno := unix.Errno(n)
	if errno == unix.ENOENT {
		return api.Errorf(api.NotFound, "command not found: %q, or the working directory %q does not exist", c.Args[0], c.Cwd)
	}
	return api.Errorf(api.Invalid, "command %q cannot be executed (working directory %q): %w", c.Args[0], c.Cwd, errno)
}

// encode writes a request as helper.c reads it.
func encode(c Command, tty bool) []byte {
	var b bytes.Buffer
	put := func(s string) { b.WriteString(s); b.WriteByte(0) }
	put(c.Cwd)
	put(strconv.FormatUint(uint64(c.UID), 10))
	put(strconv.FormatUint(uint64(c.GID), 10))
	flags := 0
	if tty {
		flags |= 1
	}
	if c.AnyCwd {
		flags |= 2
	}
	put(strconv.Itoa(flags))
	put(strconv.Itoa(len(c.Env)))
	for _, v := range c.Env {
		put(v.Name + "=" + v.Value)
	}
	put(strconv.Itoa(len(c.Args)))
	for _, a := range c.Args {
		put(a)
	}
	return b.Bytes()
}

// greetingTimeout is how long a keeper may take to answer. One whose command
// runs does so at once; one that was cut off while it entered a container that
// is frozen never does.
const greetingTimeout = 2 * time.Second

// Adopt takes over a session that an earlier daemon started.
//
// Errors: ErrGone (package linux) if its keeper is gone, in which case the socket
// is removed, or does not answer.
func Adopt(ctx context.Context, socket string) (*Session, error) {
	conn, err := dialPacket(socket)
	if err != nil {
		_ = os.Remove(socket)
		return nil, fmt.Errorf("session %s: %w", filepath.Base(socket), linux.ErrGone)
	}
	wait, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	stop := context.AfterFunc(wait, func() { conn.CloseRead() })
	defer stop()
	buf, control := make([]byte, 64), make([]byte, unix.CmsgSpace(3*4))
	n, cn, _, _, err := conn.ReadMsgUnix(buf, control)
	if err != nil || n < 2 || buf[0] != 'P' {
		conn.Close()
		return nil, fmt.Errorf("session %s: no greeting: %w", filepath.Base(socket), errors.Join(err, linux.ErrGone))
	}
	pid, err := strconv.Atoi(string(buf[1:n]))
	if err != nil {
		conn.Close()
		return nil, err
	}
	files, err := receiveFiles(control[:cn])
	if err != nil {
		conn.Close()
		return nil, err
	}
	return newSession(pid, files, conn, socket)
}

func receiveFiles(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var out []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			if err := unix.SetNonblock(fd, true); err != nil {
				unix.Close(fd)
				return nil, err
			}
			out = append(out, os.NewFile(uintptr(fd), "session"))
		}
	}
	return out, nil
}

// Wait returns the exit code of the command when it has ended: its own, or 128
// and the number of the signal that ended it.
func (s *Session) Wait(ctx context.Context) (int, error) {
	stop := context.AfterFunc(ctx, func() { s.conn.CloseRead() })
	defer stop()
	buf := make([]byte, 64)
	for {
		n, err := s.conn.Read(buf)
		if ctx.Err() != nil {
			return -1, ctx.Err()
		}
		if err != nil || n == 0 {
			return -1, api.Errorf(api.Internal, "the keeper of the exec session is gone")
		}
		if buf[0] != 'X' {
			continue
		}
		raw, err := strconv.Atoi(string(buf[1:n]))
		if err != nil {
			return -1, err
		}
		status := unix.WaitStatus(raw)
		if status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
}

// CloseInput ends the command's standard input, once what was written is read.
func (s *Session) CloseInput() error {
	err := s.Files[0].Close()
	_, werr := s.conn.Write([]byte{'C'})
	return errors.Join(err, werr)
}

// Signal sends a signal to the command; ErrGone if it has ended.
func (s *Session) Signal(sig unix.Signal) error {
	if s.proc == nil {
		return linux.ErrGone
	}
	return s.proc.Signal(sig)
}

// Done releases the session and lets its keeper leave. A command that still
// runs goes on without anybody who knows its end.
func (s *Session) Done() {
	s.once.Do(func() {
		_, _ = s.conn.Write([]byte{'D'})
		s.conn.Close()
		if s.proc != nil {
			s.proc.Close()
		}
		for _, f := range s.Files {
			f.Close()
		}
		_ = os.Remove(s.socket)
	})
}

// Leave lets go of the session without ending it: the keeper waits for the next
// daemon. For shutdown.
func (s *Session) Leave() {
	s.once.Do(func() {
		s.conn.Close()
		if s.proc != nil {
			s.proc.Close()
		}
		for _, f := range s.Files {
			f.Close()
		}
	})
}
