package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newRename(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "rename [REMOTE:]INSTANCE NEW-NAME", Short: "Rename an instance", Args: args(2, 2),
		ValidArgsFunction: g.complete(false, instanceNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return runRename(cmd.Context(), g, args[0], args[1]) },
	}
}

func runRename(ctx context.Context, g *global, from, to string) error {
	c, name, err := g.object(ctx, "instance", from)
	if err != nil {
		return err
	}
	to, err = g.sameRemote(from, to)
	if err != nil {
		return err
	}
	op, err := c.RenameInstance(ctx, name, to)
	if err != nil {
		return err
	}
	_, err = g.wait(ctx, op, "Renaming the instance")
	return err
}
