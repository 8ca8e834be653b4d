package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/catalog"
)

// The names of the parts of a split image in a form.
const (
	partMetadata = "metadata"
	partRootfs   = "rootfs"
)

// holdsJSON tells a JSON request from an image. Clients do not all say which it
// is; a body that begins like a JSON object is no archive.
func holdsJSON(r *http.Request) (bool, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // "" if absent or broken
	switch {
	case kind == "application/json":
		return true, nil
	case strings.HasPrefix(kind, "multipart/"):
		return false, nil
	}
	buf := bufio.NewReader(r.Body)
	first, err := buf.Peek(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, api.Errorf(api.Invalid, "request body cannot be read: %w", err)
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{buf, r.Body}
	return len(first) == 1 && first[0] == '{', nil
}

// uploadImage writes the files of the body to the catalog's directory and has
// them imported. Nothing of them is held in memory.
func (s *Server) uploadImage(w http.ResponseWriter, r *http.Request) error {
	up, err := uploadHeaders(r.Header)
	if err != nil {
		return err
	}
	rc := &receiver{dir: s.Images.TempDir()}
	if err := rc.receive(r, &up); err != nil {
		rc.discard()
		return err
	}
	op, err := s.Images.Import(r.Context(), project(r), up)
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

// uploadHeaders reads what the headers say about the image. Errors: Invalid,
// naming the header.
func uploadHeaders(h http.Header) (up catalog.Upload, err error) {
	up.Fingerprint = strings.ToLower(strings.TrimSpace(h.Get("X-LXD-fingerprint")))
	up.Public = truthy(h.Get("X-LXD-public"))
	if up.Filename, err = fileName(h.Get("X-LXD-filename")); err != nil {
		return up, err
	}
	values, err := url.ParseQuery(h.Get("X-LXD-properties"))
	if err != nil {
		return up, api.Errorf(api.Invalid, "header X-LXD-properties is %q, allowed are pairs as in a URL query (os=debian&release=12): %w",
			h.Get("X-LXD-properties"), err)
	}
	up.Properties = make(map[string]string, len(values))
	for key := range maps.Keys(values) {
		up.Properties[key] = values.Get(key)
	}
	return up, nil
}

// fileName gives the last element of what a client calls its file.
func fileName(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	base := filepath.Base(name)
	if len(base) > 255 || strings.ContainsFunc(base, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", badHeader("X-LXD-filename", name, "names of at most 255 bytes without control characters")
	}
	return base, nil
}

// receiver writes the files of a request body.
type receiver struct {
	dir   string
	files []string // that have been made
}

// discard removes the files.
func (rc *receiver) discard() {
	for _, f := range rc.files {
		os.Remove(f)
	}
}

// receive fills in the files of up. Errors: Invalid for what is not an upload;
// NoSpace.
func (rc *receiver) receive(r *http.Request, up *catalog.Upload) error {
	kind, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if !strings.HasPrefix(kind, "multipart/") {
		file, err := rc.write(r.Context(), r.Body)
		up.Files = []string{file}
		return err
	}
	if params["boundary"] == "" {
		return badHeader("Content-Type", r.Header.Get("Content-Type"), "multipart/form-data with a boundary")
	}
	return rc.receiveForm(r.Context(), multipart.NewReader(r.Body, params["boundary"]), up)
}

// receiveForm reads the two files of a split image, in either order. The image
// is called what the rootfs is called.
func (rc *receiver) receiveForm(ctx context.Context, form *multipart.Reader, up *catalog.Upload) error {
	got := map[string]string{}
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return receiveError(ctx, err)
		}
		name := part.FormName()
		if (name != partMetadata && name != partRootfs) || got[name] != "" {
			return api.Errorf(api.Invalid, "part %q of the form is not expected: an upload has one part %s and one part %s", name, partMetadata, partRootfs)
		}
		if name == partRootfs && part.FileName() != "" {
			if up.Filename, err = fileName(part.FileName()); err != nil {
				return err
			}
		}
		if got[name], err = rc.write(ctx, part); err != nil {
			return err
		}
	}
	for _, name := range []string{partMetadata, partRootfs} {
		if got[name] == "" {
			return api.Errorf(api.Invalid, "part %q of the form is missing: an upload has one part %s and one part %s", name, partMetadata, partRootfs)
		}
	}
	up.Files = []string{got[partMetadata], got[partRootfs]}
	return nil
}

// write copies src to a new file. An empty one is refused.
func (rc *receiver) write(ctx context.Context, src io.Reader) (string, error) {
	f, err := os.CreateTemp(rc.dir, "upload-*")
	if err != nil {
		return "", receiveError(ctx, err)
	}
	rc.files = append(rc.files, f.Name())
	n, err := copyBuffered(f, src)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", receiveError(ctx, err)
	}
	if n == 0 {
		return "", api.Errorf(api.Invalid, "image upload is empty")
	}
	return f.Name(), nil
}

// receiveError classifies what can go wrong: the client has gone or sent
// nonsense, or the disk.
func receiveError(ctx context.Context, err error) error {
	var onDisk *os.PathError
	switch {
	case ctx.Err() != nil:
		return api.Errorf(api.Canceled, "receive image: %w", err)
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return api.Errorf(api.NoSpace, "receive image: %w", err)
	case errors.As(err, &onDisk):
		return api.Errorf(api.Internal, "receive image: %w", err)
	}
	return api.Errorf(api.Invalid, "image upload cannot be read: %w", err)
}

// formFile is one part of a form that is sent.
type formFile struct {
	part, name string
	file       *os.File
}

// sendForm sends files as a form, with a length, so that a client can tell
// whether it got all and how far it is.
func sendForm(w http.ResponseWriter, r *http.Request, files []formFile) error {
	total := &counter{}
	mw := multipart.NewWriter(total)
	boundary := mw.Boundary()
	for _, f := range files {
		if _, err := f.header(mw); err != nil {
			return err
		}
		st, err := f.file.Stat()
		if err != nil {
			return api.Errorf(api.Internal, "export image: %w", err)
		}
		total.n += st.Size()
	}
	mw.Close() // a counter does not fail
	w.Header().Set("Content-Type", mw.FormDataContentType())
	w.Header().Set("Content-Length", fmt.Sprint(total.n))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	mw = multipart.NewWriter(w)
	if err := mw.SetBoundary(boundary); err != nil {
		return err
	}
	for _, f := range files {
		part, err := f.header(mw)
		if err != nil {
			return err
		}
		if _, err := copyBuffered(part, f.file); err != nil {
			return fmt.Errorf("send %s: %w", f.name, err)
		}
	}
	return mw.Close()
}

func (f formFile) header(mw *multipart.Writer) (io.Writer, error) {
	return mw.CreateFormFile(f.part, f.name)
}

// counter counts what is written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
