package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/client"
)

// namesFunc lists the names of one kind of object for completion.
type namesFunc func(context.Context, *client.Client) ([]string, error)

// complete completes the arguments of a command: one namesFunc per position,
// the last one for all further positions if repeat is set. A nil entry
// completes file names.
func (g *global) complete(repeat bool, kinds ...namesFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		i := len(args)
		if i >= len(kinds) && repeat {
			i = len(kinds) - 1
		}
		if i >= len(kinds) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if kinds[i] == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return g.completions(cmd.Context(), kinds[i], prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

// completions are the names that begin with prefix. Without a server there are
// none: a shell must not show errors here.
func (g *global) completions(ctx context.Context, names namesFunc, prefix string) []string {
	c, _, err := g.target(ctx, "")
	if err != nil {
		return nil
	}
	all, err := names(ctx, c)
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range all {
		if strings.HasPrefix(n, prefix) {
			out = append(out, n)
		}
	}
	return out
}

// completeFlag completes the value of a flag with the names of objects.
func (g *global) completeFlag(cmd *cobra.Command, flag string, names namesFunc) {
	_ = cmd.RegisterFlagCompletionFunc(flag,
		func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
			return g.completions(cmd.Context(), names, prefix), cobra.ShellCompDirectiveNoFileComp
		})
}

func names[T any](items []T, err error, name func(T) string) ([]string, error) {
	out := make([]string, 0, len(items))
	for _, it := range items {
		out = append(out, name(it))
	}
	return out, err
}
