package client

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/coder/websocket"

	"github.com/croft-project/croft/api"
)

// EventFilter says which events a stream carries.
type EventFilter struct {
	Types       []string // lifecycle, operation, logging; empty for all
	AllProjects bool
}

// EventStream is a subscription to the server's events.
type EventStream struct {
	conn *websocket.Conn
}

// Events subscribes. When it returns, every later event will be seen. The
// subscription ends with Close; ctx bounds the connecting only.
func (c *Client) Events(ctx context.Context, f EventFilter) (*EventStream, error) {
	q := url.Values{}
	if len(f.Types) > 0 {
		q.Set("type", strings.Join(f.Types, ","))
	}
	if f.AllProjects {
		q.Set("all-projects", "true")
	}
	conn, err := c.websocket(ctx, path("events"), q)
	if err != nil {
		return nil, err
	}
	return &EventStream{conn: conn}, nil
}

// Next waits for an event. After an error the stream is of no more use; a ctx
// that ends also ends the stream.
//
// Errors: Canceled or Timeout with ctx; Unavailable when the server is gone.
func (s *EventStream) Next(ctx context.Context) (api.Event, error) {
	_, raw, err := s.conn.Read(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return api.Event{}, contextError(ctx, err)
		}
		return api.Event{}, api.Errorf(api.Unavailable, "event stream ended: %w", err)
	}
	var ev api.Event
	if err := json.Unmarshal(raw, &ev); err != nil {
		return api.Event{}, api.Errorf(api.Internal, "event is not what the API promises: %w", err)
	}
	return ev, nil
}

// Close ends the subscription.
func (s *EventStream) Close() error { return s.conn.CloseNow() }

// websocket opens a websocket without limit on the size of messages.
func (c *Client) websocket(ctx context.Context, path string, q url.Values) (*websocket.Conn, error) {
	conn, resp, err := websocket.Dial(ctx, c.url(path, q), &websocket.DialOptions{HTTPClient: c.http})
	if err != nil {
		if resp != nil && resp.StatusCode >= 400 {
			return nil, errorOf(resp) // the body that coder/websocket kept
		}
		return nil, transportError(ctx, err)
	}
	conn.SetReadLimit(-1)
	return conn, nil
}
