package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// layers is a volume's record of what is below its upper directory. The file is
// never written in place, as volumes share it by links.
type layers struct {
	Version int     `json:"version"`
	Layers  []layer `json:"layers"` // topmost first
}

const layersVersion = 1

type layer struct {
	Path     string `json:"path"` // relative to the pool's directory
	Squashfs bool   `json:"squashfs,omitempty"`
	Image    string `json:"image,omitempty"` // fingerprint, when the layer is an image
}

// readLayers reads a record and checks that its paths stay in the pool.
func readLayers(path string) (layers, error) {
	var l layers
	if err := readJSON(path, &l); err != nil {
		return l, err
	}
	if l.Version != layersVersion {
		return l, fmt.Errorf("%s: has version %d, this program knows %d", path, l.Version, layersVersion)
	}
	for _, layer := range l.Layers {
		if !filepath.IsLocal(layer.Path) {
			return l, fmt.Errorf("%s: layer %q is outside the storage pool", path, layer.Path)
		}
	}
	return l, nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// writeJSON writes a new file, durably but for its name.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(append(b, '\n')); err != nil {
		return err
	}
	return f.Sync()
}

// attributes are those of a root directory.
type attributes struct {
	Mode   uint32            `json:"mode"` // permission bits
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
}

func attributesOf(dir *os.File) (attributes, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return attributes{}, pathError("stat", dir.Name(), err)
	}
	a := attributes{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Xattrs: map[string][]byte{}}
	buf := make([]byte, 1<<16) // XATTR_LIST_MAX and XATTR_SIZE_MAX
	n, err := unix.Flistxattr(int(dir.Fd()), buf)
	if err == unix.EOPNOTSUPP || err == nil && n == 0 {
		return a, nil
	}
	if err != nil {
		return a, pathError("list attributes of", dir.Name(), err)
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.overlay.") {
			continue // would be taken as the overlay's own
		}
		n, err := unix.Fgetxattr(int(dir.Fd()), name, buf)
		if err != nil {
			return a, pathError("read attribute "+name+" of", dir.Name(), err)
		}
		a.Xattrs[name] = append([]byte(nil), buf[:n]...)
	}
	return a, nil
}

func (a attributes) apply(dir string) error {
	if err := os.Lchown(dir, a.UID, a.GID); err != nil {
		return err
	}
	if err := unix.Chmod(dir, a.Mode); err != nil {
		return pathError("chmod", dir, err)
	}
	for name, value := range a.Xattrs {
		if err := unix.Lsetxattr(dir, name, value, 0); err != nil {
			return pathError("set attribute "+name+" of", dir, err)
		}
	}
	return nil
}
