package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/term"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// global is what all commands share: streams, global flags, connections.
type global struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	intr           *interrupts

	project                           string
	forceLocal, quiet, verbose, debug bool

	conf *config // loaded on first use
	conn *client.Client
}

// connect gives the connection to a remote. There is one server so far, so
// there is one connection.
func (g *global) connect(ctx context.Context, remote string) (*client.Client, error) {
	socket, err := g.socket(remote)
	if err != nil {
		return nil, err
	}
	if g.conn != nil {
		return g.conn, nil
	}
	g.conn, err = client.Dial(ctx, client.Options{Socket: socket, UserAgent: "croft " + version, Project: g.project})
	return g.conn, err
}

func (g *global) close() {
	if g.conn != nil {
		g.conn.Close()
	}
}

// target connects to the server that an argument [remote:]name is about.
func (g *global) target(ctx context.Context, arg string) (*client.Client, string, error) {
	remote, name, err := g.parse(arg)
	if err != nil {
		return nil, "", err
	}
	c, err := g.connect(ctx, remote)
	return c, name, err
}

// object is target for arguments whose name may not be empty.
func (g *global) object(ctx context.Context, kind, arg string) (*client.Client, string, error) {
	c, name, err := g.target(ctx, arg)
	if err == nil && name == "" {
		return nil, "", api.Errorf(api.Invalid, "%s name is missing in %q", kind, arg)
	}
	return c, name, err
}

// optional is target for an argument that may be absent.
func (g *global) optional(ctx context.Context, args []string) (*client.Client, string, error) {
	if len(args) == 0 {
		return g.target(ctx, "")
	}
	return g.target(ctx, args[0])
}

// sameRemote parses a second name that must be on the server of the first.
func (g *global) sameRemote(first, second string) (string, error) {
	r1, _, err := g.parse(first)
	if err != nil {
		return "", err
	}
	r2, name, err := g.parse(second)
	if err != nil {
		return "", err
	}
	if strings.Contains(second, ":") && r1 != r2 {
		return "", api.Errorf(api.Invalid, "%q and %q are on different remotes", first, second)
	}
	return name, nil
}

// stdinTerminal reports whether somebody may be typing.
func (g *global) stdinTerminal() bool { return isTerminal(g.stdin) }

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (g *global) printf(format string, a ...any) { fmt.Fprintf(g.stdout, format, a...) }

// say prints what was done, unless --quiet.
func (g *global) say(format string, a ...any) {
	if !g.quiet {
		g.printf(format+"\n", a...)
	}
}

// getenv is the first variable that is set.
func (g *global) getenv(names ...string) string {
	for _, n := range names {
		if v := g.env(n); v != "" {
			return v
		}
	}
	return ""
}

// configDir is where the client keeps its own files.
func (g *global) configDir() (string, error) {
	if dir := g.getenv("CROFT_CONF", "LXD_CONF"); dir != "" {
		return dir, nil
	}
	base, err := os.UserConfigDir()
	if err != nil {
		return "", api.Errorf(api.Invalid, "no directory for the client's configuration: %w", err).
			WithHint("set CROFT_CONF")
	}
	return filepath.Join(base, "croft"), nil
}

// interrupts turns the first SIGINT or SIGTERM into the end of a context, so
// that operations are cancelled; the second one kills croft as usual.
type interrupts struct {
	ch     chan os.Signal
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

func catchInterrupts(ctx context.Context) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancel(ctx)
	i := &interrupts{ch: make(chan os.Signal, 1), cancel: cancel, done: make(chan struct{})}
	signal.Notify(i.ch, endSignals()...)
	go func() {
		select {
		case <-i.ch:
			signal.Stop(i.ch)
			cancel()
		case <-i.done:
		}
	}()
	return ctx, i
}

// stop leaves the signals to somebody else; the context stays alive.
func (i *interrupts) stop() {
	i.once.Do(func() {
		signal.Stop(i.ch)
		close(i.done)
	})
}

// release ends everything.
func (i *interrupts) release() {
	i.stop()
	i.cancel()
}
