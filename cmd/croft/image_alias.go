package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
)

func newImageAlias(g *global) *cobra.Command {
	return group("alias", "Manage image aliases",
		newImageAliasCreate(g), newImageAliasDelete(g), newImageAliasList(g), newImageAliasRename(g))
}

func newImageAliasCreate(g *global) *cobra.Command {
	var description string
	cmd := &cobra.Command{
		Use: "create [REMOTE:]ALIAS FINGERPRINT", Short: "Give an image one more name", Args: args(2, 2),
		ValidArgsFunction: g.complete(false, nil, imageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "alias", args[0])
			if err != nil {
				return err
			}
			fp, err := resolveImage(cmd.Context(), c, args[1])
			if err != nil {
				return err
			}
			post := api.ImageAliasesPost{}
			post.Name, post.Target, post.Description = name, fp, description
			return c.CreateImageAlias(cmd.Context(), post)
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "description of the alias")
	return cmd
}

func newImageAliasDelete(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "delete [REMOTE:]ALIAS", Aliases: []string{"rm"}, Short: "Delete an alias; the image stays", Args: args(1, 1),
		ValidArgsFunction: g.complete(false, aliasNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "alias", args[0])
			if err != nil {
				return err
			}
			return c.DeleteImageAlias(cmd.Context(), name)
		},
	}
}

func newImageAliasList(g *global) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:] [FILTER...]", Aliases: []string{"ls"}, Short: "List image aliases", Args: args(0, -1),
		Long: "List image aliases\n\nA filter is a part of an alias or the beginning of a fingerprint.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runImageAliasList(cmd.Context(), g, format, args)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func runImageAliasList(ctx context.Context, g *global, format string, filters []string) error {
	c, filters, err := g.listTarget(ctx, filters)
	if err != nil {
		return err
	}
	aliases, err := c.ImageAliases(ctx)
	if err != nil {
		return err
	}
	t := table{header: []string{"ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"}, data: aliases}
	for _, a := range aliases {
		fits := true
		for _, f := range filters {
			fits = fits && (strings.Contains(a.Name, f) || strings.HasPrefix(a.Target, f))
		}
		if fits {
			t.add(a.Name, shortFingerprint(a.Target), strings.ToUpper(a.Type), a.Description)
		}
	}
	return g.render(format, t)
}

func newImageAliasRename(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "rename [REMOTE:]ALIAS NEW-NAME", Aliases: []string{"mv"}, Short: "Rename an alias", Args: args(2, 2),
		ValidArgsFunction: g.complete(false, aliasNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "alias", args[0])
			if err != nil {
				return err
			}
			return c.RenameImageAlias(cmd.Context(), name, args[1])
		},
	}
}
