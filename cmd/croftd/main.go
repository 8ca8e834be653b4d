// Croftd is the Croft daemon: it runs system containers and serves the REST API
// on a unix socket. Its command line is also that of LXD's daemon, so that
// scripts written for that keep working.
//
// Exit codes: 0 success, 1 failure, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/daemon"
	"github.com/croft-project/croft/internal/helper"
)

func main() {
	// The helpers that call liblxc never come here: a constructor in C takes them
	// (package lxc). Those written in Go are next.
	if code, ok := helper.Main(os.Args, daemon.Helpers()); ok {
		os.Exit(code)
	}
	unix.Umask(0o022) // whatever we were started with; what must be tighter is made so
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process around it.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	cmd := newRoot()
	cmd.SetArgs(args)
	cmd.SetIn(in)
	cmd.SetOut(out)
	cmd.SetErr(errOut)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(errOut, "Error: %v\n", err)
	if hint := api.HintOf(err); hint != "" {
		fmt.Fprintf(errOut, "Hint: %s\n", hint)
	}
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// globals are the flags that every command takes. Those that LXD has and Croft
// does not need are accepted and do nothing.
type globals struct {
	logFile        string
	verbose, debug bool
	syslog         bool
	trace          string
}

func newRoot() *cobra.Command {
	g, o := &globals{}, &serveOptions{}
	cmd := &cobra.Command{
		Use:           "croftd",
		Short:         "The system container daemon",
		Long:          "Croftd runs system containers and serves the API. Without a command it is the daemon, in the foreground.\n\nThe state directory is that in CROFT_DIR or LXD_DIR, else " + defaultDir + ".",
		Args:          noArgs,
		Version:       daemon.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return runServe(cmd.Context(), *g, *o) },
	}
	cmd.SetVersionTemplate("{{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.CompletionOptions.HiddenDefaultCmd = true
	f := cmd.PersistentFlags()
	f.StringVar(&g.logFile, "logfile", "", "append the log to `FILE` instead of standard error")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "log what is done")
	f.BoolVarP(&g.debug, "debug", "d", false, "log everything")
	f.BoolVar(&g.syslog, "syslog", false, "accepted for compatibility; the service manager takes care of the log")
	f.StringVar(&g.trace, "trace", "", "accepted for compatibility")
	for _, name := range []string{"syslog", "trace"} {
		f.Lookup(name).Hidden = true
	}
	cmd.Flags().StringVar(&o.group, "group", "", "`GROUP` whose members may use the API besides root")
	cmd.AddCommand(newInit(), newWaitReady(), newShutdown(), newActivateIfNeeded(), newVersion())
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
	}
	return nil
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), daemon.Version)
			return err
		},
	}
}
