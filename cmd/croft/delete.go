package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

type deleteOptions struct {
	force       bool
	interactive bool
}

func newDelete(g *global) *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use: "delete [REMOTE:]INSTANCE...", Aliases: []string{"rm"}, Short: "Delete instances", Args: args(1, -1),
		Long:              "Delete instances\n\nIf one of the names does not exist, nothing is deleted.",
		ValidArgsFunction: g.complete(true, instanceNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return runDelete(cmd.Context(), g, o, args) },
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "stop running instances first")
	cmd.Flags().BoolVarP(&o.interactive, "interactive", "i", false, "ask before each deletion")
	return cmd
}

func runDelete(ctx context.Context, g *global, o deleteOptions, names []string) error {
	names = onceEach(names)
	if len(names) > 1 { // all or none, as far as that can be known
		if err := g.checkExist(ctx, names); err != nil {
			return err
		}
	}
	if o.interactive {
		var err error
		if names, err = g.confirmEach(names); err != nil || len(names) == 0 {
			return err
		}
	}
	return g.eachInstance(ctx, names, "deleted", func(ctx context.Context, c *client.Client, name string) error {
		return deleteInstance(ctx, g, c, name, o.force)
	})
}

func (g *global) checkExist(ctx context.Context, names []string) error {
	for _, arg := range names {
		c, name, err := g.object(ctx, "instance", arg)
		if err != nil {
			return err
		}
		if _, _, err := c.Instance(ctx, name); err != nil {
			return fmt.Errorf("instance %s: %w", arg, err)
		}
	}
	return nil
}

// confirmEach asks about every name and keeps those that were confirmed.
func (g *global) confirmEach(names []string) ([]string, error) {
	in := bufio.NewReader(g.stdin)
	var out []string
	for _, name := range names {
		g.printf("Remove %s (yes/no): ", name)
		line, err := in.ReadString('\n')
		if err != nil && line == "" {
			return nil, api.Errorf(api.Canceled, "no answer about %s: nothing was deleted", name)
		}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			out = append(out, name)
		}
	}
	return out, nil
}

// deleteInstance deletes an instance; with force it is killed first. An
// ephemeral one goes away by being killed.
func deleteInstance(ctx context.Context, g *global, c *client.Client, name string, force bool) error {
	inst, _, err := c.Instance(ctx, name)
	if err != nil {
		return err
	}
	if inst.StatusCode != api.Stopped && inst.StatusCode != api.StatusError {
		if !force {
			return api.Errorf(api.BadState, "instance %s is %s", name, strings.ToLower(inst.Status)).
				WithHint("stop it first, or use --force")
		}
		err := g.changeState(ctx, c, name, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true})
		if err != nil || inst.Ephemeral {
			return err
		}
	}
	op, err := c.DeleteInstance(ctx, name)
	if err != nil {
		return err
	}
	_, err = op.Wait(ctx)
	return err
}
