package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newVersion(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "version [REMOTE:]", Short: "Show the versions of client and server", Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			arg := ""
			if len(args) > 0 {
				arg = args[0]
			}
			return runVersion(cmd.Context(), g, arg)
		},
	}
}

// runVersion prints both versions. A server that does not answer is part of
// the answer here, not an error; an unknown remote is one.
func runVersion(ctx context.Context, g *global, arg string) error {
	if _, _, err := g.parse(arg); err != nil {
		return err
	}
	server := "unreachable"
	if c, _, err := g.target(ctx, arg); err == nil {
		if srv, _, err := c.Server(ctx); err == nil {
			server = srv.Environment.ServerVersion
		}
	}
	g.printf("Client version: %s\nServer version: %s\n", version, server)
	return nil
}
