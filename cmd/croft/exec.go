package main

import (
	"context"
	"os"
	"os/signal"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

type execOptions struct {
	cwd              string
	env              []string
	user, group      uint32
	mode             string
	noStdin          bool
	interactive      bool
	forceNonInteract bool
}

func newExec(g *global) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use: "exec [REMOTE:]INSTANCE [flags] [--] COMMAND...", Short: "Execute a command in an instance", Args: args(2, -1),
		Long: `Execute a command in an instance

The command is executed as it is. There is no shell: for variables, pipes and
patterns run one, as in
    croft exec web1 -- sh -c "cd /tmp && pwd"

A terminal is given to the command when standard input and output are
terminals. The exit code is that of the command; 126 means not executable,
127 not found, 128+n ended by signal n. Signals are passed on.`,
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     g.complete(false, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExec(cmd.Context(), g, o, args[0], args[1:])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.cwd, "cwd", "", "`directory` to run the command in (default /root)")
	f.StringArrayVar(&o.env, "env", nil, "environment variable `name=value`; may be repeated")
	f.Uint32Var(&o.user, "user", 0, "user `id` to run the command as")
	f.Uint32Var(&o.group, "group", 0, "group `id` to run the command as")
	f.StringVar(&o.mode, "mode", "auto", "terminal mode: auto, interactive or non-interactive")
	f.BoolVarP(&o.noStdin, "disable-stdin", "n", false, "let the command read from /dev/null")
	f.BoolVarP(&o.interactive, "force-interactive", "t", false, "give the command a terminal")
	f.BoolVarP(&o.forceNonInteract, "force-noninteractive", "T", false, "give the command no terminal")
	return cmd
}

// terminal decides whether the command gets a terminal.
func (o *execOptions) terminal(in, out bool) (bool, error) {
	forced := o.interactive || o.forceNonInteract
	switch {
	case o.interactive && o.forceNonInteract:
		return false, api.Errorf(api.Invalid, "-t and -T exclude each other")
	case forced && o.mode != "auto":
		return false, api.Errorf(api.Invalid, "--mode %s cannot be used together with -t or -T", o.mode)
	case o.interactive || o.mode == "interactive":
		return true, nil
	case o.forceNonInteract || o.mode == "non-interactive":
		return false, nil
	case o.mode == "auto":
		return in && out && !o.noStdin, nil
	}
	return false, api.Errorf(api.Invalid, "unknown mode %q: auto, interactive and non-interactive are possible", o.mode)
}

func runExec(ctx context.Context, g *global, o execOptions, arg string, command []string) error {
	interactive, err := o.terminal(g.stdinTerminal(), isTerminal(g.stdout))
	if err != nil {
		return err
	}
	env, err := parseKeyValues(o.env)
	if err != nil {
		return err
	}
	if _, set := env["TERM"]; !set && g.env("TERM") != "" {
		env["TERM"] = g.env("TERM")
	}
	c, name, err := g.object(ctx, "instance", arg)
	if err != nil {
		return err
	}
	post := api.InstanceExecPost{
		Command: command, Interactive: interactive, Environment: env, User: o.user, Group: o.group, Cwd: o.cwd,
	}
	if interactive {
		post.Width, post.Height = g.windowSize()
	}
	streams := client.ExecIO{Stdin: g.stdin, Stdout: g.stdout, Stderr: g.stderr}
	if o.noStdin {
		streams.Stdin = nil
	}
	restore, err := g.rawTerminal(interactive)
	if err != nil {
		return err
	}
	defer restore()
	control, stop := g.forwardSignals(interactive)
	defer stop()
	streams.Control = control
	code, err := c.Exec(ctx, name, post, streams)
	switch {
	case err != nil && code <= 0:
		return err
	case err != nil || code != 0:
		return &exitError{code: code, err: err}
	}
	return nil
}

// windowSize is the size of the terminal, or 0, 0.
func (g *global) windowSize() (width, height int) {
	for _, stream := range []any{g.stdout, g.stdin} {
		if f, ok := stream.(*os.File); ok {
			if w, h, err := term.GetSize(int(f.Fd())); err == nil {
				return w, h
			}
		}
	}
	return 0, 0
}

// rawTerminal lets every key reach the command. restore puts the terminal back
// as it was and may be called more than once.
func (g *global) rawTerminal(interactive bool) (restore func(), err error) {
	f, ok := g.stdin.(*os.File)
	if !interactive || !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, api.Errorf(api.Internal, "cannot set the terminal to raw mode: %w", err)
	}
	return func() { _ = term.Restore(int(f.Fd()), old) }, nil
}

// forwardSignals turns the signals that croft gets into control messages. From
// here on a signal does not end croft; the command decides.
func (g *global) forwardSignals(interactive bool) (<-chan api.InstanceExecControl, func()) {
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, execSignals()...)
	g.intr.stop()
	out := make(chan api.InstanceExecControl)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case sig := <-sigs:
				msg, ok := g.controlMessage(sig, interactive)
				if !ok {
					continue
				}
				select {
				case out <- msg:
				case <-done:
					return
				}
			}
		}
	}()
	return out, func() {
		signal.Stop(sigs)
		close(done)
		<-ended
	}
}

func (g *global) controlMessage(sig os.Signal, interactive bool) (api.InstanceExecControl, bool) {
	if !isResize(sig) {
		return api.InstanceExecControl{Command: "signal", Signal: signalNumber(sig)}, true
	}
	w, h := g.windowSize()
	args := map[string]string{"width": strconv.Itoa(w), "height": strconv.Itoa(h)}
	return api.InstanceExecControl{Command: "window-resize", Args: args}, interactive && w > 0
}
