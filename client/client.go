// Package client talks to a Croft daemon, or to any server of the LXD REST API
// 1.0, over its unix socket.
//
//	c, err := client.Dial(ctx, client.Options{Socket: "/var/lib/croft/unix.socket"})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	op, err := c.SetInstanceState(ctx, "web1", api.InstanceStatePut{Action: "start", Timeout: -1}, "")
//	if err != nil {
//		return err
//	}
//	_, err = op.Wait(ctx)
//
// Methods are grouped by noun, one file each. Every error that a server sent is
// an [*api.Error], so errors.Is(err, api.NotFound) works. Bodies are streamed,
// never held in memory as a whole, where they can be large: files, images, the
// streams of a command.
//
// A [Client] is safe for concurrent use.
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/croft-project/croft/api"
)

// Options say which server to talk to and how.
type Options struct {
	Socket    string // path of the server's unix socket; required
	UserAgent string // sent with every request; empty sends "croft-client"
	Project   string // project of all requests; empty leaves it to the server
}

// Client is a connection pool to one server.
type Client struct {
	opts  Options
	http  *http.Client
	first chan net.Conn // the connection that Dial made, until a request takes it
}

// baseURL names the server in requests. Over a unix socket the host is not used.
const baseURL = "http://croft"

// Dial connects to the server. It sends no request: the connection is used by
// the first one.
//
// Errors: Unavailable if nothing listens on the socket; Forbidden if the user
// may not open it.
func Dial(ctx context.Context, opts Options) (*Client, error) {
	if opts.Socket == "" {
		return nil, api.Errorf(api.Invalid, "no server socket given")
	}
	if opts.UserAgent == "" {
		opts.UserAgent = "croft-client"
	}
	conn, err := dialSocket(ctx, opts.Socket)
	if err != nil {
		return nil, err
	}
	c := &Client{opts: opts, first: make(chan net.Conn, 1)}
	c.first <- conn
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         c.dial,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close drops the idle connections. Requests in progress are not touched; their
// contexts end them.
func (c *Client) Close() {
	select {
	case conn := <-c.first:
		conn.Close()
	default:
	}
	c.http.CloseIdleConnections()
}

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	select {
	case conn := <-c.first:
		return conn, nil
	default:
		return dialSocket(ctx, c.opts.Socket)
	}
}

func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, contextError(ctx, err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, api.Errorf(api.Unavailable, "cannot connect to the server: socket %s does not exist", path).
			WithHint("start croftd, or set CROFT_DIR to its state directory")
	case errors.Is(err, fs.ErrPermission):
		return nil, api.Errorf(api.Forbidden, "cannot connect to the server: no permission to open %s", path).
			WithHint("use root, or a member of the group that owns the socket")
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, api.Errorf(api.Unavailable, "cannot connect to the server: nothing listens on %s", path).
			WithHint("start croftd")
	}
	return nil, api.Errorf(api.Unavailable, "cannot connect to the server: %w", err)
}

// contextError gives the error of a request that ended because its context did.
func contextError(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return api.Errorf(api.Timeout, "gave up waiting for the server: %w", ctx.Err())
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return api.Errorf(api.Canceled, "interrupted: %w", ctx.Err())
	}
	return err
}

// transportError classifies what net/http reports: a dial error keeps its kind,
// the rest is a server that went away.
func transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return contextError(ctx, err)
	}
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	var pe *os.PathError // a body that the caller gave could not be read
	if errors.As(err, &pe) {
		return fmt.Errorf("read the request body: %w", err)
	}
	return api.Errorf(api.Unavailable, "connection to the server failed: %w", err)
}
