package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"strings"

	"github.com/croft-project/croft/api"
)

// Limits bound what an archive may contain. Zero fields mean the defaults.
type Limits struct {
	Entries   int64 `json:"entries,omitempty"`   // default 5 million
	Bytes     int64 `json:"bytes,omitempty"`     // data in regular files, holes not counted; default 1 TiB
	FileSize  int64 `json:"file_size,omitempty"` // of one file, holes counted; default 16 TiB
	Templates int   `json:"templates,omitempty"` // number of template files; default 1,000
}

// maxTemplateSize is the size of one template file, in bytes.
const maxTemplateSize = 1 << 20

func (l Limits) withDefaults() Limits {
	orDefault := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	orDefault(&l.Entries, 5_000_000)
	orDefault(&l.Bytes, 1<<40)
	orDefault(&l.FileSize, 16<<40)
	if l.Templates <= 0 {
		l.Templates = 1000
	}
	return l
}

// Info is what [Inspect] finds in an image's files.
type Info struct {
	Metadata    *api.ImageMetadata `json:"metadata"`
	Templates   map[string][]byte  `json:"templates"`   // by name in the templates folder
	Type        string             `json:"type"`        // always "container"
	Fingerprint string             `json:"fingerprint"` // SHA-256 in hexadecimal
	Size        int64              `json:"size"`        // bytes, both files together
	Split       bool               `json:"split"`       // the root filesystem is a file of its own
	Format      Format             `json:"format"`      // of the file with the metadata
	RootFormat  Format             `json:"root_format"` // of the file with the root filesystem
}

// Squashfs tells whether the root filesystem can be mounted as it is.
func (i *Info) Squashfs() bool { return i.RootFormat == Squashfs }

// Inspect reads an image completely: meta alone when it is unified, meta and
// root when it is split (root is nil otherwise). It seeks in the files, does
// not close them, and writes nothing.
//
// Errors: Invalid for damaged or malformed files, naming what is wrong;
// Unsupported for images of virtual machines; TooLarge beyond the limits;
// Canceled.
func Inspect(ctx context.Context, meta, root *os.File, limits Limits) (*Info, error) {
	info := &Info{Type: "container", Split: root != nil}
	sum := sha256.New()
	var err error
	if info.Format, err = measure(ctx, meta, sum, &info.Size); err != nil {
		return nil, err
	}
	if info.Format == Squashfs {
		return nil, api.Errorf(api.Invalid, "the metadata file is a squashfs; it must be a tarball, with the squashfs as the second file")
	}
	info.RootFormat = info.Format
	if root != nil {
		if info.RootFormat, err = measure(ctx, root, sum, &info.Size); err != nil {
			return nil, err
		}
	}
	info.Fingerprint = hex.EncodeToString(sum.Sum(nil))

	if err := info.readMeta(ctx, meta, limits.withDefaults()); err != nil {
		return nil, err
	}
	return info, nil
}

// measure adds a file to the fingerprint and tells its format.
func measure(ctx context.Context, f *os.File, sum hash.Hash, size *int64) (Format, error) {
	format, err := formatOf(f)
	if err != nil {
		return "", err
	}
	if format == QCOW2 {
		return "", api.Errorf(api.Unsupported, "the image is of a virtual machine; only containers are supported")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("read image file: %w", err)
	}
	n, err := io.Copy(sum, &contextReader{ctx, f})
	*size += n
	switch {
	case ctx.Err() != nil:
		return "", badArchive(ctx.Err())
	case err != nil:
		return "", fmt.Errorf("read image file: %w", err)
	}
	return format, nil
}

// readMeta scans the tarball for its metadata, templates and root filesystem.
// It reads to the end: the parts may come in any order, and damage anywhere
// must be found before the image is accepted.
func (i *Info) readMeta(ctx context.Context, f *os.File, limits Limits) error {
	stream, err := decompress(ctx, f, i.Format)
	if err != nil {
		return err
	}
	defer stream.Close()
	s := metaScan{limits: limits, templates: map[string][]byte{}}
	err = eachEntry(ctx, stream, limits, func(h *tar.Header, name string, r io.Reader) error {
		return s.entry(h, name, r)
	})
	if err != nil {
		return err
	}
	switch {
	case s.metadata == nil:
		return api.Errorf(api.Invalid, "the image has no metadata.yaml at the top of its %s", partName(i.Split))
	case !i.Split && !s.rootfs:
		return api.Errorf(api.Invalid, "the image has no rootfs folder, and no second file with the root filesystem was given")
	case i.Split && s.rootfs:
		return api.Errorf(api.Invalid, "the metadata tarball has a rootfs folder, and a second file with a root filesystem was given; use one of them")
	}
	i.Templates = s.templates
	i.Metadata, err = ParseMetadata(s.metadata)
	return err
}

func partName(split bool) string {
	if split {
		return "metadata tarball"
	}
	return "tarball"
}

// metaScan collects the parts of an image as they pass.
type metaScan struct {
	limits    Limits
	metadata  []byte
	templates map[string][]byte
	rootfs    bool
}

func (s *metaScan) entry(h *tar.Header, name string, r io.Reader) (err error) {
	top, rest, below := strings.Cut(name, "/")
	switch {
	case name == "metadata.yaml":
		if s.metadata != nil {
			return api.Errorf(api.Invalid, "the image has metadata.yaml twice")
		}
		s.metadata, err = readRegular(h, name, r, MaxMetadataSize)
		return err
	case top == "metadata.yaml":
		return api.Errorf(api.Invalid, "entry %q: metadata.yaml must be a file", h.Name)
	case !below && (name == "rootfs" || name == "templates"):
		if h.Typeflag != tar.TypeDir {
			return api.Errorf(api.Invalid, "entry %q must be a folder, it is %s", h.Name, typeName(h.Typeflag))
		}
		s.rootfs = s.rootfs || name == "rootfs"
	case top == "rootfs":
		s.rootfs = true
	case top == "templates":
		return s.template(h, rest, r)
	}
	return nil
}

func (s *metaScan) template(h *tar.Header, name string, r io.Reader) error {
	if h.Typeflag == tar.TypeDir || strings.Contains(name, "/") {
		return nil // nothing can refer to files further down
	}
	if err := CheckTemplateName(name); err != nil {
		return err
	}
	data, err := readRegular(h, h.Name, r, maxTemplateSize)
	if err != nil {
		return err
	}
	if len(s.templates) >= s.limits.Templates {
		return api.Errorf(api.TooLarge, "the image has more than %d templates", s.limits.Templates)
	}
	s.templates[name] = data
	return nil
}

// readRegular reads a small file; a link or device in its place is refused,
// because who reads it later would follow it.
func readRegular(h *tar.Header, name string, r io.Reader, limit int64) ([]byte, error) {
	if h.Typeflag != tar.TypeReg {
		return nil, api.Errorf(api.Invalid, "entry %q must be a regular file, it is %s", h.Name, typeName(h.Typeflag))
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, badArchive(err)
	}
	if int64(len(data)) > limit {
		return nil, api.Errorf(api.TooLarge, "%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

// eachEntry calls fn for every entry of a tarball with its cleaned name, which
// is relative, without "." or ".." and empty for the top. It stops at the
// first error. It also counts the entries.
func eachEntry(ctx context.Context, stream io.Reader, limits Limits, fn func(h *tar.Header, name string, r io.Reader) error) error {
	tr := tar.NewReader(&contextReader{ctx, stream})
	for count := int64(0); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return drain(ctx, stream)
		}
		if err != nil {
			return badArchive(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if count++; count > limits.Entries {
			return api.Errorf(api.TooLarge, "the archive has more than %d entries", limits.Entries)
		}
		name, err := cleanName(h.Name)
		if err != nil {
			return err
		}
		if err := fn(h, name, tr); err != nil {
			return err
		}
	}
}

// maxPadding is how much may follow the end of a tarball, in bytes: tar pads to
// its record size, at most 10 MiB.
const maxPadding = 16 << 20

// drain reads what follows the end of the tarball, so that the decompressor
// verifies its checksums.
func drain(ctx context.Context, stream io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(&contextReader{ctx, stream}, maxPadding))
	if err != nil {
		return badArchive(err)
	}
	if n == maxPadding {
		return api.Errorf(api.Invalid, "more than %d bytes follow the end of the archive", maxPadding)
	}
	return nil
}

// cleanName makes an entry's name relative to the top of the archive, and
// refuses what could point elsewhere.
func cleanName(name string) (string, error) {
	bad := func(why string) error {
		return api.Errorf(api.Invalid, "entry %q: %s", name, why)
	}
	switch {
	case strings.HasPrefix(name, "/"):
		return "", bad("the name is absolute")
	case strings.ContainsRune(name, 0):
		return "", bad("the name has a NUL byte")
	case len(name) > maxPath:
		return "", bad(fmt.Sprintf("the name has more than %d bytes", maxPath))
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", bad(`the name has a ".."`)
		}
	}
	clean := path.Clean(name)
	if clean == "." {
		return "", nil
	}
	return clean, nil
}

// maxPath is PATH_MAX without the final NUL.
const maxPath = 4095

func badArchive(err error) error {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.Timeout, "read archive: %w", err)
	case errors.Is(err, context.Canceled):
		return api.Errorf(api.Canceled, "read archive: %w", err)
	}
	return api.Errorf(api.Invalid, "the archive is damaged: %w", err)
}

func typeName(flag byte) string {
	switch flag {
	case tar.TypeReg:
		return "a regular file"
	case tar.TypeDir:
		return "a folder"
	case tar.TypeSymlink:
		return "a symbolic link"
	case tar.TypeLink:
		return "a hard link"
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a named pipe"
	}
	return fmt.Sprintf("of unknown type %q", flag)
}

// contextReader ends a long read when the context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
