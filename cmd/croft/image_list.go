package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

const imageColumns = "lfpdatsu"

type imageListOptions struct {
	columns string
	format  string
}

func newImageList(g *global) *cobra.Command {
	var o imageListOptions
	cmd := &cobra.Command{
		Use: "list [REMOTE:] [FILTER...]", Aliases: []string{"ls"}, Short: "List images", Args: args(0, -1),
		Long: `List images

A filter is KEY=VALUE for a property, or a part of an alias or the beginning
of a fingerprint. All filters must fit.

Columns (-c): l shortest alias, L all aliases, f fingerprint, F full
fingerprint, p public, d description, a architecture, t type, s size,
u upload date. The default is ` + imageColumns + `.`,
		ValidArgsFunction: g.complete(true, imageNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return runImageList(cmd.Context(), g, o, args) },
	}
	cmd.Flags().StringVarP(&o.columns, "columns", "c", imageColumns, "columns, see above")
	formatFlag(cmd, &o.format)
	return cmd
}

func runImageList(ctx context.Context, g *global, o imageListOptions, filters []string) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	c, filters, err := g.listTarget(ctx, filters)
	if err != nil {
		return err
	}
	titles, cells, err := imageCells(o.columns)
	if err != nil {
		return err
	}
	all, err := c.Images(ctx)
	if err != nil {
		return err
	}
	images := make([]api.Image, 0, len(all))
	for _, img := range all {
		if !slices.ContainsFunc(filters, func(f string) bool { return !imageFits(img, f) }) {
			images = append(images, img)
		}
	}
	t := table{header: titles, data: images}
	for _, img := range images {
		var row []string
		for _, cell := range cells {
			row = append(row, cell(img))
		}
		t.add(row...)
	}
	return g.render(o.format, t)
}

// listTarget splits the arguments of a list command: the remote, if the first
// argument names one, and the filters.
func (g *global) listTarget(ctx context.Context, args []string) (*client.Client, []string, error) {
	remote := ""
	if len(args) > 0 && strings.Contains(args[0], ":") && !strings.Contains(args[0], "=") {
		name := ""
		remote, name, _ = strings.Cut(args[0], ":")
		remote += ":"
		if args = args[1:]; name != "" {
			args = append([]string{name}, args...)
		}
	}
	c, _, err := g.target(ctx, remote)
	return c, args, err
}

// imageFits reports whether an image fits one filter.
func imageFits(img api.Image, filter string) bool {
	if key, value, ok := strings.Cut(filter, "="); ok {
		switch key {
		case "type":
			return strings.EqualFold(img.Type, value)
		case "architecture":
			return strings.EqualFold(img.Architecture, value)
		}
		return strings.EqualFold(img.Properties[key], value) && value != ""
	}
	return strings.HasPrefix(img.Fingerprint, filter) || slices.ContainsFunc(img.Aliases, func(a api.ImageAlias) bool {
		return strings.Contains(a.Name, filter)
	})
}

func imageCells(columns string) (titles []string, cells []func(api.Image) string, err error) {
	add := func(title string, cell func(api.Image) string) {
		titles, cells = append(titles, title), append(cells, cell)
	}
	for _, r := range strings.ReplaceAll(columns, ",", "") {
		switch r {
		case 'l':
			add("ALIAS", shortestAlias)
		case 'L':
			add("ALIASES", allAliases)
		case 'f':
			add("FINGERPRINT", func(i api.Image) string { return shortFingerprint(i.Fingerprint) })
		case 'F':
			add("FINGERPRINT", func(i api.Image) string { return i.Fingerprint })
		case 'p':
			add("PUBLIC", func(i api.Image) string { return strings.ToLower(yesNo(i.Public)) })
		case 'd':
			add("DESCRIPTION", func(i api.Image) string { return i.Properties["description"] })
		case 'a':
			add("ARCHITECTURE", func(i api.Image) string { return i.Architecture })
		case 't':
			add("TYPE", func(i api.Image) string { return strings.ToUpper(i.Type) })
		case 's':
			add("SIZE", func(i api.Image) string { return imageSize(i.Size) })
		case 'u':
			add("UPLOAD DATE", func(i api.Image) string { return i.UploadedAt.UTC().Format("Jan 2, 2006 at 3:04pm (MST)") })
		default:
			return nil, nil, api.Errorf(api.Invalid, "unknown column %q in %q", r, columns).
				WithHint("croft image list --help shows the columns")
		}
	}
	return titles, cells, nil
}

func shortestAlias(img api.Image) string {
	if len(img.Aliases) == 0 {
		return ""
	}
	short := img.Aliases[0].Name
	for _, a := range img.Aliases {
		if len(a.Name) < len(short) {
			short = a.Name
		}
	}
	if n := len(img.Aliases) - 1; n > 0 {
		return fmt.Sprintf("%s (%d more)", short, n)
	}
	return short
}

func allAliases(img api.Image) string {
	var all []string
	for _, a := range img.Aliases {
		all = append(all, a.Name)
	}
	return strings.Join(all, "\n")
}
