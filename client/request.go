package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/croft-project/croft/api"
)

// maxError bounds the body of an error answer.
const maxError = 1 << 20

// request is one HTTP request before it is sent.
type request struct {
	method string
	path   string      // below the root, escaped: /1.0/instances/web1
	query  url.Values  // may be nil
	header http.Header // may be nil
	json   any         // body to encode; nil sends none
	body   io.Reader   // raw body, used when json is nil
	size   int64       // length of body; 0 leaves it to net/http
	etag   string      // revision for If-Match; empty sends none
}

// path joins escaped segments below /1.0.
func path(segments ...string) string {
	var b strings.Builder
	b.WriteString("/1.0")
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// recursion is the query that asks for objects, not for their paths.
func recursion(level string) url.Values { return url.Values{"recursion": {level}} }

func (c *Client) build(ctx context.Context, r request) (*http.Request, error) {
	body := r.body
	if r.json != nil {
		raw, err := json.Marshal(r.json)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.url(r.path, r.query), body)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "cannot form a request for %q: %w", r.path, err)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.size > 0 {
		req.ContentLength = r.size
	}
	if r.etag != "" {
		req.Header.Set("If-Match", r.etag)
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	return req, nil
}

// url adds the project of the client, unless the query names one.
func (c *Client) url(path string, query url.Values) string {
	u := baseURL + path
	if c.opts.Project != "" && !query.Has("project") && !query.Has("all-projects") && !strings.Contains(path, "project=") {
		q := url.Values{"project": {c.opts.Project}}
		for k, v := range query {
			q[k] = v
		}
		query = q
	}
	if len(query) == 0 {
		return u
	}
	if strings.Contains(path, "?") {
		return u + "&" + query.Encode()
	}
	return u + "?" + query.Encode()
}

// send sends r. A status of 400 and above becomes an error; otherwise the
// caller closes the body.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.build(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, transportError(ctx, err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, errorOf(resp)
	}
	return resp, nil
}

// errorOf reads the error that a response carries.
func errorOf(resp *http.Response) error {
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // the status alone is an answer too
	var env api.Response
	if json.Unmarshal(raw, &env) != nil || env.Error == "" {
		return api.Errorf(api.KindOfStatus(resp.StatusCode), "server answered %s", resp.Status)
	}
	return &api.Error{Kind: kindOr(env.Kind, resp.StatusCode), Message: env.Error, Hint: env.Hint}
}

// kindOr is k, or what the status says when the server is one that sends no kind.
func kindOr(k api.Kind, status int) api.Kind {
	if k != "" {
		return k
	}
	return api.KindOfStatus(status)
}

// call sends r and decodes the envelope of the answer.
func (c *Client) call(ctx context.Context, r request) (*api.Response, string, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	var env api.Response
	if err := json.NewDecoder(resp.Body).Decode(&env); err != nil {
		if ctx.Err() != nil {
			return nil, "", contextError(ctx, err)
		}
		return nil, "", api.Errorf(api.Internal, "answer to %s %s is not what the API promises: %w", r.method, r.path, err)
	}
	if env.Type == api.TypeError {
		return nil, "", &api.Error{Kind: kindOr(env.Kind, env.ErrorCode), Message: env.Error, Hint: env.Hint}
	}
	return &env, resp.Header.Get("ETag"), nil
}

// get fetches the object at path and its ETag.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, string, error) {
	var out T
	env, etag, err := c.call(ctx, request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return out, "", err
	}
	if err := json.Unmarshal(env.Metadata, &out); err != nil {
		return out, "", api.Errorf(api.Internal, "answer to GET %s is not what the API promises: %w", path, err)
	}
	return out, etag, nil
}

// list fetches the objects of a collection.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	out, _, err := get[[]T](ctx, c, path, query)
	return out, err
}

// do sends a request whose answer has no content that matters.
func (c *Client) do(ctx context.Context, method, path string, body any, etag string) error {
	_, _, err := c.call(ctx, request{method: method, path: path, json: body, etag: etag})
	return err
}

// start sends a request that begins an operation. A server that did the work at
// once gives an operation that has ended.
func (c *Client) start(ctx context.Context, r request) (*Operation, error) {
	env, _, err := c.call(ctx, r)
	if err != nil {
		return nil, err
	}
	op := &Operation{c: c}
	if env.Type != api.TypeAsync {
		op.last = api.Operation{Status: api.Success.String(), StatusCode: api.Success}
		return op, nil
	}
	if err := json.Unmarshal(env.Metadata, &op.last); err != nil {
		return nil, api.Errorf(api.Internal, "the server's operation is not what the API promises: %w", err)
	}
	if op.last.ID == "" {
		op.last.ID = env.Operation[strings.LastIndexByte(env.Operation, '/')+1:]
	}
	return op, nil
}
