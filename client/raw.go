package client

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/croft-project/croft/api"
)

// Raw sends any request and returns the envelope of the answer. path begins
// with a slash and may hold a query. body may be nil.
func (c *Client) Raw(ctx context.Context, method, path string, body io.Reader) (*api.Response, error) {
	resp, _, err := c.call(ctx, rawRequest(method, path, body))
	return resp, err
}

// RawHTTP is [Client.Raw] without decoding: the caller reads and closes the
// body, whatever the status.
func (c *Client) RawHTTP(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := c.build(ctx, rawRequest(method, path, body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, transportError(ctx, err)
	}
	return resp, nil
}

func rawRequest(method, path string, body io.Reader) request {
	r := request{method: method, path: path, body: body}
	if body != nil {
		r.header = http.Header{"Content-Type": {"application/json"}}
	}
	return r
}

// lastSegment is the name at the end of an object's path, without its query.
func lastSegment(p string) string {
	p, _, _ = strings.Cut(p, "?")
	return p[strings.LastIndexByte(p, '/')+1:]
}
