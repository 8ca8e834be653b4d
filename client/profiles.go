package client

import (
	"context"
	"net/http"

	"github.com/croft-project/croft/api"
)

// Profiles lists the profiles.
func (c *Client) Profiles(ctx context.Context) ([]api.Profile, error) {
	return list[api.Profile](ctx, c, path("profiles"), recursion("1"))
}

// Profile fetches one profile and its ETag.
func (c *Client) Profile(ctx context.Context, name string) (api.Profile, string, error) {
	return get[api.Profile](ctx, c, path("profiles", name), nil)
}

// CreateProfile creates a profile.
func (c *Client) CreateProfile(ctx context.Context, post api.ProfilesPost) error {
	return c.do(ctx, http.MethodPost, path("profiles"), post, "")
}

// UpdateProfile replaces the writable part of a profile; the instances that use
// it change with it. A non-empty etag must still be current.
func (c *Client) UpdateProfile(ctx context.Context, name string, put api.ProfilePut, etag string) error {
	return c.do(ctx, http.MethodPut, path("profiles", name), put, etag)
}

// RenameProfile gives a profile another name.
func (c *Client) RenameProfile(ctx context.Context, name, to string) error {
	return c.do(ctx, http.MethodPost, path("profiles", name), api.ProfilePost{Name: to}, "")
}

// DeleteProfile deletes a profile that no instance uses.
func (c *Client) DeleteProfile(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, path("profiles", name), nil, "")
}
