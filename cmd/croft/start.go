package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

type startOptions struct {
	all       bool
	stateless bool
}

func newStart(g *global) *cobra.Command {
	var o startOptions
	cmd := &cobra.Command{
		Use: "start [REMOTE:]INSTANCE...", Short: "Start instances", Args: instanceArgs(&o.all),
		Long:              "Start instances\n\nA paused instance goes on.",
		ValidArgsFunction: g.complete(true, instanceNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return runStart(cmd.Context(), g, o, args) },
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "start all instances that do not run")
	cmd.Flags().BoolVar(&o.stateless, "stateless", false, "ignore the saved state of the instance")
	consoleFlag(cmd)
	return cmd
}

func runStart(ctx context.Context, g *global, o startOptions, names []string) error {
	if o.all {
		var err error
		names, err = g.allInstances(ctx, func(i api.Instance) bool { return i.StatusCode != api.Running })
		if err != nil || len(names) == 0 {
			return err
		}
	}
	return g.eachInstance(ctx, onceEach(names), "started", func(ctx context.Context, c *client.Client, name string) error {
		inst, _, err := c.Instance(ctx, name)
		if err != nil {
			return err
		}
		put := api.InstanceStatePut{Action: "start", Timeout: -1, Stateful: inst.Stateful && !o.stateless}
		if inst.StatusCode == api.Frozen {
			put = api.InstanceStatePut{Action: "unfreeze", Timeout: -1}
		}
		return g.changeState(ctx, c, name, put)
	})
}
