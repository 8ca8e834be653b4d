package client

import (
	"context"
	"net/http"

	"github.com/croft-project/croft/api"
)

// StoragePools lists the storage pools.
func (c *Client) StoragePools(ctx context.Context) ([]api.StoragePool, error) {
	return list[api.StoragePool](ctx, c, path("storage-pools"), recursion("1"))
}

// StoragePool fetches one pool and its ETag.
func (c *Client) StoragePool(ctx context.Context, name string) (api.StoragePool, string, error) {
	return get[api.StoragePool](ctx, c, path("storage-pools", name), nil)
}

// StoragePoolResources fetches the space and inodes of a pool.
func (c *Client) StoragePoolResources(ctx context.Context, name string) (api.ResourcesStoragePool, error) {
	r, _, err := get[api.ResourcesStoragePool](ctx, c, path("storage-pools", name, "resources"), nil)
	return r, err
}

// CreateStoragePool creates a pool.
func (c *Client) CreateStoragePool(ctx context.Context, post api.StoragePoolsPost) error {
	return c.do(ctx, http.MethodPost, path("storage-pools"), post, "")
}

// UpdateStoragePool replaces the writable part of a pool. A non-empty etag must
// still be current.
func (c *Client) UpdateStoragePool(ctx context.Context, name string, put api.StoragePoolPut, etag string) error {
	return c.do(ctx, http.MethodPut, path("storage-pools", name), put, etag)
}

// DeleteStoragePool deletes a pool that nothing uses.
func (c *Client) DeleteStoragePool(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, path("storage-pools", name), nil, "")
}

// StorageVolumes lists the volumes of a pool.
func (c *Client) StorageVolumes(ctx context.Context, pool string) ([]api.StorageVolume, error) {
	return list[api.StorageVolume](ctx, c, path("storage-pools", pool, "volumes"), recursion("1"))
}

// StorageVolume fetches one volume and its ETag. The kind is container or image.
func (c *Client) StorageVolume(ctx context.Context, pool, kind, name string) (api.StorageVolume, string, error) {
	return get[api.StorageVolume](ctx, c, path("storage-pools", pool, "volumes", kind, name), nil)
}
