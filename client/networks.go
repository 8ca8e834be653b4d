package client

import (
	"context"
	"net/http"

	"github.com/croft-project/croft/api"
)

// Networks lists the managed networks and the interfaces of the host.
func (c *Client) Networks(ctx context.Context) ([]api.Network, error) {
	return list[api.Network](ctx, c, path("networks"), recursion("1"))
}

// Network fetches one network and its ETag.
func (c *Client) Network(ctx context.Context, name string) (api.Network, string, error) {
	return get[api.Network](ctx, c, path("networks", name), nil)
}

// NetworkState fetches what the kernel says about an interface of the host.
func (c *Client) NetworkState(ctx context.Context, name string) (api.NetworkState, error) {
	st, _, err := get[api.NetworkState](ctx, c, path("networks", name, "state"), nil)
	return st, err
}

// NetworkLeases lists the addresses that are in use on a network.
func (c *Client) NetworkLeases(ctx context.Context, name string) ([]api.NetworkLease, error) {
	return list[api.NetworkLease](ctx, c, path("networks", name, "leases"), nil)
}

// CreateNetwork creates a network.
func (c *Client) CreateNetwork(ctx context.Context, post api.NetworksPost) error {
	return c.do(ctx, http.MethodPost, path("networks"), post, "")
}

// UpdateNetwork replaces the writable part of a network. A non-empty etag must
// still be current.
func (c *Client) UpdateNetwork(ctx context.Context, name string, put api.NetworkPut, etag string) error {
	return c.do(ctx, http.MethodPut, path("networks", name), put, etag)
}

// RenameNetwork gives a network another name.
func (c *Client) RenameNetwork(ctx context.Context, name, to string) error {
	return c.do(ctx, http.MethodPost, path("networks", name), api.NetworkPost{Name: to}, "")
}

// DeleteNetwork deletes a network that nothing uses.
func (c *Client) DeleteNetwork(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, path("networks", name), nil, "")
}
