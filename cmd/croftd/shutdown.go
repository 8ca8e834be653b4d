package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

type shutdownOptions struct {
	force   bool
	timeout int
}

func newShutdown() *cobra.Command {
	var o shutdownOptions
	cmd := &cobra.Command{
		Use: "shutdown", Short: "Stop all instances and the daemon", Args: noArgs,
		Long: "Stops all instances in order, then the daemon, and returns when both are done. The instances start again with the daemon.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := withSeconds(cmd.Context(), o.timeout)
			defer cancel()
			return runShutdown(ctx, o)
		},
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "do not wait for operations in progress")
	cmd.Flags().IntVarP(&o.timeout, "timeout", "t", 0, "give up waiting after `SECONDS`; 0 waits for ever")
	return cmd
}

func runShutdown(ctx context.Context, o shutdownOptions) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	srv, _, err := c.Server(ctx)
	if err != nil {
		return err
	}
	// The handle is taken before the request, so that it is of the right process.
	pidfd, err := unix.PidfdOpen(srv.Environment.ServerPid, 0)
	if err != nil {
		return api.Errorf(api.Internal, "watch the daemon (process %d): %w", srv.Environment.ServerPid, err)
	}
	defer unix.Close(pidfd)
	if _, err := c.Raw(ctx, "PUT", "/internal/shutdown?force="+strconv.FormatBool(o.force), nil); err != nil {
		return err
	}
	return waitExit(ctx, pidfd)
}

// waitExit waits until a process has ended; pidfd_open(2).
func waitExit(ctx context.Context, pidfd int) error {
	const slice = 200 // milliseconds between looks at the context
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, slice)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return api.Errorf(api.Internal, "wait for the daemon: %w", err)
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return api.Errorf(api.Timeout, "the daemon is still stopping instances")
		}
	}
}
