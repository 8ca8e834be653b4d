package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/croft-project/croft/internal/catalog"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/instance"
	"github.com/croft-project/croft/internal/inventory"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/server"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

// EngineDeps is what an engine gets from the daemon.
type EngineDeps struct {
	Store     store.Store
	Ops       *operation.Manager
	Locks     *operation.Locks
	Images    *catalog.Catalog
	Inventory *inventory.Inventory
	Tools     *image.Tools
	StateDir  string
	Log       *slog.Logger
	Now       func() time.Time
}

// NewEngine makes the engine of a daemon.
type NewEngine func(EngineDeps) (Engine, error)

// runtimeExe is started for the helpers: this very program, also after its file
// has been replaced by an upgrade.
const runtimeExe = "/proc/self/exe"

// newEngine makes the real engine.
func newEngine(d EngineDeps) (Engine, error) {
	cgroups, err := linux.FindCgroups()
	if err != nil {
		return nil, fmt.Errorf("read the host's control groups: %w", err)
	}
	e, err := instance.New(instance.Deps{
		Store: d.Store, Ops: d.Ops, Locks: d.Locks, Images: d.Images, Pools: volumes{d.Inventory}, Networks: d.Inventory,
		Templates: d.Tools, Cgroups: cgroups, StateDir: d.StateDir, Log: d.Log, Now: d.Now,
		Runtime: &lxc.Runtime{
			Exe: runtimeExe, LXCPath: instance.LXCPath(d.StateDir), BinDir: filepath.Join(d.StateDir, "run", "bin"),
		},
	})
	if err != nil {
		return nil, err
	}
	return engine{e}, nil
}

// engine gives the server its own types for files.
type engine struct{ *instance.Engine }

func (e engine) GetFile(ctx context.Context, project, name, path string) (*server.File, error) {
	f, err := e.Engine.GetFile(ctx, project, name, path)
	return (*server.File)(f), err
}

func (e engine) PutFile(ctx context.Context, project, name, path string, put server.FilePut) error {
	return e.Engine.PutFile(ctx, project, name, path, instance.FilePut(put))
}

// volumes gives the engine its pools as drivers.
type volumes struct{ *inventory.Inventory }

func (v volumes) Pool(ctx context.Context, name string) (storage.Driver, error) {
	p, err := v.Inventory.Pool(ctx, name)
	if err != nil {
		return nil, err // not p: an interface with a nil pointer in it is not nil
	}
	return p, nil
}

// builder gives the catalog the images that can be built.
type builder struct{}

func (builder) Check(distribution string) error {
	_, err := image.ParseBuild(distribution)
	return err
}

func (builder) Build(ctx context.Context, distribution, mirror, dir string, progress func(string)) ([]string, error) {
	req, err := image.ParseBuild(distribution)
	if err != nil {
		return nil, err
	}
	req.Mirror = mirror
	b := &image.Builder{Progress: progress}
	built, err := b.Build(ctx, req, dir)
	return []string{built.Metadata, built.RootFS}, err
}

// newTools makes the tools for untrusted image files.
func newTools() *image.Tools { return &image.Tools{} }
