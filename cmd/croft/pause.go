package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

func newPause(g *global) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "pause [REMOTE:]INSTANCE...", Aliases: []string{"freeze"}, Short: "Pause instances", Args: instanceArgs(&all),
		Long:              "Pause instances\n\nThe opposite is \"croft start\".",
		ValidArgsFunction: g.complete(true, instanceNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPause(cmd.Context(), g, all, args) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "pause all running instances")
	return cmd
}

func runPause(ctx context.Context, g *global, all bool, names []string) error {
	if all {
		var err error
		names, err = g.allInstances(ctx, func(i api.Instance) bool { return i.StatusCode == api.Running })
		if err != nil || len(names) == 0 {
			return err
		}
	}
	return g.eachInstance(ctx, onceEach(names), "paused", func(ctx context.Context, c *client.Client, name string) error {
		return g.changeState(ctx, c, name, api.InstanceStatePut{Action: "freeze", Timeout: -1})
	})
}
