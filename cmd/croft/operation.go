package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func newOperation(g *global) *cobra.Command {
	return group("operation", "List, show and cancel background operations",
		newOperationDelete(g), newOperationList(g), newOperationShow(g))
}

func newOperationDelete(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "delete [REMOTE:]OPERATION", Aliases: []string{"cancel", "rm"}, Short: "Cancel an operation", Args: args(1, 1),
		ValidArgsFunction: g.complete(false, operationIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := g.object(cmd.Context(), "operation", args[0])
			if err != nil {
				return err
			}
			if err := c.CancelOperation(cmd.Context(), id); err != nil {
				return err
			}
			g.say("Operation %s deleted", id)
			return nil
		},
	}
}

func newOperationList(g *global) *cobra.Command {
	var format string
	var allProjects bool
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List background operations", Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := g.optional(cmd.Context(), args)
			if err != nil {
				return err
			}
			ops, err := c.Operations(cmd.Context(), allProjects)
			if err != nil {
				return err
			}
			t := table{header: []string{"ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"}, data: ops}
			for _, op := range ops {
				t.add(op.ID, strings.ToUpper(op.Class), op.Description, strings.ToUpper(op.Status),
					yesNo(op.MayCancel), dateTime(op.CreatedAt))
			}
			return g.render(format, t)
		},
	}
	cmd.Flags().BoolVar(&allProjects, "all-projects", false, "list the operations of all projects")
	formatFlag(cmd, &format)
	return cmd
}

func newOperationShow(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "show [REMOTE:]OPERATION", Short: "Show an operation as YAML", Args: args(1, 1),
		ValidArgsFunction: g.complete(false, operationIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := g.object(cmd.Context(), "operation", args[0])
			if err != nil {
				return err
			}
			op, err := c.Operation(cmd.Context(), id)
			if err != nil {
				return err
			}
			return g.printYAML(op)
		},
	}
}
