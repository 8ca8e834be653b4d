package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

func newConfig(g *global) *cobra.Command {
	return group("config", "Manage instance and server configuration",
		newDevice(g, "instance", loadInstance, instanceNames),
		newConfigEdit(g), newConfigGet(g), newConfigSet(g), newConfigShow(g), newConfigUnset(g))
}

// openConfig loads the instance that arg names, or the server if arg has no
// name.
func (g *global) openConfig(ctx context.Context, arg string) (*entity, error) {
	c, name, err := g.target(ctx, arg)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return loadServer(ctx, c)
	}
	return loadInstance(ctx, g, c, name)
}

func newConfigShow(g *global) *cobra.Command {
	var expanded bool
	cmd := &cobra.Command{
		Use: "show [REMOTE:][INSTANCE]", Short: "Show the configuration of an instance or the server", Args: args(0, 1),
		ValidArgsFunction: g.complete(false, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.optional(cmd.Context(), args)
			if err != nil {
				return err
			}
			return runConfigShow(cmd.Context(), g, c, name, expanded)
		},
	}
	cmd.Flags().BoolVarP(&expanded, "expanded", "e", false, "include what the profiles give")
	targetFlag(cmd)
	return cmd
}

func runConfigShow(ctx context.Context, g *global, c *client.Client, name string, expanded bool) error {
	if name == "" {
		srv, _, err := c.Server(ctx)
		if err != nil {
			return err
		}
		return g.printYAML(srv.ServerPut)
	}
	inst, _, err := c.Instance(ctx, name)
	if err != nil {
		return err
	}
	if expanded {
		inst.Config, inst.Devices = inst.ExpandedConfig, inst.ExpandedDevices
	}
	return g.printYAML(inst.InstancePut)
}

func newConfigGet(g *global) *cobra.Command {
	var expanded bool
	cmd := &cobra.Command{
		Use: "get [REMOTE:][INSTANCE] KEY", Short: "Print the value of a configuration key", Args: args(1, 2),
		ValidArgsFunction: g.complete(false, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			arg, key := "", args[len(args)-1]
			if len(args) == 2 {
				arg = args[0]
			}
			e, err := g.openConfig(cmd.Context(), arg)
			if err != nil {
				return err
			}
			value := e.config[key]
			if expanded {
				value = e.expandedConfig[key]
			}
			g.printf("%s\n", value)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&expanded, "expanded", "e", false, "include what the profiles give")
	targetFlag(cmd)
	return cmd
}

func newConfigSet(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "set [REMOTE:][INSTANCE] KEY=VALUE...", Short: "Set configuration keys of an instance or the server", Args: args(1, -1),
		Long: `Set configuration keys of an instance or the server

The older form "set [INSTANCE] KEY VALUE" works too. A value of - is read
from standard input.`,
		Example:           "  croft config set web1 limits.cpu=2 limits.memory=1GiB\n  croft config set core.https_address=[::]:8443",
		ValidArgsFunction: g.complete(false, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			arg, rest := splitConfigArgs(args)
			kv, err := g.parseSet(rest)
			if err != nil {
				return err
			}
			e, err := g.openConfig(cmd.Context(), arg)
			if err != nil {
				return err
			}
			return setKeys(cmd.Context(), e, kv)
		},
	}
	targetFlag(cmd)
	return cmd
}

// splitConfigArgs finds the instance among the arguments of config set. It is
// absent when the first argument is KEY=VALUE, or when there are two without
// an equals sign: KEY VALUE of the server. REMOTE: alone is the server there.
func splitConfigArgs(args []string) (target string, rest []string) {
	hasValue := func(i int) bool { return strings.Contains(args[i], "=") }
	switch {
	case hasValue(0) || len(args) == 1:
		return "", args
	case len(args) == 2 && !hasValue(1):
		return "", args
	}
	return args[0], args[1:]
}

func newConfigUnset(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "unset [REMOTE:][INSTANCE] KEY", Short: "Unset a configuration key", Args: args(1, 2),
		ValidArgsFunction: g.complete(false, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			arg := ""
			if len(args) == 2 {
				arg = args[0]
			}
			e, err := g.openConfig(cmd.Context(), arg)
			if err != nil {
				return err
			}
			return unsetKey(cmd.Context(), e, args[len(args)-1])
		},
	}
	targetFlag(cmd)
	return cmd
}

func newConfigEdit(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "edit [REMOTE:][INSTANCE]", Short: "Edit the configuration of an instance or the server as YAML", Args: args(0, 1),
		Example:           "  croft config edit web1 < web1.yaml",
		ValidArgsFunction: g.complete(false, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.optional(cmd.Context(), args)
			if err != nil {
				return err
			}
			return runConfigEdit(cmd.Context(), g, c, name)
		},
	}
	targetFlag(cmd)
	return cmd
}

func runConfigEdit(ctx context.Context, g *global, c *client.Client, name string) error {
	if name == "" {
		srv, etag, err := c.Server(ctx)
		if err != nil {
			return err
		}
		return editYAML(ctx, g, "the configuration of the server", srv.ServerPut, func(put api.ServerPut) error {
			return c.UpdateServer(ctx, put, etag)
		})
	}
	inst, etag, err := c.Instance(ctx, name)
	if err != nil {
		return err
	}
	return editYAML(ctx, g, "the configuration of instance "+name, inst.InstancePut, func(put api.InstancePut) error {
		return g.updateInstance(ctx, c, name, put, etag)
	})
}
