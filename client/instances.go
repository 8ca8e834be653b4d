package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/croft-project/croft/api"
)

// InstanceFilter narrows a list of instances.
type InstanceFilter struct {
	AllProjects bool
}

func (f InstanceFilter) query(level string) url.Values {
	q := recursion(level)
	if f.AllProjects {
		q.Set("all-projects", "true")
	}
	return q
}

// Instances lists the instances without their state.
func (c *Client) Instances(ctx context.Context, f InstanceFilter) ([]api.Instance, error) {
	return list[api.Instance](ctx, c, path("instances"), f.query("1"))
}

// InstancesFull lists the instances with state and snapshots.
func (c *Client) InstancesFull(ctx context.Context, f InstanceFilter) ([]api.InstanceFull, error) {
	return list[api.InstanceFull](ctx, c, path("instances"), f.query("2"))
}

// Instance fetches one instance and its ETag.
func (c *Client) Instance(ctx context.Context, name string) (api.Instance, string, error) {
	return get[api.Instance](ctx, c, path("instances", name), nil)
}

// CreateInstance creates an instance; it is not started. The name that the
// server chose is found with [CreatedName].
func (c *Client) CreateInstance(ctx context.Context, post api.InstancesPost) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: path("instances"), json: post})
}

// CreatedName is the name of the instance that an operation creates, or "".
func CreatedName(op api.Operation) string {
	for _, kind := range []string{"instances", "containers"} {
		for _, p := range op.Resources[kind] {
			return lastSegment(p)
		}
	}
	return ""
}

// UpdateInstance replaces the writable part of an instance. A non-empty etag
// must still be current.
func (c *Client) UpdateInstance(ctx context.Context, name string, put api.InstancePut, etag string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPut, path: path("instances", name), json: put, etag: etag})
}

// RenameInstance gives an instance another name.
func (c *Client) RenameInstance(ctx context.Context, name, to string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: path("instances", name), json: api.InstancePost{Name: to}})
}

// DeleteInstance deletes a stopped instance.
func (c *Client) DeleteInstance(ctx context.Context, name string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodDelete, path: path("instances", name)})
}

// InstanceState fetches what the kernel says about an instance now.
func (c *Client) InstanceState(ctx context.Context, name string) (api.InstanceState, error) {
	st, _, err := get[api.InstanceState](ctx, c, path("instances", name, "state"), nil)
	return st, err
}

// SetInstanceState starts, stops, restarts, freezes or unfreezes an instance.
func (c *Client) SetInstanceState(ctx context.Context, name string, put api.InstanceStatePut, etag string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPut, path: path("instances", name, "state"), json: put, etag: etag})
}

// InstanceLogs lists the names of an instance's log files.
func (c *Client) InstanceLogs(ctx context.Context, name string) ([]string, error) {
	paths, err := list[string](ctx, c, path("instances", name, "logs"), nil)
	for i := range paths {
		paths[i] = lastSegment(paths[i])
	}
	return paths, err
}

// InstanceLog opens a log file of an instance; the caller closes it.
func (c *Client) InstanceLog(ctx context.Context, name, file string) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: path("instances", name, "logs", file)})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
