package server

import (
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/croft-project/croft/api"
)

// The types of file in the X-LXD-type header.
const (
	typeFile      = "file"
	typeDirectory = "directory"
	typeSymlink   = "symlink"
)

// maxPath bounds paths in instances and targets of symlinks, in bytes. Source:
// PATH_MAX of limits.h.
const maxPath = 4096

// copyBuffers are buffers for file contents.
var copyBuffers = sync.Pool{New: func() any {
	b := make([]byte, 128<<10)
	return &b
}}

// filePath is the path in the instance that a request is about, absolute but
// otherwise as given: what ".." and symlinks mean in it is for those who walk it.
func filePath(r *http.Request) (string, error) {
	p := r.URL.Query().Get("path")
	switch {
	case p == "":
		return "", api.Errorf(api.Invalid, "query parameter \"path\" is missing: it names the file in the instance")
	case len(p) > maxPath:
		return "", api.Errorf(api.Invalid, "query parameter \"path\" is longer than %d bytes", maxPath)
	case strings.ContainsRune(p, 0):
		return "", api.Errorf(api.Invalid, "query parameter \"path\" %q holds a NUL byte", p)
	}
	return "/" + strings.TrimLeft(p, "/"), nil
}

// getFile also serves HEAD, which asks for what kind of file it is.
func (s *Server) getFile(w http.ResponseWriter, r *http.Request) error {
	name, err := filePath(r)
	if err != nil {
		return err
	}
	f, err := s.Instances.GetFile(r.Context(), project(r), r.PathValue("name"), name)
	if err != nil {
		return err
	}
	if f.Content != nil {
		defer f.Content.Close()
	}
	h := w.Header()
	h.Set("X-LXD-type", f.Type)
	h.Set("X-LXD-uid", strconv.FormatInt(f.UID, 10))
	h.Set("X-LXD-gid", strconv.FormatInt(f.GID, 10))
	// With a leading zero: LXD's client takes the base from it.
	h.Set("X-LXD-mode", fmt.Sprintf("0%03o", f.Mode&0o7777))
	h.Set("X-LXD-modified", f.Modified.UTC().Format("2006-01-02 15:04:05 -0700 MST"))
	if f.Type == typeDirectory {
		names := f.Entries
		if names == nil {
			names = []string{}
		}
		return ok(w, names)
	}
	h.Set("Content-Type", octetStream)
	h.Set("Content-Disposition", disposition(path.Base(name)))
	if f.Type == typeSymlink {
		h.Set("Content-Length", strconv.Itoa(len(f.Target)))
		_, err := io.WriteString(w, f.Target)
		return err
	}
	return sendContent(w, r, f)
}

// sendContent sends a regular file as long as it was when it was opened. Files of
// size 0 are read to their end: those of /proc have content all the same.
func sendContent(w http.ResponseWriter, r *http.Request, f *File) error {
	var src io.Reader = f.Content
	if f.Size > 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
		src = io.LimitReader(src, f.Size)
	}
	if r.Method == http.MethodHead || f.Content == nil {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	n, err := copyBuffered(w, src)
	if err != nil {
		return fmt.Errorf("send file: %w", err)
	}
	if n < f.Size {
		return api.Errorf(api.Internal, "file shrank while it was sent: %d of %d bytes", n, f.Size)
	}
	return nil
}

func (s *Server) putFile(w http.ResponseWriter, r *http.Request) error {
	name, err := filePath(r)
	if err != nil {
		return err
	}
	put, err := filePut(r.Header)
	if err != nil {
		return err
	}
	switch put.Type {
	case typeFile:
		put.Content = r.Body
	case typeSymlink:
		if put.Target, err = symlinkTarget(r.Body); err != nil {
			return err
		}
	}
	if err := s.Instances.PutFile(r.Context(), project(r), r.PathValue("name"), name, put); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) deleteFile(w http.ResponseWriter, r *http.Request) error {
	name, err := filePath(r)
	if err != nil {
		return err
	}
	if err := s.Instances.DeleteFile(r.Context(), project(r), r.PathValue("name"), name); err != nil {
		return err
	}
	return done(w)
}

// filePut reads the headers that describe a file to write. Errors: Invalid,
// naming the header.
func filePut(h http.Header) (put FilePut, err error) {
	put.Type = typeFile
	if t := h.Get("X-LXD-type"); t != "" {
		put.Type = t
	}
	if put.Type != typeFile && put.Type != typeDirectory && put.Type != typeSymlink {
		return put, badHeader("X-LXD-type", put.Type, "file, directory and symlink")
	}
	switch write := h.Get("X-LXD-write"); {
	case write == "append" && put.Type == typeFile:
		put.Append = true
	case write == "append":
		return put, badHeader("X-LXD-write", write, "overwrite when X-LXD-type is "+put.Type)
	case write != "" && write != "overwrite":
		return put, badHeader("X-LXD-write", write, "overwrite and append")
	}
	if put.UID, err = idHeader(h, "X-LXD-uid"); err != nil {
		return put, err
	}
	if put.GID, err = idHeader(h, "X-LXD-gid"); err != nil {
		return put, err
	}
	put.Mode, err = modeHeader(h)
	return put, err
}

// modeHeader reads permission bits, with set-id and sticky; -1 when not given.
func modeHeader(h http.Header) (int, error) {
	v := h.Get("X-LXD-mode")
	if v == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "0o"), 8, 12)
	if err != nil {
		return -1, badHeader("X-LXD-mode", v, "octal numbers from 0 to 7777")
	}
	return int(n), nil
}

func badHeader(name, value, allowed string) error {
	return api.Errorf(api.Invalid, "header %s is %q, allowed are %s", name, value, allowed)
}

// idHeader reads a user or group id; -1 when it is not given. The highest id
// means "no change" to chown(2) and is nobody's.
func idHeader(h http.Header, name string) (int64, error) {
	v := h.Get(name)
	if v == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == 1<<32-1 {
		return -1, badHeader(name, v, "numbers from 0 to 4294967294")
	}
	return int64(n), nil
}

// symlinkTarget reads the target that a request body holds.
func symlinkTarget(body io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(body, maxPath+1))
	if err != nil {
		return "", api.Errorf(api.Invalid, "target of the symlink cannot be read: %w", err)
	}
	target := string(raw)
	if target == "" || len(target) >= maxPath || strings.ContainsRune(target, 0) {
		return "", api.Errorf(api.Invalid, "target %.80q of the symlink is not allowed: use 1 to %d bytes without NUL", target, maxPath-1)
	}
	return target, nil
}
