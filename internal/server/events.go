package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/event"
)

// writeTimeout is how long one event may take to send; a client that does not
// read for longer is cut off.
const writeTimeout = 30 * time.Second

// streamEvents sends events over a websocket until the client hangs up.
func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) error {
	if !isWebsocket(r) {
		return api.Errorf(api.Invalid, "%s is a websocket, the request does not ask for an upgrade to one", r.URL.Path)
	}
	ctx, cancel := s.untilStop(r.Context())
	defer cancel()
	sub, err := s.Events.Subscribe(ctx, eventFilter(r))
	if err != nil {
		return err
	}
	defer sub.Close()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the Origin was checked for all requests alike
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return api.Errorf(api.Invalid, "websocket: %w", err)
	}
	defer conn.CloseNow()
	// Not the context that ends when the server stops: the connection would be
	// cut before the client is told why.
	client := conn.CloseRead(r.Context())
	return s.pumpEvents(client, conn, sub)
}

func eventFilter(r *http.Request) event.Filter {
	q := r.URL.Query()
	f := event.Filter{Project: project(r), AllProjects: truthy(q.Get("all-projects"))}
	for t := range strings.SplitSeq(q.Get("type"), ",") {
		if t = strings.TrimSpace(t); t != "" {
			f.Types = append(f.Types, t)
		}
	}
	return f
}

// pumpEvents copies from the subscription to the client and tells it why the
// stream ends. ctx ends when the client closes the connection.
func (s *Server) pumpEvents(ctx context.Context, conn *websocket.Conn, sub *event.Subscription) error {
	for {
		msg, err := sub.Next(ctx)
		switch {
		case err == nil:
		case errors.Is(err, event.ErrSlow) || errors.Is(err, event.ErrLost):
			return conn.Close(websocket.StatusTryAgainLater, err.Error())
		case s.stopping.Err() != nil || errors.Is(err, event.ErrClosed):
			return conn.Close(websocket.StatusGoingAway, "the daemon is stopping")
		default:
			return err // the client has gone
		}
		if err := writeEvent(ctx, conn, msg.JSON); err != nil {
			return err
		}
	}
}

func writeEvent(ctx context.Context, conn *websocket.Conn, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, data)
}

// isWebsocket tells whether a request asks for a websocket. Source: RFC 6455, 4.1.
func isWebsocket(r *http.Request) bool {
	return hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

// hasToken looks for a word in a header that holds lists of words.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for word := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(word), token) {
				return true
			}
		}
	}
	return false
}
