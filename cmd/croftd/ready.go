package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// retryEvery is how often waitready looks for a daemon that is not there yet.
const retryEvery = 100 * time.Millisecond

func newWaitReady() *cobra.Command {
	timeout := 0
	cmd := &cobra.Command{
		Use: "waitready", Short: "Wait until the daemon has started what ran before", Args: noArgs,
		Long: "Waits until the daemon answers and has done its early work, such as starting the instances that ran before.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := withSeconds(cmd.Context(), timeout)
			defer cancel()
			return runWaitReady(ctx)
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "give up after `SECONDS`; 0 waits for ever")
	return cmd
}

// withSeconds limits a context; 0 and below mean no limit.
func withSeconds(ctx context.Context, seconds int) (context.Context, context.CancelFunc) {
	if seconds <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
}

// runWaitReady asks until the daemon says that it is ready. A daemon that is not
// there may be starting.
func runWaitReady(ctx context.Context) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	var absent error // why there is no daemon to ask
	for {
		c, err := dial(ctx)
		switch {
		case err == nil:
			absent = nil
			err = ready(ctx, c)
		case errors.Is(err, api.Unavailable):
			absent = err
		}
		if err == nil || errors.Is(err, api.Forbidden) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if absent != nil {
				return api.Errorf(api.Timeout, "the daemon is not ready: %w", absent)
			}
			return api.Errorf(api.Timeout, "the daemon is not ready yet")
		}
	}
}

func ready(ctx context.Context, c *client.Client) error {
	defer c.Close()
	_, err := c.Raw(ctx, "GET", "/internal/ready", nil)
	return err
}
