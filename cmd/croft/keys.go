package main

import (
	"context"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
)

// parseKeyValues reads KEY=VALUE arguments.
func parseKeyValues(args []string) (configMap, error) {
	out := configMap{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, api.Errorf(api.Invalid, "argument %q is not of the form key=value", a)
		}
		out[k] = v
	}
	return out, nil
}

// parseSet reads the arguments of set: KEY=VALUE..., or the older KEY VALUE. A
// value of "-" is read from standard input.
func (g *global) parseSet(args []string) (configMap, error) {
	if len(args) == 2 && !strings.Contains(args[0], "=") {
		args = []string{args[0] + "=" + args[1]}
	}
	kv, err := parseKeyValues(args)
	if err != nil {
		return nil, err
	}
	for k, v := range kv {
		if v != "-" {
			continue
		}
		raw, err := g.readStdin()
		if err != nil {
			return nil, err
		}
		kv[k] = string(raw)
	}
	return kv, nil
}

// setKeys stores configuration keys.
func setKeys(ctx context.Context, e *entity, kv configMap) error {
	maps.Copy(e.config, kv)
	return e.save(ctx)
}

// unsetKey removes a configuration key that must be there.
func unsetKey(ctx context.Context, e *entity, key string) error {
	if _, ok := e.config[key]; !ok {
		return api.Errorf(api.Invalid, "cannot unset %q: it is not set", key)
	}
	if e.clearByEmpty {
		e.config[key] = ""
	} else {
		delete(e.config, key)
	}
	return e.save(ctx)
}

// keyCommands are get, set and unset of a kind of entity that is always named:
// profiles, pools and networks.
func keyCommands(g *global, kind string, load loader, complete namesFunc) []*cobra.Command {
	arg := "[REMOTE:]" + strings.ToUpper(kind[strings.LastIndexByte(kind, ' ')+1:])
	open := func(ctx context.Context, name string) (*entity, error) {
		c, name, err := g.object(ctx, kind, name)
		if err != nil {
			return nil, err
		}
		return load(ctx, g, c, name)
	}
	get := &cobra.Command{Use: "get " + arg + " KEY", Short: "Print the value of a configuration key", Args: args(2, 2)}
	get.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := open(cmd.Context(), args[0])
		if err == nil {
			g.printf("%s\n", e.config[args[1]])
		}
		return err
	}
	set := &cobra.Command{
		Use: "set " + arg + " KEY=VALUE...", Short: "Set configuration keys", Args: args(2, -1),
		Long: "Set configuration keys\n\nThe older form \"set NAME KEY VALUE\" works too. A value of - is read from standard input.",
	}
	set.RunE = func(cmd *cobra.Command, args []string) error {
		kv, err := g.parseSet(args[1:])
		if err != nil {
			return err
		}
		e, err := open(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return setKeys(cmd.Context(), e, kv)
	}
	unset := &cobra.Command{Use: "unset " + arg + " KEY", Short: "Unset a configuration key", Args: args(2, 2)}
	unset.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := open(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return unsetKey(cmd.Context(), e, args[1])
	}
	cmds := []*cobra.Command{get, set, unset}
	for _, cmd := range cmds {
		cmd.ValidArgsFunction = g.complete(false, complete)
		targetFlag(cmd)
	}
	return cmds
}

// targetFlag adds --target, which names a cluster member. Scripts for clusters
// get a clear refusal instead of an unknown flag.
func targetFlag(cmd *cobra.Command) {
	cmd.Flags().String("target", "", "cluster member; refused, as the server is not clustered")
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if t, _ := cmd.Flags().GetString("target"); t != "" {
			return api.Errorf(api.Invalid, "--target %s: members can be chosen only when the server is clustered", t)
		}
		return inner(cmd, args)
	}
}
