package server

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"

	"github.com/croft-project/croft/api"
)

// octetStream is the content type of raw files.
const octetStream = "application/octet-stream"

func (s *Server) listLogs(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	files, err := s.Instances.Logs(r.Context(), project(r), name)
	if err != nil {
		return err
	}
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = apiPath(collection(r), name, "logs", f)
	}
	return ok(w, paths)
}

func (s *Server) getLog(w http.ResponseWriter, r *http.Request) error {
	file := r.PathValue("file")
	if err := checkLogName(file); err != nil {
		return err
	}
	f, err := s.Instances.OpenLog(r.Context(), project(r), r.PathValue("name"), file)
	if errors.Is(err, api.NotFound) && isOutput(file) {
		if _, _, gone := s.Instances.Get(r.Context(), project(r), r.PathValue("name")); gone == nil {
			return logGone.on(err)
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return serveFile(w, r, f, file)
}

func (s *Server) deleteLog(w http.ResponseWriter, r *http.Request) error {
	file := r.PathValue("file")
	if err := checkLogName(file); err != nil {
		return err
	}
	if !isOutput(file) {
		return api.Errorf(api.Invalid, "log file %s may not be deleted, only the recorded output of commands may", file)
	}
	if err := s.Instances.DeleteLog(r.Context(), project(r), r.PathValue("name"), file); err != nil {
		return err
	}
	return done(w)
}

// checkLogName holds log files to the names that there can be.
func checkLogName(name string) error {
	if name == "lxc.log" || name == "lxc.conf" || isOutput(name) {
		return nil
	}
	return api.Errorf(api.Invalid, "log file %q is not allowed, allowed are lxc.log, lxc.conf, exec_ID.stdout and exec_ID.stderr", name)
}

// isOutput tells whether name can be a file of recorded output. The ID is a UUID.
func isOutput(name string) bool {
	id, ok := strings.CutPrefix(name, "exec_")
	if !ok {
		return false
	}
	if cut, isOut := strings.CutSuffix(id, ".stdout"); isOut {
		id = cut
	} else if id, ok = strings.CutSuffix(id, ".stderr"); !ok {
		return false
	}
	return id != "" && len(id) <= 64 && strings.Trim(id, "0123456789abcdefABCDEF-") == ""
}

// serveFile sends an open file, or the part of it that a Range header asks for.
func serveFile(w http.ResponseWriter, r *http.Request, f *os.File, name string) error {
	st, err := f.Stat()
	if err != nil {
		return api.Errorf(api.Internal, "read %s: %w", name, err)
	}
	w.Header().Set("Content-Type", octetStream)
	w.Header().Set("Content-Disposition", disposition(name))
	http.ServeContent(w, r, "", st.ModTime(), f)
	return nil
}

// disposition names a file that is sent. Simple names are written as LXD writes
// them, the rest as RFC 6266 wants it.
func disposition(name string) string {
	if name != "" && strings.IndexFunc(name, notPlain) < 0 {
		return "inline;filename=" + name
	}
	if d := mime.FormatMediaType("inline", map[string]string{"filename": name}); d != "" {
		return d
	}
	return "inline"
}

func notPlain(c rune) bool {
	letter := c|0x20 >= 'a' && c|0x20 <= 'z'
	return !letter && (c < '0' || c > '9') && !strings.ContainsRune("-_.+~", c)
}

// copyBuffered copies with a buffer that suits a unix socket.
func copyBuffered(dst io.Writer, src io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	// The wrappers keep io.CopyBuffer from methods that bring their own buffer.
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *buf)
}
