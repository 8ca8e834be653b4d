package instance

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

// Deps are what the engine works with. All are required unless noted.
type Deps struct {
	Store     store.Store
	Ops       *operation.Manager
	Locks     *operation.Locks
	Images    Images
	Pools     Pools
	Networks  Networks
	Templates Templates
	Runtime   Runtime
	Cgroups   *linux.Cgroups
	StateDir  string
	IDFile    string // host-wide register of id ranges; empty for the default
	RunDir    string // empty for the constant of that name
	Log       *slog.Logger
	Now       func() time.Time
}

// Images finds images for new instances.
type Images interface {
	// Resolve finds the image that a source of type image names, by alias,
	// fingerprint or properties.
	Resolve(ctx context.Context, project string, src api.InstanceSource) (*model.Image, error)
	// StorageImage is what a storage driver needs to know of an image.
	StorageImage(*model.Image) storage.Image
	// Use keeps an image's files from being deleted until release is called.
	Use(ctx context.Context, project, fingerprint string) (release func(), err error)
	// NoteUse records in a transaction that an image was used.
	NoteUse(tx store.Tx, project, fingerprint string) error
}

// Pools gives the driver of a storage pool.
type Pools interface {
	Pool(ctx context.Context, name string) (storage.Driver, error)
}

// Networks serves the interfaces of instances.
type Networks interface {
	// Network gives the record of a managed network.
	Network(ctx context.Context, name string) (*model.Network, error)
	SetLease(ctx context.Context, name string, l network.StaticLease) error
	DeleteLease(ctx context.Context, name string, l network.StaticLease) error
}

// Templates applies image templates, which are untrusted text.
type Templates interface {
	// ApplyTemplates writes the templates for trigger below root; sources are
	// their texts by name.
	ApplyTemplates(ctx context.Context, root *os.File, md *api.ImageMetadata, sources map[string][]byte, trigger string, c image.TemplateContext) error
}

// Runtime starts containers and the commands in them.
type Runtime interface {
	Start(ctx context.Context, req lxc.StartRequest) (lxc.Pids, error)
	Exec(ctx context.Context, req lxc.ExecRequest) (*lxc.Session, error)
	RemoveLock(name string)
}
