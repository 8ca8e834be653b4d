package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
)

// StageRootfs is the name, in a stage directory, of the mounted root.
const StageRootfs = "rootfs"

// StageOptions say for whom a root is mounted.
type StageOptions struct {
	// Dir is an existing directory on which the stage is mounted. As that happens
	// in a private namespace, all containers may use the same one. Ids of the
	// container must be able to pass through the directories above (mode o+x).
	Dir string
	// UserNS carries the container's maps; nil for a privileged container.
	UserNS *os.File
	// UID and GID are the host's ids of the container's root; 0 when privileged.
	UID, GID int
	// NoDev makes device nodes in the root useless, also those in the image.
	NoDev bool
	// Index mounts an overlay with index=on,nfs_export=on, which checkpoints need.
	// It must be the same in each start of an instance.
	Index bool
}

// Stage mounts root in the calling thread's mount namespace, so that
// Dir/[StageRootfs] is the container's root with the container's ids. Call it
// inside [linux.PrivateNS]; on error the namespace is to be thrown away. The
// thread's working directory is "/" afterwards.
//
// The caller makes sure that nothing else has the volume mounted, as two
// overlays on one upper directory corrupt it.
func Stage(ctx context.Context, root Root, o StageOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := stage{root: root, StageOptions: o}
	if err := s.mount(); err != nil {
		return wrap(fmt.Sprintf("mount the root of %s", filepath.Base(root.Dir)), err)
	}
	return nil
}

type stage struct {
	root Root
	StageOptions
}

func (s stage) mount() error {
	// Not writable by anyone but host root, and only passed through by others.
	if err := unix.Mount("tmpfs", s.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0711,size=1m"); err != nil {
		return fmt.Errorf("mount the stage %s: %w", s.Dir, err)
	}
	// All mount points have short names relative to the stage: no path of the
	// host, whatever characters it has, ends up in the overlay's options.
	if err := unix.Chdir(s.Dir); err != nil {
		return fmt.Errorf("enter the stage %s: %w", s.Dir, err)
	}
	defer unix.Chdir("/")
	if s.root.Bind != "" {
		return s.attach(Layer{Path: filepath.Join(s.root.Dir, s.root.Bind)}, StageRootfs, s.bindAttrs())
	}
	return s.overlay()
}

func (s stage) bindAttrs() uint64 {
	if s.NoDev {
		return unix.MOUNT_ATTR_NODEV
	}
	return 0
}

func (s stage) overlay() error {
	const instance = "i"
	lower := make([]string, len(s.root.Layers))
	for i, l := range s.root.Layers {
		lower[i] = fmt.Sprint(i)
		if err := s.attach(l, lower[i], unix.MOUNT_ATTR_RDONLY); err != nil {
			return err
		}
	}
	// Upper and work directory have to be on one mount: that of the volume.
	if err := s.attach(Layer{Path: s.root.Dir}, instance, 0); err != nil {
		return err
	}
	if err := unix.Mkdir(StageRootfs, 0o755); err != nil {
		return fmt.Errorf("make the stage: %w", err)
	}
	o := linux.Overlay{
		Lower: lower, Upper: filepath.Join(instance, s.root.Upper), Work: filepath.Join(instance, s.root.Work),
		Index: s.Index, Target: StageRootfs, UID: s.UID, GID: s.GID,
	}
	if s.NoDev {
		o.Flags = unix.MS_NODEV
	}
	return linux.MountOverlay(o)
}

// attach mounts one layer at a name in the stage, mapped for the container.
func (s stage) attach(l Layer, at string, attrs uint64) error {
	var mnt *os.File
	var err error
	if l.Squashfs {
		mnt, err = linux.MountImage(l.Path, "squashfs")
	} else {
		mnt, err = linux.CloneMount(l.Path, false)
	}
	if err != nil {
		return err
	}
	defer mnt.Close()
	if s.UserNS != nil {
		if err := linux.SetIDMap(mnt, s.UserNS, false); err != nil {
			return cannotMap(l, err)
		}
	}
	if attrs != 0 {
		if err := linux.SetMountAttr(mnt, attrs, 0, false); err != nil {
			return err
		}
	}
	if err := unix.Mkdir(at, 0o755); err != nil {
		return fmt.Errorf("make the stage: %w", err)
	}
	return linux.MoveMount(mnt, at)
}

func cannotMap(l Layer, err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return api.Errorf(api.Unsupported, "layer %s: this kernel cannot map its owners to a container's: %w", l.Path, err)
	}
	return err
}

// OpenRoot gives access to the files of a stopped instance: the same tree as the
// container sees, with the ids as they are on disk. The result is a descriptor
// for openat2 and the *InRoot functions of package linux (it cannot be read as a
// directory itself). The mount behind it is attached nowhere and ends when the
// descriptor, and what was opened through it, is closed; it has nosuid, nodev
// and noexec.
//
// The caller closes it before the instance starts; see [Stage]. stageDir is as
// in [StageOptions].
func OpenRoot(ctx context.Context, root Root, stageDir string) (*os.File, error) {
	var tree *os.File
	err := linux.PrivateNS(ctx, func() error {
		if err := Stage(ctx, root, StageOptions{Dir: stageDir}); err != nil {
			return err
		}
		var err error
		tree, err = linux.CloneMount(filepath.Join(stageDir, StageRootfs), false)
		if err != nil {
			return err
		}
		return linux.SetMountAttr(tree, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, 0, false)
	})
	if err != nil {
		if tree != nil {
			tree.Close()
		}
		return nil, wrap(fmt.Sprintf("open the root of %s", filepath.Base(root.Dir)), err)
	}
	return tree, nil
}
