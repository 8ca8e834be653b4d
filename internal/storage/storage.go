// Package storage keeps the root file systems of instances in pools.
//
// Terms: a pool is a place with a driver; a volume is the root of one instance in
// a pool; an image is what volumes are cloned from, kept once for each pool that
// uses it. Everything on disk is stored unshifted: the container's root is uid 0
// on disk, whatever ids the container has on the host. The map is applied when
// the root is mounted.
//
// A driver says how a volume is to be mounted ([Driver.Root], plain data) and
// never mounts it itself. [Stage] makes the mounts of a container in a private
// mount namespace, [OpenRoot] those for looking into a stopped one. The host's
// mount table stays as it is.
//
//	<state>/storage-pools/POOL/images/FINGERPRINT/      read-only layers
//	<state>/storage-pools/POOL/containers/[PROJECT_]NAME/   one volume, mode 0700
//
// Volumes appear and vanish by one rename each. Names that begin with ".tmp-"
// are being made, those with ".del-" are being removed; [Driver.Recover] removes
// both after a crash.
//
// Callers hold a lock for each volume they change; drivers only guard what
// volumes share.
package storage

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/croft-project/croft/api"
)

// Driver is one way of keeping volumes. All methods are safe for concurrent use
// on different volumes; EnsureImage and DeleteImage are so on the same image too.
type Driver interface {
	Info() Info

	// Check reports whether the driver works here, by trying.
	// Errors: Unsupported, with the reason.
	Check(ctx context.Context) error
	// Create lays out an empty pool.
	Create(ctx context.Context) error
	// Recover finishes what a crash interrupted. It is called once, before any
	// other method but Check.
	Recover(ctx context.Context) error
	// Delete removes the pool with its images. Errors: InUse while it has volumes.
	Delete(ctx context.Context) error

	// EnsureImage brings an image into the pool unless it is there.
	EnsureImage(ctx context.Context, img Image) error
	// DeleteImage gives an image up. The data goes when no volume needs it any
	// more. An absent image is no error.
	DeleteImage(ctx context.Context, fingerprint string) error
	// Images lists the fingerprints that EnsureImage has nothing left to do for.
	Images(ctx context.Context) ([]string, error)

	// Clone makes a volume from an image, calling EnsureImage. Errors: Conflict.
	Clone(ctx context.Context, ref Ref, img Image) error
	// CreateEmpty makes a volume with an empty root. Errors: Conflict.
	CreateEmpty(ctx context.Context, ref Ref) error
	// Copy makes a volume with the content of another one, which is stopped or
	// frozen. Errors: NotFound, Conflict.
	Copy(ctx context.Context, src, dst Ref) error
	// Rename gives a volume another name. Errors: NotFound, Conflict.
	Rename(ctx context.Context, from, to Ref) error
	// DeleteVolume removes a volume. The name is free when it returns; the data
	// goes in the background. Errors: NotFound.
	DeleteVolume(ctx context.Context, ref Ref) error
	// Volumes lists what is in the pool.
	Volumes(ctx context.Context) ([]Ref, error)
	// Usage is the number of bytes on disk that belong to the volume alone.
	Usage(ctx context.Context, ref Ref) (int64, error)
	// Root tells how to mount a volume. Errors: NotFound.
	Root(ctx context.Context, ref Ref) (Root, error)
}

// Info describes a driver as the API reports it.
type Info struct {
	Name    string
	Version string // of what the driver builds on; "1" when that is this program
	Remote  bool   // the pool is reached through a network
	// Layered tells that Clone and Copy share the image's data.
	Layered bool
}

// Image is what a driver needs to know of an image.
type Image struct {
	Fingerprint string // SHA-256 in lower-case hexadecimal
	RootfsFile  string // the squashfs, or the tarball that holds the root
	Squashfs    bool   // RootfsFile is a squashfs
	// Unpack writes the image's root file system into the existing directory dest,
	// unshifted, from RootfsFile. It may be nil for a squashfs, which is then used
	// only by mounting it.
	Unpack func(ctx context.Context, dest string) error
}

// Ref names the volume of an instance.
type Ref struct{ Project, Name string }

// DefaultProject is the project whose instances have no prefix on disk.
const DefaultProject = "default"

// String is the directory name: NAME, or PROJECT_NAME outside the default project.
func (r Ref) String() string {
	if r.Project == "" || r.Project == DefaultProject {
		return r.Name
	}
	return r.Project + "_" + r.Name
}

// ParseRef is the inverse of [Ref.String]. Instance names have no underscore.
func ParseRef(dir string) Ref {
	if i := strings.LastIndexByte(dir, '_'); i > 0 {
		return Ref{Project: dir[:i], Name: dir[i+1:]}
	}
	return Ref{Project: DefaultProject, Name: dir}
}

// check refuses names that could lead out of the pool or be taken for something
// else in it. The API checks names more strictly; this is the last line.
func (r Ref) check() error {
	for _, s := range []string{r.Project, r.Name} {
		if strings.ContainsAny(s, "/\x00") || strings.HasPrefix(s, ".") || len(s) > 100 {
			return api.Errorf(api.Invalid, "volume %q: not a valid name", r.String())
		}
	}
	if r.Name == "" || strings.Contains(r.Name, "_") {
		return api.Errorf(api.Invalid, "volume %q: the instance's name must not be empty or contain an underscore", r.String())
	}
	return nil
}

// Layer is one read-only directory tree below a volume's own changes.
type Layer struct {
	Path     string // absolute; a directory, or a file system image
	Squashfs bool   // Path is a squashfs image, mounted through its shared loop device
}

// Root says how the root of a volume is put together. [Stage] and [OpenRoot]
// carry it out.
type Root struct {
	Dir string // the volume's directory; Bind, Upper and Work are names in it

	// Bind is set when the root is a plain directory, else Layers, Upper and Work
	// describe an overlay.
	Bind        string
	Layers      []Layer // topmost first; at least one
	Upper, Work string
}

// Config is what a driver is made from.
type Config struct {
	Pool  string // the pool's name, for messages
	Dir   string // the pool's directory
	Trash *Trash // takes what is to be removed
	Log   *slog.Logger
}

// Constructor makes a driver. It does no I/O.
type Constructor func(Config) Driver

func (c Config) notFound(ref Ref) error {
	return api.Errorf(api.NotFound, "volume %s: not found in storage pool %s", ref, c.Pool)
}

func (c Config) conflict(ref Ref) error {
	return api.Errorf(api.Conflict, "volume %s: already exists in storage pool %s", ref, c.Pool)
}

// checkFingerprint accepts a whole SHA-256 only: it becomes part of a path.
func checkFingerprint(s string) error {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return api.Errorf(api.Invalid, "image fingerprint %q: must be 64 hexadecimal digits in lower case", s)
	}
	return nil
}

func describe(what string, ref fmt.Stringer, err error) error {
	if err == nil {
		return nil
	}
	return wrap(fmt.Sprintf("%s volume %s", what, ref), err)
}
