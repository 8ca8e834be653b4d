package catalog

import (
	"context"
	"os"
	"strings"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/operation"
)

// buildPrefix begins the names of build directories in the upload directory.
const buildPrefix = "build-"

// CreateFrom makes an image from something other than an upload. This version
// builds images from a distribution's packages; without aliases in the request
// the image gets the distribution's name as its alias. Errors: Invalid, naming
// the field; Unsupported for the sources that LXD knows besides; Conflict for an
// alias that is taken.
func (c *Catalog) CreateFrom(ctx context.Context, project string, req api.ImagesPost) (*operation.Op, error) {
	if err := checkSource(req.Source); err != nil {
		return nil, err
	}
	dist := req.Source.Distribution
	if err := c.deps.Builder.Check(dist); err != nil {
		return nil, err
	}
	up := Upload{
		Filename: req.Filename, Public: req.Public, AutoUpdate: req.AutoUpdate,
		Properties: req.Properties, Profiles: req.Profiles, Aliases: req.Aliases,
	}
	if len(up.Aliases) == 0 {
		up.Aliases = []api.ImageAlias{{Name: dist}}
	}
	if up.Filename == "" {
		up.Filename = strings.ReplaceAll(dist, "/", "-")
	}
	if err := c.checkAliases(ctx, project, up.Aliases); err != nil {
		return nil, err
	}
	return c.deps.Ops.Start(operation.Spec{
		Project: project, Description: "Building image", Cancel: true, Requestor: auth.From(ctx).Requestor(),
		Run: func(ctx context.Context, op *operation.Op) error {
			return c.build(ctx, op, project, dist, req.Source.Mirror, up)
		},
	})
}

func checkSource(src *api.ImagesPostSource) error {
	if src == nil {
		return api.Errorf(api.Invalid, "image source is missing: send the image's files, or a source of type build")
	}
	switch src.Type {
	case "build":
		return nil
	case "image", "url", "instance", "container", "snapshot", "virtual-machine":
		return api.Errorf(api.Unsupported, "image source type %q is not supported by this version; allowed is build", src.Type)
	}
	return api.Errorf(api.Invalid, "image source type %q is not known; allowed is build", src.Type)
}

func (c *Catalog) build(ctx context.Context, op *operation.Op, project, dist, mirror string, up Upload) error {
	dir, err := os.MkdirTemp(c.TempDir(), buildPrefix)
	if err != nil {
		return wrap(diskError(err), "build image %s", dist)
	}
	defer func() {
		// Also after a cancellation: nothing of a build may stay.
		if err := linux.RemoveAll(context.WithoutCancel(ctx), dir); err != nil {
			op.Log().Warn("directory of an image build could not be removed", "path", dir, "err", err)
		}
	}()
	up.Files, err = c.deps.Builder.Build(ctx, dist, mirror, dir, func(text string) {
		op.ExtendMetadata(map[string]any{"build_progress": text})
	})
	if err != nil {
		return wrap(err, "build image %s", dist)
	}
	return c.add(ctx, op, project, up, true)
}
