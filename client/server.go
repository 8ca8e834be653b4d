package client

import (
	"context"
	"net/http"

	"github.com/croft-project/croft/api"
)

// Server describes the daemon and its host, with the ETag of its configuration.
func (c *Client) Server(ctx context.Context) (api.Server, string, error) {
	return get[api.Server](ctx, c, path(), nil)
}

// UpdateServer replaces the server's configuration. A non-empty etag must still
// be current.
func (c *Client) UpdateServer(ctx context.Context, put api.ServerPut, etag string) error {
	return c.do(ctx, http.MethodPut, path(), put, etag)
}

// PatchServer changes the given configuration keys only.
func (c *Client) PatchServer(ctx context.Context, put api.ServerPut, etag string) error {
	return c.do(ctx, http.MethodPatch, path(), put, etag)
}
