package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

func newImage(g *global) *cobra.Command {
	return group("image", "Manage images",
		newImageAlias(g), newImageBuild(g), newImageDelete(g), newImageEdit(g), newImageExport(g),
		newImageGetProperty(g), newImageImport(g), newImageInfo(g), newImageList(g), newImageSetProperty(g),
		newImageShow(g), newImageUnsetProperty(g))
}

// resolveImage is the fingerprint that an alias stands for, or the argument
// itself: a full or partial fingerprint.
func resolveImage(ctx context.Context, c *client.Client, arg string) (string, error) {
	if arg == "" {
		return "", api.Errorf(api.Invalid, "image name is missing")
	}
	alias, _, err := c.ImageAlias(ctx, arg)
	switch {
	case err == nil:
		return alias.Target, nil
	case !errors.Is(err, api.NotFound):
		return "", err
	}
	img, _, err := c.Image(ctx, arg)
	switch {
	case err == nil:
		return img.Fingerprint, nil
	case errors.Is(err, api.NotFound) && api.HintOf(err) == "":
		return "", api.Errorf(api.NotFound, "image %q not found: %w", arg, err).
			WithHint("croft image list shows the images; croft image build %s makes one of a distribution", "debian/12")
	}
	return "", err
}

// openImage fetches the image that an argument names, with its ETag.
func (g *global) openImage(ctx context.Context, arg string) (*client.Client, api.Image, string, error) {
	c, name, err := g.object(ctx, "image", arg)
	if err != nil {
		return nil, api.Image{}, "", err
	}
	fp, err := resolveImage(ctx, c, name)
	if err != nil {
		return nil, api.Image{}, "", err
	}
	img, etag, err := c.Image(ctx, fp)
	return c, img, etag, err
}

// imageCommand is a command about one image that exists; run gets the
// arguments after its name.
func imageCommand(g *global, use, short string, n int,
	run func(ctx context.Context, c *client.Client, img api.Image, etag string, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(n, n), ValidArgsFunction: g.complete(false, imageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, img, etag, err := g.openImage(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, img, etag, args[1:])
		},
	}
}

func newImageDelete(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "delete [REMOTE:]IMAGE...", Aliases: []string{"rm"}, Short: "Delete images", Args: args(1, -1),
		ValidArgsFunction: g.complete(true, imageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				if err := runImageDelete(cmd.Context(), g, arg); err != nil {
					return fmt.Errorf("image %s: %w", arg, err)
				}
			}
			return nil
		},
	}
}

func runImageDelete(ctx context.Context, g *global, arg string) error {
	c, img, _, err := g.openImage(ctx, arg)
	if err != nil {
		return err
	}
	op, err := c.DeleteImage(ctx, img.Fingerprint)
	if err != nil {
		return err
	}
	_, err = op.Wait(ctx)
	return err
}

func newImageEdit(g *global) *cobra.Command {
	cmd := imageCommand(g, "edit [REMOTE:]IMAGE", "Edit the properties of an image as YAML", 1,
		func(ctx context.Context, c *client.Client, img api.Image, etag string, _ []string) error {
			return editYAML(ctx, g, "image "+img.Fingerprint, img.ImagePut, func(put api.ImagePut) error {
				return c.UpdateImage(ctx, img.Fingerprint, put, etag)
			})
		})
	cmd.Example = "  croft image edit debian/12 < image.yaml"
	return cmd
}

func newImageShow(g *global) *cobra.Command {
	cmd := imageCommand(g, "show [REMOTE:]IMAGE", "Show the properties of an image as YAML", 1,
		func(_ context.Context, _ *client.Client, img api.Image, _ string, _ []string) error {
			return g.printYAML(img.ImagePut)
		})
	return cmd
}

func newImageGetProperty(g *global) *cobra.Command {
	return imageCommand(g, "get-property [REMOTE:]IMAGE KEY", "Print a property of an image", 2,
		func(_ context.Context, _ *client.Client, img api.Image, _ string, args []string) error {
			value, ok := img.Properties[args[0]]
			if !ok {
				return api.Errorf(api.NotFound, "image %s has no property %q", shortFingerprint(img.Fingerprint), args[0])
			}
			g.printf("%s\n", value)
			return nil
		})
}

func newImageSetProperty(g *global) *cobra.Command {
	return imageCommand(g, "set-property [REMOTE:]IMAGE KEY VALUE", "Set a property of an image", 3,
		func(ctx context.Context, c *client.Client, img api.Image, etag string, args []string) error {
			img.Properties = orEmpty(img.Properties)
			img.Properties[args[0]] = args[1]
			return c.UpdateImage(ctx, img.Fingerprint, img.ImagePut, etag)
		})
}

func newImageUnsetProperty(g *global) *cobra.Command {
	return imageCommand(g, "unset-property [REMOTE:]IMAGE KEY", "Unset a property of an image", 2,
		func(ctx context.Context, c *client.Client, img api.Image, etag string, args []string) error {
			delete(img.Properties, args[0])
			return c.UpdateImage(ctx, img.Fingerprint, img.ImagePut, etag)
		})
}

func newImageInfo(g *global) *cobra.Command {
	return imageCommand(g, "info [REMOTE:]IMAGE", "Show an image", 1,
		func(_ context.Context, _ *client.Client, img api.Image, _ string, _ []string) error {
			g.printf("%s", imageInfo(img))
			return nil
		})
}

func imageInfo(img api.Image) string {
	var b strings.Builder
	when := func(t time.Time, never string) string {
		if t.Unix() <= 0 {
			return never
		}
		return dateTime(t)
	}
	word := func(b bool, yes, no string) string {
		if b {
			return yes
		}
		return no
	}
	fmt.Fprintf(&b, "Fingerprint: %s\nSize: %s\nArchitecture: %s\nType: %s\nPublic: %s\n",
		img.Fingerprint, imageSize(img.Size), img.Architecture, img.Type, word(img.Public, "yes", "no"))
	b.WriteString("Timestamps:\n")
	if !img.CreatedAt.IsZero() && img.CreatedAt.Unix() != 0 {
		fmt.Fprintf(&b, "    Created: %s\n", dateTime(img.CreatedAt))
	}
	fmt.Fprintf(&b, "    Uploaded: %s\n    Expires: %s\n    Last used: %s\n",
		dateTime(img.UploadedAt), when(img.ExpiresAt, "never"), when(img.LastUsedAt, "never"))
	b.WriteString("Properties:\n")
	for _, k := range slices.Sorted(maps.Keys(img.Properties)) {
		fmt.Fprintf(&b, "    %s: %s\n", k, img.Properties[k])
	}
	b.WriteString("Aliases:\n")
	for _, a := range img.Aliases {
		if a.Description != "" {
			fmt.Fprintf(&b, "    - %s (%s)\n", a.Name, a.Description)
		} else {
			fmt.Fprintf(&b, "    - %s\n", a.Name)
		}
	}
	fmt.Fprintf(&b, "Cached: %s\nAuto update: %s\n", word(img.Cached, "yes", "no"), word(img.AutoUpdate, "enabled", "disabled"))
	if src := img.UpdateSource; src != nil && src.Server != "" {
		fmt.Fprintf(&b, "Source:\n    Server: %s\n    Protocol: %s\n    Alias: %s\n", src.Server, src.Protocol, src.Alias)
	}
	if len(img.Profiles) == 0 {
		b.WriteString("Profiles: []\n")
		return b.String()
	}
	b.WriteString("Profiles:\n")
	for _, p := range img.Profiles {
		fmt.Fprintf(&b, "    - %s\n", p)
	}
	return b.String()
}

// imageSize is a size as LXD's client shows it: 2^20 bytes are called MB there.
func imageSize(n int64) string { return fmt.Sprintf("%.2fMB", float64(n)/1024/1024) }
