// Command croft is the command-line client of the Croft container manager. Its
// command syntax is that of LXD's client, so that habits and scripts carry over.
//
// Each command is one constructor (newStop), an options struct and a plain run
// function; all of them are listed in root.go. The client package does the
// talking, this package parses arguments and prints.
//
// Exit codes: see exitCode.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, intr := catchInterrupts(context.Background())
	defer intr.release()
	g := &global{stdin: stdin, stdout: stdout, stderr: stderr, env: os.Getenv, intr: intr}
	defer g.close()
	args, err := g.expandAlias(args)
	if err != nil {
		return g.report(nil, err)
	}
	root := newRoot(g)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return g.report(cmd, err)
}

// exitError ends croft with a code that is not croft's own: that of a command
// that exec ran. err may be nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// usageError asks for the help of the command. Without a message there were no
// arguments at all, which is a question rather than a mistake.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

// report prints err and its hint and returns the exit code.
func (g *global) report(cmd *cobra.Command, err error) int {
	var usage *usageError
	if errors.As(err, &usage) {
		_ = cmd.Help()
	}
	text := err
	var exit *exitError
	if errors.As(err, &exit) {
		text = exit.err
	}
	if errors.Is(text, context.Canceled) {
		text = errors.New("interrupted")
	}
	if text != nil && text.Error() != "" {
		fmt.Fprintf(g.stderr, "Error: %s\n", text)
		if hint := hintOf(text); hint != "" {
			fmt.Fprintf(g.stderr, "Hint: %s\n", hint)
		}
	}
	return exitCode(err)
}

// exitCode maps the result of a command to croft's exit code:
//
//	0       success, or help was asked for
//	1       the command failed, in whole or for one of several names
//	130     interrupted with Ctrl-C
//	others  only from exec: the command's own code; 126 not executable,
//	        127 not found, 128+n ended by signal n
func exitCode(err error) int {
	var exit *exitError
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage) && usage.message == "":
		return 0
	case errors.Is(err, context.Canceled):
		return 130
	default:
		return 1
	}
}

// hintOf finds the first hint in a chain of wrapped errors.
func hintOf(err error) string {
	for err != nil {
		var e *api.Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return strings.TrimRight(e.Hint, "\n")
		}
		err = e.Unwrap()
	}
	return ""
}
