package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/model"
)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &responseWriter{ResponseWriter: rw}
	begin := time.Now()
	defer func() {
		if p := recover(); p != nil {
			s.panicked(w, r, p)
		}
		// The query is left out: it may hold a websocket's secret.
		s.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", w.status,
			"took", time.Since(begin), "user", auth.From(r.Context()).Username)
	}()
	if s.Product != "" {
		w.Header().Set("Server", s.Product)
	}
	if err := s.handle(w, r); err != nil {
		s.fail(w, r, err)
	}
}

// handle checks what is the same for all routes, then calls the handler.
func (s *Server) handle(w *responseWriter, r *http.Request) error {
	if origin := r.Header.Get("Origin"); origin != "" && !s.AllowOrigin(origin) {
		return api.Errorf(api.Forbidden, "requests from web pages of %q are not allowed", origin)
	}
	n, values := s.table.find(r.URL.EscapedPath())
	if n == nil {
		return errNotFound()
	}
	rt, allow := n.route(r.Method)
	if rt == nil {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return nil
		}
		return api.Errorf(api.NotAllowed, "method %s is not allowed for %s, allowed are %s", r.Method, r.URL.Path, strings.Join(allow, ", "))
	}
	if !allowed(rt.access, auth.From(r.Context())) {
		return api.Errorf(api.Forbidden, "not authorized")
	}
	if err := checkQuery(r.URL.RawQuery); err != nil {
		return err
	}
	for i, name := range n.names {
		r.SetPathValue(name, values[i])
	}
	return rt.handler(w, r)
}

func errNotFound() error { return api.Errorf(api.NotFound, "not found") }

func allowed(a access, id auth.Identity) bool {
	switch a {
	case anybody:
		return true
	case internal:
		return id.Trusted() && id.Protocol == auth.ProtocolUnix
	}
	return id.Trusted()
}

// checkQuery refuses what no handler should have to think of: a query that does
// not parse, projects that do not exist and members of a cluster that there is
// not.
func checkQuery(raw string) error {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return api.Errorf(api.Invalid, "query of the URL cannot be read: %w", err)
	}
	if p := q.Get("project"); p != "" && p != model.DefaultProject {
		return api.Errorf(api.NotFound, "project %q does not exist; this version has the project %s", p, model.DefaultProject)
	}
	if t := q.Get("target"); t != "" && t != "none" {
		return api.Errorf(api.Invalid, "target %q is not possible: this server is not a member of a cluster", t)
	}
	return nil
}

// fail writes err, or cuts the connection when an answer has begun already, so
// that the client does not take half of it for the whole.
func (s *Server) fail(w *responseWriter, r *http.Request, err error) {
	if w.taken || isGone(r.Context(), err) {
		s.Log.Debug("connection ended", "method", r.Method, "path", r.URL.Path, "err", err)
	} else if kindOf(err) == api.Internal {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if w.taken {
		return // it is a websocket now
	}
	if w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	writeError(w, err)
}

// isGone tells whether err is due to the client's having hung up.
func isGone(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, api.Canceled))
}

func (s *Server) panicked(w *responseWriter, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.Log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	if w.taken {
		return
	}
	if w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	clear(w.Header())
	writeError(w, api.Errorf(api.Internal, "internal error").
		WithHint("this is a defect; please report it with the daemon's log"))
}

// responseWriter remembers what has been written.
type responseWriter struct {
	http.ResponseWriter
	status int  // 0 until the header is written
	taken  bool // the connection was hijacked
}

func (w *responseWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets net/http copy a file in the way that suits the connection.
func (w *responseWriter) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return io.Copy(w.ResponseWriter, src)
}

// Hijack hands the connection over, to a websocket.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.taken, w.status = true, http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
