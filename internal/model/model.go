// Package model holds the records that Croft stores and the pure rules about
// them: names, keys, expansion of profiles, phases. It does no input or output.
//
// A stored record is identity, the API's writable part, and bookkeeping, so
// that there is no third shape to map between the wire and the disk.
package model

import (
	"maps"
	"time"

	"github.com/croft-project/croft/api"
)

// DefaultProject is the project that always exists.
const DefaultProject = "default"

// Instance is the shared record of a container. Runtime facts are in [Local].
type Instance struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	UUID    string `json:"uuid"`
	api.InstancePut
	Phase       Phase     `json:"phase"`
	RenameTo    string    `json:"rename_to,omitempty"` // set in phase Renaming
	Pool        string    `json:"pool"`                // pool of the root volume
	Fingerprint string    `json:"fingerprint"`         // image it was made from, or ""
	CreatedAt   time.Time `json:"created_at"`
}

// Key is the instance's key in the store.
func (i *Instance) Key() string { return InstanceKey(i.Project, i.Name) }

// Local is the host's own knowledge of an instance: what the API shows as
// volatile.* keys and what start-up needs to restore the power state. It lives
// in the host-local part of the store.
type Local struct {
	Volatile   map[string]string `json:"volatile"`
	Power      Power             `json:"power"`
	BootID     string            `json:"boot_id"` // boot in which Power was last set to Running
	LastUsedAt time.Time         `json:"last_used_at"`
}

// Clone gives a copy that may be changed.
func (l *Local) Clone() *Local {
	c := *l
	c.Volatile = maps.Clone(l.Volatile)
	if c.Volatile == nil {
		c.Volatile = map[string]string{}
	}
	return &c
}

// Power is the power state that an instance should have.
type Power string

// The power states, written as LXD's volatile.last_state.power.
const (
	PowerStopped Power = "STOPPED"
	PowerRunning Power = "RUNNING"
)

// Profile is the record of a profile.
type Profile struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	api.ProfilePut
}

// Key is the profile's key in the store.
func (p *Profile) Key() string { return ProfileKey(p.Project, p.Name) }

// Image is the record of an image. Its files are images/FINGERPRINT and, for a
// split image, images/FINGERPRINT.rootfs in the state directory.
type Image struct {
	Project     string `json:"project"`
	Fingerprint string `json:"fingerprint"`
	api.ImagePut
	Filename     string            `json:"filename"`
	Architecture string            `json:"architecture"`
	Size         int64             `json:"size"`
	Split        bool              `json:"split"`    // metadata and rootfs are two files
	Squashfs     bool              `json:"squashfs"` // the rootfs is a squashfs
	Cached       bool              `json:"cached"`
	Metadata     api.ImageMetadata `json:"metadata"`
	Templates    map[string][]byte `json:"templates"` // source text by file name
	CreatedAt    time.Time         `json:"created_at"`
	UploadedAt   time.Time         `json:"uploaded_at"`
	LastUsedAt   time.Time         `json:"last_used_at"`
}

// Key is the image's key in the store.
func (i *Image) Key() string { return ImageKey(i.Project, i.Fingerprint) }

// Alias is the record of an image alias. Names may hold slashes.
type Alias struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	api.ImageAliasesEntryPut
}

// Key is the alias's key in the store.
func (a *Alias) Key() string { return AliasKey(a.Project, a.Name) }

// Pool is the record of a storage pool.
type Pool struct {
	Name   string `json:"name"`
	Driver string `json:"driver"`
	api.StoragePoolPut
	Phase Phase `json:"phase"`
}

// Key is the pool's key in the store.
func (p *Pool) Key() string { return PoolKey(p.Name) }

// Network is the record of a managed network.
type Network struct {
	Name string `json:"name"`
	Type string `json:"type"`
	api.NetworkPut
	Phase Phase `json:"phase"`
}

// Key is the network's key in the store.
func (n *Network) Key() string { return NetworkKey(n.Name) }

// Server is the record of the daemon's own configuration.
type Server struct {
	Config map[string]string `json:"config"`
}

// Keys of the store. A prefix ends in a slash; list with it. Names cannot hold
// slashes, except those of aliases, which come last in their keys.
const (
	ServerKey      = "server"
	PoolPrefix     = "pool/"
	NetworkPrefix  = "network/"
	ImagePrefix    = "image/"
	AliasPrefix    = "alias/"
	InstancePrefix = "instance/"
	ProfilePrefix  = "profile/"
	LocalPrefix    = "local/instance/"
)

// InstanceKey is the key of an instance's shared record.
func InstanceKey(project, name string) string { return InstancePrefix + project + "/" + name }

// LocalKey is the key of an instance's host-local record.
func LocalKey(project, name string) string { return LocalPrefix + project + "/" + name }

// ProfileKey is the key of a profile.
func ProfileKey(project, name string) string { return ProfilePrefix + project + "/" + name }

// ImageKey is the key of an image.
func ImageKey(project, fingerprint string) string { return ImagePrefix + project + "/" + fingerprint }

// AliasKey is the key of an image alias.
func AliasKey(project, name string) string { return AliasPrefix + project + "/" + name }

// PoolKey is the key of a pool.
func PoolKey(name string) string { return PoolPrefix + name }

// NetworkKey is the key of a managed network.
func NetworkKey(name string) string { return NetworkPrefix + name }

// DirName is the directory of an instance below containers/, logs/ and
// devices/, and its name for liblxc: the instance's own name in the default
// project, else PROJECT_NAME, as in LXD.
func DirName(project, name string) string {
	if project == "" || project == DefaultProject {
		return name
	}
	return project + "_" + name
}
