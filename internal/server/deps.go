package server

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/catalog"
	"github.com/croft-project/croft/internal/event"
	"github.com/croft-project/croft/internal/operation"
)

// Deps are the services behind the API. All are required unless noted.
type Deps struct {
	Instances  Instances
	Profiles   Profiles
	Images     Images
	Aliases    Aliases
	Pools      Pools
	Networks   Networks
	Config     Config
	Operations Operations
	Events     Events

	// Environment describes host and daemon for GET /1.0. The server fills in
	// the project.
	Environment func(ctx context.Context) (api.ServerEnvironment, error)
	// Ready is closed when the daemon has recovered and restored what ran before.
	Ready <-chan struct{}
	// Shutdown begins to stop the instances (at once, with force) and then the
	// daemon. It may return before that is done.
	Shutdown func(ctx context.Context, force bool) error
	// AllowOrigin tells whether web pages of an origin may use the API. nil
	// allows none, which is right for the unix socket.
	AllowOrigin func(origin string) bool
	Product     string       // value of the Server header, such as "Croft/0.1"; empty sends none
	Log         *slog.Logger // nil discards
}

// Instances is the engine's part about instances. In all interfaces of this
// file project is never empty; an etag is opaque; ifMatch "" means not given;
// mutate gets a private copy, may run more than once, and its error is passed on.
type Instances interface {
	List(ctx context.Context, project string) ([]api.Instance, error)
	ListFull(ctx context.Context, project string) ([]api.InstanceFull, error)
	Get(ctx context.Context, project, name string) (inst api.Instance, etag string, err error)
	GetFull(ctx context.Context, project, name string) (inst api.InstanceFull, etag string, err error)
	State(ctx context.Context, project, name string) (api.InstanceState, error)

	Create(ctx context.Context, project string, req api.InstancesPost) (*operation.Op, error)
	Update(ctx context.Context, project, name, ifMatch string, mutate func(*api.InstancePut) error) error
	Replace(ctx context.Context, project, name, ifMatch string, put api.InstancePut) (*operation.Op, error)
	Rename(ctx context.Context, project, name string, req api.InstancePost) (*operation.Op, error)
	Delete(ctx context.Context, project, name string) (*operation.Op, error)
	SetState(ctx context.Context, project, name string, req api.InstanceStatePut) (*operation.Op, error)
	SetStateAll(ctx context.Context, project string, req api.InstanceStatePut) (*operation.Op, error)
	Exec(ctx context.Context, project, name string, req api.InstanceExecPost) (*operation.Op, error)

	GetFile(ctx context.Context, project, name, path string) (*File, error)
	PutFile(ctx context.Context, project, name, path string, put FilePut) error
	DeleteFile(ctx context.Context, project, name, path string) error

	Logs(ctx context.Context, project, name string) ([]string, error)
	OpenLog(ctx context.Context, project, name, file string) (*os.File, error)
	DeleteLog(ctx context.Context, project, name, file string) error
	Metadata(ctx context.Context, project, name string) (meta api.ImageMetadata, etag string, err error)
}

// Profiles is the engine's part about profiles.
type Profiles interface {
	ListProfiles(ctx context.Context, project string) ([]api.Profile, error)
	GetProfile(ctx context.Context, project, name string) (p api.Profile, etag string, err error)
	CreateProfile(ctx context.Context, project string, req api.ProfilesPost) error
	UpdateProfile(ctx context.Context, project, name, ifMatch string, mutate func(*api.ProfilePut) error) error
	RenameProfile(ctx context.Context, project, from, to string) error
	DeleteProfile(ctx context.Context, project, name string) error
}

// Images is the catalog's part about images.
type Images interface {
	List(ctx context.Context, project string) ([]api.Image, error)
	Get(ctx context.Context, project, prefix string) (img api.Image, etag string, err error)
	// Import takes over the files of the upload, also when it fails.
	Import(ctx context.Context, project string, up catalog.Upload) (*operation.Op, error)
	TempDir() string
	CreateFrom(ctx context.Context, project string, req api.ImagesPost) (*operation.Op, error)
	Update(ctx context.Context, project, fingerprint, ifMatch string, mutate func(*api.ImagePut) error) error
	Delete(ctx context.Context, project, fingerprint string) (*operation.Op, error)
	Export(ctx context.Context, project, fingerprint string) (catalog.Export, error)
}

// Aliases is the catalog's part about image aliases.
type Aliases interface {
	ListAliases(ctx context.Context, project string) ([]api.ImageAliasesEntry, error)
	GetAlias(ctx context.Context, project, name string) (a api.ImageAliasesEntry, etag string, err error)
	CreateAlias(ctx context.Context, project string, req api.ImageAliasesPost) error
	UpdateAlias(ctx context.Context, project, name, ifMatch string, mutate func(*api.ImageAliasesEntryPut) error) error
	RenameAlias(ctx context.Context, project, from, to string) error
	DeleteAlias(ctx context.Context, project, name string) error
}

// Pools is the inventory's part about storage pools.
type Pools interface {
	ListPools(ctx context.Context) ([]api.StoragePool, error)
	GetPool(ctx context.Context, name string) (p api.StoragePool, etag string, err error)
	CreatePool(ctx context.Context, req api.StoragePoolsPost) error
	UpdatePool(ctx context.Context, name, ifMatch string, mutate func(*api.StoragePoolPut) error) error
	DeletePool(ctx context.Context, name string) error
	PoolResources(ctx context.Context, name string) (api.ResourcesStoragePool, error)
	Volumes(ctx context.Context, pool string) ([]api.StorageVolume, error)
}

// Networks is the inventory's part about networks.
type Networks interface {
	ListNetworks(ctx context.Context) ([]api.Network, error)
	GetNetwork(ctx context.Context, name string) (n api.Network, etag string, err error)
	CreateNetwork(ctx context.Context, req api.NetworksPost) error
	UpdateNetwork(ctx context.Context, name, ifMatch string, mutate func(*api.NetworkPut) error) error
	RenameNetwork(ctx context.Context, from, to string) error
	DeleteNetwork(ctx context.Context, name string) error
	Leases(ctx context.Context, name string) ([]api.NetworkLease, error)
	NetworkState(ctx context.Context, name string) (api.NetworkState, error)
}

// Config is the inventory's part about the server's own configuration. mutate
// changes the map that it gets.
type Config interface {
	GetServerConfig(ctx context.Context) (config map[string]string, etag string, err error)
	UpdateServerConfig(ctx context.Context, ifMatch string, mutate func(config map[string]string) error) error
}

// Operations is *operation.Manager.
type Operations interface {
	Get(id string) (*operation.Op, error)
	List(project string) []*operation.Op
	Wait(ctx context.Context, id string, timeout time.Duration) (*operation.Op, error)
	Cancel(id string, by *api.EventLifecycleRequestor) error
	Connect(ctx context.Context, id, secret string, w http.ResponseWriter, r *http.Request) error
}

// Events is *event.Hub.
type Events interface {
	Subscribe(ctx context.Context, f event.Filter) (*event.Subscription, error)
}
