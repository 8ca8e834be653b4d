package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

// Each instance keeps the metadata.yaml and the templates of its image beside
// its root, as LXD does: they are applied again on rename and copy, long after
// the image may be gone.

func writeMetadata(dir string, img *model.Image) error {
	text, err := yaml.Marshal(img.Metadata)
	if err != nil {
		return fmt.Errorf("encode metadata.yaml: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "metadata.yaml"), text, 0o600); err != nil {
		return err
	}
	if len(img.Templates) == 0 {
		return nil
	}
	templates := filepath.Join(dir, "templates")
	if err := os.Mkdir(templates, 0o700); err != nil {
		return err
	}
	for name, data := range img.Templates {
		if err := image.CheckTemplateName(name); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(templates, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func readMetadata(dir string) (*api.ImageMetadata, error) {
	data, err := os.ReadFile(filepath.Join(dir, "metadata.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return image.ParseMetadata(data)
}

// Metadata is the image metadata that an instance keeps.
func (e *Engine) Metadata(ctx context.Context, project, name string) (api.ImageMetadata, string, error) {
	l, err := e.load(ctx, project, name, false)
	if err != nil {
		return api.ImageMetadata{}, "", err
	}
	driver, err := e.Pools.Pool(ctx, l.Pool)
	if err != nil {
		return api.ImageMetadata{}, "", err
	}
	root, err := driver.Root(ctx, storage.Ref{Project: project, Name: name})
	if err != nil {
		return api.ImageMetadata{}, "", err
	}
	md, err := readMetadata(root.Dir)
	if err != nil {
		return api.ImageMetadata{}, "", err
	}
	if md == nil {
		return api.ImageMetadata{}, "", api.Errorf(api.NotFound, "instance %s has no metadata", name)
	}
	return *md, etag(l.rev), nil
}

// applyTemplates writes the image's templates into the root of an instance that
// is about to start: those for what happened to it since the last start, and
// those for every start.
func (e *Engine) applyTemplates(ctx context.Context, driver storage.Driver, l *loaded) error {
	root, err := driver.Root(ctx, storage.Ref{Project: l.Project, Name: l.Name})
	if err != nil {
		return err
	}
	md, err := readMetadata(root.Dir)
	if err != nil {
		return err
	}
	pending := l.local.Volatile["volatile.apply_template"]
	for _, trigger := range []string{pending, image.OnStart} {
		if trigger == "" || !wants(md, trigger) {
			continue
		}
		if err := e.applyTrigger(ctx, root, md, trigger, l); err != nil {
			return fmt.Errorf("apply the templates of instance %s: %w", l.Name, err)
		}
	}
	if pending == "" {
		return nil
	}
	// Noted before the start: templates are applied once, whatever becomes of it.
	return e.updateLocal(ctx, l.Project, l.Name, "", func(local *model.Local, _ store.Tx) {
		delete(local.Volatile, "volatile.apply_template")
	})
}

func wants(md *api.ImageMetadata, trigger string) bool {
	if md == nil {
		return false
	}
	for _, t := range md.Templates {
		if slices.Contains(t.When, trigger) {
			return true
		}
	}
	return false
}

func (e *Engine) applyTrigger(ctx context.Context, root storage.Root, md *api.ImageMetadata, trigger string, l *loaded) error {
	sources := map[string][]byte{}
	for _, t := range md.Templates {
		if !slices.Contains(t.When, trigger) {
			continue
		}
		if err := image.CheckTemplateName(t.Template); err != nil {
			return err
		}
		data, err := os.ReadFile(filepath.Join(root.Dir, "templates", t.Template))
		if err != nil {
			return err
		}
		sources[t.Template] = data
	}
	tree, err := storage.OpenRoot(ctx, root, e.stageDir())
	if err != nil {
		return err
	}
	defer tree.Close()
	return e.Templates.ApplyTemplates(ctx, tree, md, sources, trigger, image.TemplateContext{
		Instance: map[string]string{
			"name": l.Name, "architecture": l.Architecture, "type": api.InstanceTypeContainer,
			"privileged": strconv.FormatBool(option.Bool(l.config, "security.privileged")),
			"ephemeral":  strconv.FormatBool(l.Ephemeral),
		},
		Config: l.config, Devices: l.devices,
	})
}
