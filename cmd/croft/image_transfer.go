package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

type imageImportOptions struct {
	aliases []string
	public  bool
}

func newImageImport(g *global) *cobra.Command {
	var o imageImportOptions
	cmd := &cobra.Command{
		Use: "import FILE [ROOTFS] [REMOTE:] [KEY=VALUE...]", Short: "Import an image", Args: args(1, -1),
		Long: `Import an image

FILE is a tarball with metadata and root filesystem, or with the metadata
only; then ROOTFS is a tarball or a squashfs of the root filesystem. The
KEY=VALUE arguments become properties of the image.`,
		Example: "  croft image import meta.tar.xz rootfs.squashfs --alias web os=debian",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runImageImport(cmd.Context(), g, o, args)
		},
	}
	cmd.Flags().StringArrayVar(&o.aliases, "alias", nil, "name of the image; may be repeated")
	cmd.Flags().BoolVar(&o.public, "public", false, "let everybody see the image")
	return cmd
}

// importArgs sorts the arguments of import by what they look like.
func importArgs(args []string) (files []string, remote string, props configMap, err error) {
	props = configMap{}
	for _, a := range args {
		k, v, isProp := strings.Cut(a, "=")
		switch {
		case len(files) > 0 && isProp && k != "":
			props[k] = v
		case len(files) > 0 && strings.HasSuffix(a, ":"):
			remote = a
		case len(files) < 2:
			files = append(files, a)
		default:
			return nil, "", nil, api.Errorf(api.Invalid, "unexpected argument %q: there are two files already", a)
		}
	}
	return files, remote, props, nil
}

func runImageImport(ctx context.Context, g *global, o imageImportOptions, args []string) error {
	files, remote, props, err := importArgs(args)
	if err != nil {
		return err
	}
	if strings.Contains(files[0], "://") {
		return api.Errorf(api.Unsupported, "import from a URL (%s) is not supported yet", files[0])
	}
	c, _, err := g.target(ctx, remote)
	if err != nil {
		return err
	}
	up := client.ImageUpload{Public: o.public, Properties: props, MetaName: filepath.Base(files[0])}
	p := g.newProgress()
	defer p.clear()
	for i, name := range files {
		f, err := openImageFile(name)
		if err != nil {
			return err
		}
		defer f.Close()
		size := int64(0)
		if info, err := f.Stat(); err == nil {
			size = info.Size()
		}
		body := g.metered(f, p, "Sending "+filepath.Base(name), size)
		if i == 0 {
			up.Meta = body
		} else {
			up.Rootfs, up.RootfsName = body, filepath.Base(name)
		}
	}
	op, err := c.UploadImage(ctx, up)
	if err != nil {
		return err
	}
	p.clear()
	done, err := g.wait(ctx, op, "Importing the image")
	if err != nil {
		return err
	}
	fp, _ := done.Metadata["fingerprint"].(string)
	if err := ensureAliases(ctx, c, o.aliases, fp); err != nil {
		return err
	}
	g.printf("Image imported with fingerprint: %s\n", fp)
	return nil
}

func openImageFile(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "cannot import: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, api.Errorf(api.Unsupported, "import of a directory (%s) is not supported yet", name)
	}
	return f, nil
}

// ensureAliases gives an image its names; a name that another image has moves
// over.
func ensureAliases(ctx context.Context, c *client.Client, aliases []string, fingerprint string) error {
	for _, name := range aliases {
		old, etag, err := c.ImageAlias(ctx, name)
		switch {
		case err == nil:
			put := old.ImageAliasesEntryPut
			put.Target = fingerprint
			err = c.UpdateImageAlias(ctx, name, put, etag)
		case errors.Is(err, api.NotFound):
			post := api.ImageAliasesPost{}
			post.Name, post.Target = name, fingerprint
			err = c.CreateImageAlias(ctx, post)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func newImageExport(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "export [REMOTE:]IMAGE [TARGET]", Short: "Export an image to files", Args: args(1, 2),
		Long: `Export an image to files

TARGET is a directory (the current one by default), the name of the files
without ending, or - for standard output.`,
		ValidArgsFunction: g.complete(false, imageNames, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			target := "."
			if len(args) > 1 {
				target = args[1]
			}
			return runImageExport(cmd.Context(), g, args[0], target)
		},
	}
}

func runImageExport(ctx context.Context, g *global, arg, target string) error {
	c, img, _, err := g.openImage(ctx, arg)
	if err != nil {
		return err
	}
	p := g.newProgress()
	defer p.clear()
	err = c.ExportImage(ctx, img.Fingerprint, func(part client.ImagePart) error {
		if target == "-" {
			if part.Field != "" {
				return api.Errorf(api.Invalid, "image %s has two files and cannot go to standard output", arg)
			}
			_, err := io.Copy(g.stdout, part.Body)
			return err
		}
		body := g.metered(part.Body, p, "Exporting the image", max(part.Size, 0))
		return saveImagePart(exportName(target, img.Fingerprint, part), body)
	})
	if err != nil {
		return err
	}
	p.clear()
	if target != "-" {
		g.say("Image exported successfully!")
	}
	return nil
}

// exportName is the local name of an exported file: the ending is that of the
// server's name, the rest the user's choice or the fingerprint.
func exportName(target, fingerprint string, part client.ImagePart) string {
	ending := filepath.Ext(part.Name)
	if i := strings.Index(part.Name, ".tar"); i >= 0 {
		ending = part.Name[i:]
	}
	if info, err := os.Stat(target); err == nil && info.IsDir() || strings.HasSuffix(target, "/") {
		name := fingerprint + ending
		if part.Field == "metadata" {
			name = "meta-" + name
		}
		return filepath.Join(target, name)
	}
	if strings.HasPrefix(part.Field, "rootfs") {
		return target + ".root" + ending
	}
	return target + ending
}

// saveImagePart writes a file under a temporary name first, so that a broken
// download does not look like an image.
func saveImagePart(name string, body io.Reader) error {
	tmp := name + ".part"
	f, err := os.Create(tmp)
	if err != nil {
		return api.Errorf(api.Invalid, "cannot export: %w", err)
	}
	defer os.Remove(tmp)
	_, err = io.Copy(f, body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
