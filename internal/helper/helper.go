package helper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/croft-project/croft/api"
)

// Arg is the first argument that makes a program a helper.
const Arg = "helper"

// The descriptors of the protocol in the child.
const (
	fdRequest = 3
	fdReply   = 4
	fdFirst   = 5
)

// maxMessage bounds a request and a reply, in bytes.
const maxMessage = 64 << 20

// Func is the child's side of a helper. The context is cancelled by SIGTERM.
// The files are those that the parent passed, in its order; the function may
// close them. What it returns is sent as JSON; nil sends null.
type Func func(ctx context.Context, request json.RawMessage, files []*os.File) (any, error)

// Handle makes a Func of a function with typed request and reply.
func Handle[Req, Resp any](fn func(ctx context.Context, request Req, files []*os.File) (Resp, error)) Func {
	return func(ctx context.Context, raw json.RawMessage, files []*os.File) (any, error) {
		var req Req
		if err := json.Unmarshal(raw, &req); err != nil {
			return nil, api.Errorf(api.Internal, "helper request: %w", err)
		}
		return fn(ctx, req, files)
	}
}

// Main runs the helper that args (normally os.Args) name, if they name one. It
// reports whether they did, and the exit status: 0 when a reply or an error was
// delivered. The caller exits with that status at once.
func Main(args []string, funcs map[string]Func) (code int, isHelper bool) {
	if len(args) < 2 || args[1] != Arg {
		return 0, false
	}
	if len(args) < 3 {
		fmt.Fprintln(os.Stderr, "helper: no name given")
		return 2, true
	}
	if err := serve(args[2], funcs); err != nil {
		fmt.Fprintf(os.Stderr, "helper %s: %v\n", args[2], err)
		return 1, true
	}
	return 0, true
}

// header precedes every request.
type header struct {
	Files   int             `json:"files"`
	Limits  map[int]uint64  `json:"limits,omitempty"` // by unix.RLIMIT_…
	Request json.RawMessage `json:"request"`
}

// wireError is an api.Error on fd 4.
type wireError struct {
	Kind    api.Kind `json:"kind"`
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`
}

type reply struct {
	Reply json.RawMessage `json:"reply,omitempty"`
	Error *wireError      `json:"error,omitempty"`
}

func serve(name string, funcs map[string]Func) error {
	in := os.NewFile(fdRequest, "request")
	out := os.NewFile(fdReply, "reply")
	if in == nil || out == nil {
		return errors.New("started without its pipes; helpers are started by the daemon only")
	}
	defer out.Close()
	syscall.CloseOnExec(fdRequest)
	syscall.CloseOnExec(fdReply)

	r := bufio.NewReader(in)
	var h header
	line, err := readLine(r)
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return fmt.Errorf("decode request: %w", err)
	}
	if err := setLimits(h.Limits); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go exitWithParent(r)

	files := make([]*os.File, h.Files)
	for i := range files {
		syscall.CloseOnExec(fdFirst + i)
		files[i] = os.NewFile(uintptr(fdFirst+i), fmt.Sprintf("file%d", i))
	}
	fn, ok := funcs[name]
	if !ok {
		return send(out, nil, api.Errorf(api.Internal, "no helper named %q", name))
	}
	value, err := fn(ctx, h.Request, files)
	return send(out, value, err)
}

// exitWithParent ends the process when the parent's end of the request pipe
// closes: work whose result nobody awaits must not go on changing files.
func exitWithParent(r io.Reader) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return
	}
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(0, syscall.SIGKILL) // with the programs we started
	}
	os.Exit(3)
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxMessage {
			return nil, fmt.Errorf("message longer than %d bytes", maxMessage)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return line, err
	}
}

func send(out io.Writer, value any, err error) error {
	var rep reply
	if err == nil {
		rep.Reply, err = json.Marshal(value)
	}
	if err != nil {
		rep = reply{Error: &wireError{Kind: api.KindOf(err), Message: err.Error(), Hint: api.HintOf(err)}}
	}
	return json.NewEncoder(out).Encode(rep)
}
