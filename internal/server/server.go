package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of the HTTP server. Bodies and long polls take as long as they take.
const (
	headerTimeout = 30 * time.Second
	idleTimeout   = 3 * time.Minute
	maxHeader     = 64 << 10
	stopGrace     = 5 * time.Second // for requests in progress when Serve ends
)

// Server answers API requests. It is safe for concurrent use.
type Server struct {
	Deps
	table router
	users userNames

	// stopping ends long polls and event streams before connections are closed.
	stopping context.Context
	stop     context.CancelFunc
}

// New makes a server. It fails only for a defect in the route table.
func New(d Deps) (*Server, error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.AllowOrigin == nil {
		d.AllowOrigin = func(string) bool { return false }
	}
	s := &Server{Deps: d}
	s.stopping, s.stop = context.WithCancel(context.Background())
	for _, rt := range s.routes() {
		if err := s.table.add(rt); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Handler is the API as a http.Handler. Requests count as untrusted unless their
// context carries an auth.Identity, as those of [Server.Serve] do.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.ServeHTTP) }

// Serve accepts connections until ctx ends, then ends long polls, gives the
// requests in progress a moment and closes the connections. It closes l. It may
// be called for several listeners. The error is nil when ctx ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ConnContext:       s.connContext,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	ended := make(chan struct{})
	wg.Go(func() {
		select {
		case <-ctx.Done():
			s.shutdown(srv)
		case <-ended:
		}
	})
	err := srv.Serve(l)
	close(ended)
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) shutdown(srv *http.Server) {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		srv.Close() // who has not finished by now is cut off
	}
}

// untilStop gives a context for a long poll: it ends with ctx or when the server
// stops. The caller calls cancel.
func (s *Server) untilStop(ctx context.Context) (_ context.Context, cancel context.CancelFunc) {
	ctx, end := context.WithCancel(ctx)
	stop := context.AfterFunc(s.stopping, end)
	return ctx, func() {
		stop()
		end()
	}
}
