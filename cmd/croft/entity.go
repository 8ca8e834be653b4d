package main

import (
	"context"
	"fmt"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

type (
	configMap = map[string]string
	deviceMap = map[string]map[string]string
)

// entity is anything that has configuration keys and perhaps devices: the
// commands get, set, unset and device work on it, whatever it is.
type entity struct {
	kind, name      string
	config          configMap // changed in place, then saved
	devices         deviceMap // nil for what has none
	expandedConfig  configMap // instances only
	expandedDevices deviceMap
	clearByEmpty    bool                        // a key is unset by an empty value, not by leaving it out
	save            func(context.Context) error // stores the changes; fails if somebody else changed the entity
}

// loader fetches an entity by its name.
type loader func(ctx context.Context, g *global, c *client.Client, name string) (*entity, error)

func loadInstance(ctx context.Context, g *global, c *client.Client, name string) (*entity, error) {
	inst, etag, err := c.Instance(ctx, name)
	if err != nil {
		return nil, err
	}
	put := inst.InstancePut
	put.Config, put.Devices = orEmpty(put.Config), orEmpty(put.Devices)
	return &entity{
		kind: "instance", name: name, config: put.Config, devices: put.Devices,
		expandedConfig: inst.ExpandedConfig, expandedDevices: inst.ExpandedDevices,
		save: func(ctx context.Context) error { return g.updateInstance(ctx, c, name, put, etag) },
	}, nil
}

// updateInstance stores an instance and waits for it.
func (g *global) updateInstance(ctx context.Context, c *client.Client, name string, put api.InstancePut, etag string) error {
	op, err := c.UpdateInstance(ctx, name, put, etag)
	if err != nil {
		return err
	}
	_, err = op.Wait(ctx)
	return err
}

func loadProfile(ctx context.Context, _ *global, c *client.Client, name string) (*entity, error) {
	p, etag, err := c.Profile(ctx, name)
	if err != nil {
		return nil, err
	}
	put := p.ProfilePut
	put.Config, put.Devices = orEmpty(put.Config), orEmpty(put.Devices)
	return &entity{
		kind: "profile", name: name, config: put.Config, devices: put.Devices,
		save: func(ctx context.Context) error { return c.UpdateProfile(ctx, name, put, etag) },
	}, nil
}

func loadPool(ctx context.Context, _ *global, c *client.Client, name string) (*entity, error) {
	p, etag, err := c.StoragePool(ctx, name)
	if err != nil {
		return nil, err
	}
	put := p.StoragePoolPut
	put.Config = orEmpty(put.Config)
	return &entity{
		kind: "storage pool", name: name, config: put.Config,
		save: func(ctx context.Context) error { return c.UpdateStoragePool(ctx, name, put, etag) },
	}, nil
}

func loadNetwork(ctx context.Context, _ *global, c *client.Client, name string) (*entity, error) {
	n, etag, err := c.Network(ctx, name)
	if err != nil {
		return nil, err
	}
	if !n.Managed {
		return nil, api.Errorf(api.Invalid, "network %s is an interface of the host and has no configuration", name)
	}
	put := n.NetworkPut
	put.Config = orEmpty(put.Config)
	return &entity{
		kind: "network", name: name, config: put.Config,
		save: func(ctx context.Context) error { return c.UpdateNetwork(ctx, name, put, etag) },
	}, nil
}

// loadServer loads the server's configuration; it has no name.
func loadServer(ctx context.Context, c *client.Client) (*entity, error) {
	srv, etag, err := c.Server(ctx)
	if err != nil {
		return nil, err
	}
	e := &entity{kind: "server", config: configMap{}, clearByEmpty: true}
	for k, v := range srv.Config {
		e.config[k] = fmt.Sprint(v)
	}
	e.save = func(ctx context.Context) error {
		put := api.ServerPut{Config: map[string]any{}}
		for k, v := range e.config {
			put.Config[k] = v
		}
		return c.UpdateServer(ctx, put, etag)
	}
	return e, nil
}

// orEmpty makes a nil map one that can be written.
func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}
