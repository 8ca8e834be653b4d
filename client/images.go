package client

import (
	"context"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"github.com/croft-project/croft/api"
)

// Images lists the images.
func (c *Client) Images(ctx context.Context) ([]api.Image, error) {
	return list[api.Image](ctx, c, path("images"), recursion("1"))
}

// Image fetches an image by its full or partial fingerprint, with its ETag.
func (c *Client) Image(ctx context.Context, fingerprint string) (api.Image, string, error) {
	return get[api.Image](ctx, c, path("images", fingerprint), nil)
}

// UpdateImage replaces the writable part of an image. A non-empty etag must
// still be current.
func (c *Client) UpdateImage(ctx context.Context, fingerprint string, put api.ImagePut, etag string) error {
	return c.do(ctx, http.MethodPut, path("images", fingerprint), put, etag)
}

// DeleteImage deletes an image.
func (c *Client) DeleteImage(ctx context.Context, fingerprint string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodDelete, path: path("images", fingerprint)})
}

// CreateImage makes an image from an instance, a URL or, ours, a distribution's
// packages. The fingerprint is in the metadata of the operation's result.
func (c *Client) CreateImage(ctx context.Context, post api.ImagesPost) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: path("images"), json: post})
}

// ImageUpload is an image on its way to the server.
type ImageUpload struct {
	Meta       io.Reader // metadata tarball, or the whole unified tarball
	MetaName   string    // its file name
	Rootfs     io.Reader // root tarball or squashfs of a split image; nil for a unified one
	RootfsName string
	Public     bool
	Properties map[string]string // added to those of the image
	Hash       string            // expected fingerprint; empty skips the check
}

// UploadImage sends an image as a stream. The fingerprint is in the metadata
// of the operation's result.
func (c *Client) UploadImage(ctx context.Context, up ImageUpload) (*Operation, error) {
	h := http.Header{}
	h.Set("X-LXD-filename", up.MetaName)
	if up.Public {
		h.Set("X-LXD-public", "true")
	}
	if len(up.Properties) > 0 {
		h.Set("X-LXD-properties", encodeMap(up.Properties))
	}
	if up.Hash != "" {
		h.Set("X-LXD-fingerprint", up.Hash)
	}
	r := request{method: http.MethodPost, path: path("images"), header: h, body: up.Meta}
	if up.Rootfs == nil {
		h.Set("Content-Type", "application/octet-stream")
		return c.start(ctx, r)
	}
	h.Set("X-LXD-filename", up.RootfsName)
	body, contentType, stop := multipartBody(up)
	defer stop()
	h.Set("Content-Type", contentType)
	r.body = body
	return c.start(ctx, r)
}

// multipartBody streams both files of a split image. stop ends the streaming
// goroutine and waits for it.
func multipartBody(up ImageUpload) (body io.Reader, contentType string, stop func()) {
	pr, pw := io.Pipe()
	w := multipart.NewWriter(pw)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := writePart(w, "metadata", up.MetaName, up.Meta)
		if err == nil {
			err = writePart(w, "rootfs", up.RootfsName, up.Rootfs)
		}
		if err == nil {
			err = w.Close()
		}
		pw.CloseWithError(err)
	}()
	return pr, w.FormDataContentType(), func() {
		pr.CloseWithError(context.Canceled)
		<-done
	}
}

func writePart(w *multipart.Writer, field, name string, r io.Reader) error {
	part, err := w.CreateFormFile(field, name)
	if err != nil {
		return err
	}
	_, err = io.Copy(part, r)
	return err
}

func encodeMap(m map[string]string) string {
	v := url.Values{}
	for k, s := range m {
		v.Set(k, s)
	}
	return v.Encode()
}

// ImagePart is one file of an image that is being exported.
type ImagePart struct {
	Field string    // metadata or rootfs; empty for a unified image
	Name  string    // file name that the server proposes, without directories
	Size  int64     // bytes; -1 if the server does not say
	Body  io.Reader // valid until the callback returns
}

// ExportImage downloads an image and calls fn for its one or two files.
func (c *Client) ExportImage(ctx context.Context, fingerprint string, fn func(ImagePart) error) error {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: path("images", fingerprint, "export")})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		_, disp, _ := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
		return fn(ImagePart{Name: baseName(disp["filename"], fingerprint), Size: resp.ContentLength, Body: resp.Body})
	}
	mr := multipart.NewReader(resp.Body, params["boundary"])
	for {
		part, err := mr.NextPart()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if ctx.Err() != nil {
				return contextError(ctx, err)
			}
			return api.Errorf(api.Unavailable, "download of image %s broke off: %w", fingerprint, err)
		}
		if err := fn(ImagePart{Field: part.FormName(), Name: baseName(part.FileName(), fingerprint), Size: -1, Body: part}); err != nil {
			return err
		}
	}
}

// baseName is the last element of a file name that came from a server, so that
// it cannot lead out of the directory that the user chose.
func baseName(name, fallback string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	if name == "" || name == "." || name == ".." {
		return fallback
	}
	return name
}

// ImageAliases lists the aliases.
func (c *Client) ImageAliases(ctx context.Context) ([]api.ImageAliasesEntry, error) {
	return list[api.ImageAliasesEntry](ctx, c, path("images", "aliases"), recursion("1"))
}

// ImageAlias fetches one alias and its ETag.
func (c *Client) ImageAlias(ctx context.Context, name string) (api.ImageAliasesEntry, string, error) {
	return get[api.ImageAliasesEntry](ctx, c, path("images", "aliases", name), nil)
}

// UpdateImageAlias points an alias at another image. A non-empty etag must
// still be current.
func (c *Client) UpdateImageAlias(ctx context.Context, name string, put api.ImageAliasesEntryPut, etag string) error {
	return c.do(ctx, http.MethodPut, path("images", "aliases", name), put, etag)
}

// CreateImageAlias gives an image one more name.
func (c *Client) CreateImageAlias(ctx context.Context, post api.ImageAliasesPost) error {
	return c.do(ctx, http.MethodPost, path("images", "aliases"), post, "")
}

// RenameImageAlias renames an alias.
func (c *Client) RenameImageAlias(ctx context.Context, name, to string) error {
	return c.do(ctx, http.MethodPost, path("images", "aliases", name), api.ImageAliasesEntryPost{Name: to}, "")
}

// DeleteImageAlias removes an alias; the image stays.
func (c *Client) DeleteImageAlias(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, path("images", "aliases", name), nil, "")
}
