package catalog

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/store"
)

// Export is an image's files, open for reading, and the names to give them.
type Export struct {
	Meta       *os.File // the unified tarball, or the metadata of a split image
	MetaName   string
	Rootfs     *os.File // nil for a unified image
	RootfsName string
}

// Close closes the files.
func (e *Export) Close() error {
	var err error
	for _, f := range []*os.File{e.Meta, e.Rootfs} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Export opens the files of an image. The caller closes them; the image may be
// deleted meanwhile. Errors: NotFound.
func (c *Catalog) Export(ctx context.Context, project, fingerprint string) (Export, error) {
	var rec *model.Image
	err := c.deps.Store.View(ctx, func(tx store.Tx) (err error) {
		rec, _, err = find(tx, project, fingerprint)
		return err
	})
	if err != nil {
		return Export{}, err
	}
	e, err := c.open(rec)
	if err != nil {
		e.Close()
		return Export{}, wrap(err, "export image %s", rec.Fingerprint)
	}
	return e, nil
}

func (c *Catalog) open(rec *model.Image) (e Export, err error) {
	e.Meta, e.MetaName, err = openNamed(c.metaFile(rec.Fingerprint), rec.Fingerprint)
	if err != nil || !rec.Split {
		return e, err
	}
	e.MetaName = "meta-" + e.MetaName
	e.Rootfs, e.RootfsName, err = openNamed(c.rootFile(rec.Fingerprint), rec.Fingerprint)
	return e, err
}

// suffixes are what users expect to see at the end of a file of each format.
var suffixes = map[image.Format]string{
	image.Plain: ".tar", image.Gzip: ".tar.gz", image.Bzip2: ".tar.bz2", image.XZ: ".tar.xz",
	image.LZMA: ".tar.lzma", image.Zstd: ".tar.zst", image.Squashfs: ".squashfs",
}

// openNamed opens an image file and derives its name from its format.
func openNamed(path, base string) (*os.File, string, error) {
	f, err := os.Open(path)
	if isAbsent(err) {
		return nil, "", api.Errorf(api.NotFound, "image file %s is missing", path)
	}
	if err != nil {
		return nil, "", err
	}
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, "", err
	}
	format, err := image.DetectFormat(head[:n])
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return f, base + suffixes[format], nil
}
