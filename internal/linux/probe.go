package linux

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Features says which mounts a host can make for containers. A nil error means
// that it works, otherwise it tells why not.
type Features struct {
	IDMapped error // idmapped mounts of the directory's own file system
	Overlay  error // a writable overlay whose layers are mapped
	Squashfs error // idmapped squashfs on a loop device (Linux 6.2 and later)
	Reflink  error // copies that share blocks, in the directory's file system
}

// emptySquashfs is a squashfs (gzip) with an empty root, made by mksquashfs 4.5.1,
// without the padding that follows it.
const emptySquashfs = "aHNxcwEAAAAAAAAAAAACAAAAAAABABEAUAIBAAQAAAAAAAAAAAAAAIUAAAAAAAAAfQAAAAAAAAD//////////2AAAAAAAAAAdwAAAAA" +
	"AAAB3AAAAAAAAAP//////////FQB42mNkeMvIAAUwBhMQM0NpABxvAPgEgAAAAAB3"

// probeID is the host id that stands for a container's root in probes. Nothing
// is ever left owned by it.
const probeID = 1 << 20

// Probe tries out on the file system of dir what a container's root needs, by
// making the real mounts in a namespace of its own. It takes some milliseconds
// and leaves nothing behind. The error is for probes that could not be made.
func Probe(ctx context.Context, dir string) (Features, error) {
	var f Features
	tmp, err := os.MkdirTemp(dir, ".tmp-probe-")
	if err != nil {
		return f, fmt.Errorf("probe: %w", err)
	}
	defer os.RemoveAll(tmp)
	for _, d := range []string{"lower", "inst/upper", "inst/work", "stage"} {
		if err := os.MkdirAll(filepath.Join(tmp, d), 0o755); err != nil {
			return f, fmt.Errorf("probe: %w", err)
		}
	}
	f.Reflink = probeReflink(tmp)
	userns, err := UserNS(IDMap{{ContainerID: 0, HostID: probeID, Count: 1 << 16, UID: true, GID: true}})
	if err != nil {
		f.IDMapped, f.Overlay, f.Squashfs = err, err, err
		return f, nil
	}
	defer userns.Close()
	err = PrivateNS(ctx, func() error {
		f.IDMapped = probeIDMap(filepath.Join(tmp, "lower"), userns)
		f.Overlay = probeOverlay(tmp, userns)
		f.Squashfs = probeSquashfs(tmp, userns)
		return nil
	})
	return f, err
}

func probeReflink(tmp string) error {
	src, err := os.Create(filepath.Join(tmp, "src"))
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := src.Write(make([]byte, 1<<16)); err != nil {
		return err
	}
	dst, err := os.Create(filepath.Join(tmp, "dst"))
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		return fmt.Errorf("share blocks between files: %w", err)
	}
	return nil
}

func probeIDMap(path string, userns *os.File) error {
	mnt, err := CloneMount(path, false)
	if err != nil {
		return err
	}
	defer mnt.Close()
	return SetIDMap(mnt, userns, false)
}

// probeOverlay mounts an overlay of mapped layers and makes a directory in it as
// the container's root.
func probeOverlay(tmp string, userns *os.File) error {
	stage := filepath.Join(tmp, "stage")
	if err := unix.Mount("tmpfs", stage, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	at := func(name string) string { return filepath.Join(stage, name) }
	for name, src := range map[string]string{"l": "lower", "u": "inst", "m": ""} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			return err
		}
		if src == "" {
			continue
		}
		mnt, err := CloneMount(filepath.Join(tmp, src), false)
		if err != nil {
			return err
		}
		err = errors.Join(SetIDMap(mnt, userns, false), MoveMount(mnt, at(name)))
		mnt.Close()
		if err != nil {
			return err
		}
	}
	o := Overlay{Lower: []string{at("l")}, Upper: at("u/upper"), Work: at("u/work"), Target: at("m"), UID: probeID, GID: probeID}
	if err := MountOverlay(o); err != nil {
		return err
	}
	restore, err := asFSUser(probeID, probeID)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Mkdir(at("m/probe"), 0o755), restore()); err != nil {
		return fmt.Errorf("write to an overlay of idmapped layers: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(tmp, "inst/upper/probe"), &st); err != nil || st.Uid != 0 {
		return fmt.Errorf("an overlay of idmapped layers stored uid %d instead of 0: %v", st.Uid, err)
	}
	return nil
}

func probeSquashfs(tmp string, userns *os.File) error {
	image, err := base64.StdEncoding.DecodeString(emptySquashfs)
	if err != nil {
		return err
	}
	path := filepath.Join(tmp, "squashfs")
	if err := os.WriteFile(path, append(image, make([]byte, 4096-len(image))...), 0o600); err != nil {
		return err
	}
	mnt, err := MountImage(path, "squashfs")
	if err != nil {
		return err
	}
	defer mnt.Close()
	return SetIDMap(mnt, userns, false)
}

// MountImage makes a detached read-only mount of a file system image through its
// shared loop device.
func MountImage(path, fstype string) (*os.File, error) {
	dev, err := AttachLoop(path)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	return MountFS(fstype, unix.MOUNT_ATTR_RDONLY, "ro", "source="+dev.Name())
}
