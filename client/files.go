package client

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"

	"github.com/croft-project/croft/api"
)

// The types of file in the X-LXD-type header.
const (
	FileRegular   = "file"
	FileDirectory = "directory"
	FileSymlink   = "symlink"
)

// File is a file of an instance.
type File struct {
	Type    string // FileRegular, FileDirectory or FileSymlink
	UID     int64  // owner as the instance sees it
	GID     int64
	Mode    fs.FileMode   // permission bits only
	Size    int64         // bytes of Body; -1 if the server does not say
	Body    io.ReadCloser // content, or target of a symlink; nil for a directory
	Entries []string      // names in a directory
}

// Close closes the body, if there is one.
func (f *File) Close() error {
	if f.Body == nil {
		return nil
	}
	return f.Body.Close()
}

// FilePut says how a file is written.
type FilePut struct {
	Type   string       // empty is FileRegular
	UID    *int64       // nil keeps the owner, or root for a new file
	GID    *int64       // nil keeps the group, or root for a new file
	Mode   *fs.FileMode // nil keeps the mode, or 0644 for a new file
	Append bool         // add to a regular file instead of replacing it
	Body   io.Reader    // content, or target of a symlink
	Size   int64        // length of Body if known, else 0
}

// InstanceFile opens a file of an instance; the caller closes it.
func (c *Client) InstanceFile(ctx context.Context, instance, name string) (*File, error) {
	resp, err := c.send(ctx, fileRequest(http.MethodGet, instance, name))
	if err != nil {
		return nil, err
	}
	f := fileOf(resp)
	if f.Type != FileDirectory {
		f.Body = resp.Body
		return f, nil
	}
	defer resp.Body.Close()
	var env api.Response
	if err := json.NewDecoder(resp.Body).Decode(&env); err != nil {
		return nil, api.Errorf(api.Internal, "listing of %s is not what the API promises: %w", name, err)
	}
	if err := json.Unmarshal(env.Metadata, &f.Entries); err != nil {
		return nil, api.Errorf(api.Internal, "listing of %s is not what the API promises: %w", name, err)
	}
	return f, nil
}

// fileOf reads the headers that describe a file.
func fileOf(resp *http.Response) *File {
	num := func(key string, base int) int64 {
		n, _ := strconv.ParseInt(resp.Header.Get(key), base, 64) // absent is 0, as for LXD's clients
		return n
	}
	f := &File{
		Type: resp.Header.Get("X-LXD-type"),
		UID:  num("X-LXD-uid", 10),
		GID:  num("X-LXD-gid", 10),
		Mode: fs.FileMode(num("X-LXD-mode", 8)) & fs.ModePerm,
		Size: resp.ContentLength,
	}
	if f.Type == "" {
		f.Type = FileRegular
	}
	return f
}

// PutInstanceFile writes a file, makes a directory or makes a symlink.
func (c *Client) PutInstanceFile(ctx context.Context, instance, name string, put FilePut) error {
	r := fileRequest(http.MethodPost, instance, name)
	r.body, r.size = put.Body, put.Size
	if put.Type == "" {
		put.Type = FileRegular
	}
	r.header = http.Header{}
	r.header.Set("X-LXD-type", put.Type)
	if put.UID != nil {
		r.header.Set("X-LXD-uid", strconv.FormatInt(*put.UID, 10))
	}
	if put.GID != nil {
		r.header.Set("X-LXD-gid", strconv.FormatInt(*put.GID, 10))
	}
	if put.Mode != nil {
		r.header.Set("X-LXD-mode", "0"+strconv.FormatUint(uint64(put.Mode.Perm()), 8))
	}
	if put.Append {
		r.header.Set("X-LXD-write", "append")
	} else {
		r.header.Set("X-LXD-write", "overwrite")
	}
	_, _, err := c.call(ctx, r)
	return err
}

// DeleteInstanceFile deletes a file or an empty directory.
func (c *Client) DeleteInstanceFile(ctx context.Context, instance, name string) error {
	_, _, err := c.call(ctx, fileRequest(http.MethodDelete, instance, name))
	return err
}

func fileRequest(method, instance, name string) request {
	return request{method: method, path: path("instances", instance, "files"), query: url.Values{"path": {name}}}
}
