package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// stopOptions are the flags of stop and restart.
type stopOptions struct {
	all      bool
	force    bool
	stateful bool
	timeout  int
}

func (o *stopOptions) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.all, "all", false, "all running instances")
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "kill the instance instead of asking it to shut down")
	cmd.Flags().IntVar(&o.timeout, "timeout", -1, "`seconds` to wait for a clean shutdown; -1 waits for ever")
	consoleFlag(cmd)
}

// request is the change of state that action and the flags ask for.
func (o *stopOptions) request(action string) api.InstanceStatePut {
	return api.InstanceStatePut{Action: action, Timeout: o.timeout, Force: o.force, Stateful: o.stateful}
}

func newStop(g *global) *cobra.Command {
	var o stopOptions
	cmd := &cobra.Command{
		Use: "stop [REMOTE:]INSTANCE...", Short: "Stop instances", Args: instanceArgs(&o.all),
		ValidArgsFunction: g.complete(true, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runStop(cmd.Context(), g, o, "stop", "stopped", args)
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&o.stateful, "stateful", false, "save the running state")
	return cmd
}

func newRestart(g *global) *cobra.Command {
	var o stopOptions
	cmd := &cobra.Command{
		Use: "restart [REMOTE:]INSTANCE...", Short: "Restart instances", Args: instanceArgs(&o.all),
		ValidArgsFunction: g.complete(true, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runStop(cmd.Context(), g, o, "restart", "restarted", args)
		},
	}
	o.flags(cmd)
	return cmd
}

// runStop stops or restarts instances.
func runStop(ctx context.Context, g *global, o stopOptions, action, done string, names []string) error {
	if o.all {
		var err error
		names, err = g.allInstances(ctx, func(i api.Instance) bool {
			return i.StatusCode == api.Running || i.StatusCode == api.Frozen
		})
		if err != nil || len(names) == 0 {
			return err
		}
	}
	return g.eachInstance(ctx, onceEach(names), done, func(ctx context.Context, c *client.Client, name string) error {
		return g.changeState(ctx, c, name, o.request(action))
	})
}
