package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
)

type imageBuildOptions struct {
	aliases []string
	mirror  string
}

func newImageBuild(g *global) *cobra.Command {
	var o imageBuildOptions
	cmd := &cobra.Command{
		Use: "build [REMOTE:]DISTRIBUTION[/RELEASE]", Short: "Build an image from a distribution's packages", Args: args(1, 1),
		Long: `Build an image from a distribution's packages

The server fetches the packages, so it needs the network and the tools of the
distribution (mmdebstrap for Debian). Without --alias the image is named as
the argument says.`,
		Example: "  croft image build debian/12\n  croft image build busybox --alias small",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runImageBuild(cmd.Context(), g, o, args[0])
		},
	}
	cmd.Flags().StringArrayVar(&o.aliases, "alias", nil, "name of the image; may be repeated")
	cmd.Flags().StringVar(&o.mirror, "mirror", "", "`URL` of the package mirror (default: that of the server's own system)")
	return cmd
}

func runImageBuild(ctx context.Context, g *global, o imageBuildOptions, arg string) error {
	c, dist, err := g.object(ctx, "distribution", arg)
	if err != nil {
		return err
	}
	if len(o.aliases) == 0 {
		o.aliases = []string{dist}
	}
	post := api.ImagesPost{Source: &api.ImagesPostSource{Type: "build", Distribution: dist, Mirror: o.mirror}}
	for _, a := range o.aliases {
		post.Aliases = append(post.Aliases, api.ImageAlias{Name: a})
	}
	g.say("Building %s", dist)
	op, err := c.CreateImage(ctx, post)
	if err != nil {
		return err
	}
	done, err := g.wait(ctx, op, "Building "+dist)
	if err != nil {
		return err
	}
	fp, _ := done.Metadata["fingerprint"].(string)
	g.printf("Image built with fingerprint: %s\n", fp)
	return nil
}
