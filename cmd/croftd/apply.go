package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// apply makes what a preseed names and does not exist, and brings the rest up to
// it: keys and devices of the preseed win, others stay. When something fails,
// what was made and changed is undone, in reverse order.
func apply(ctx context.Context, c *client.Client, p preseed) (err error) {
	a := &applier{c: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.rollBack(context.WithoutCancel(ctx)))
		}
	}()
	if err := a.config(ctx, p.Config); err != nil {
		return fmt.Errorf("server configuration: %w", err)
	}
	for _, n := range p.Networks {
		if err := a.network(ctx, n.NetworksPost); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	for _, s := range p.StoragePools {
		if err := a.pool(ctx, s); err != nil {
			return fmt.Errorf("storage pool %s: %w", s.Name, err)
		}
	}
	for _, pr := range p.Profiles {
		if err := a.profile(ctx, pr); err != nil {
			return fmt.Errorf("profile %s: %w", pr.Name, err)
		}
	}
	return nil
}

type applier struct {
	c    *client.Client
	undo []func(context.Context) error
}

func (a *applier) onFailure(fn func(context.Context) error) { a.undo = append(a.undo, fn) }

func (a *applier) rollBack(ctx context.Context) error {
	var errs []error
	for i := len(a.undo) - 1; i >= 0; i-- {
		if err := a.undo[i](ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (a *applier) config(ctx context.Context, want map[string]string) error {
	if len(want) == 0 {
		return nil
	}
	srv, etag, err := a.c.Server(ctx)
	if err != nil {
		return err
	}
	old := srv.ServerPut
	put := api.ServerPut{Config: maps.Clone(old.Config)}
	if put.Config == nil {
		put.Config = map[string]any{}
	}
	for k, v := range want {
		put.Config[k] = v
	}
	if err := a.c.UpdateServer(ctx, put, etag); err != nil {
		return err
	}
	a.onFailure(func(ctx context.Context) error { return a.c.UpdateServer(ctx, old, "") })
	return nil
}

func (a *applier) network(ctx context.Context, want api.NetworksPost) error {
	have, etag, err := a.c.Network(ctx, want.Name)
	if errors.Is(err, api.NotFound) {
		if err := a.c.CreateNetwork(ctx, want); err != nil {
			return err
		}
		a.onFailure(func(ctx context.Context) error { return a.c.DeleteNetwork(ctx, want.Name) })
		return nil
	}
	if err != nil {
		return err
	}
	if !have.Managed {
		return api.Errorf(api.Conflict, "the host has an interface of that name that is not managed")
	}
	put := api.NetworkPut{Config: overlaid(have.Config, want.Config), Description: or(want.Description, have.Description)}
	for _, key := range []string{"ipv4.address", "ipv6.address"} {
		if want.Config[key] == "auto" && have.Config[key] != "" {
			put.Config[key] = have.Config[key] // it has been chosen before
		}
	}
	if maps.Equal(put.Config, have.Config) && put.Description == have.Description {
		return nil
	}
	if err := a.c.UpdateNetwork(ctx, want.Name, put, etag); err != nil {
		return err
	}
	a.onFailure(func(ctx context.Context) error { return a.c.UpdateNetwork(ctx, want.Name, have.NetworkPut, "") })
	return nil
}

func (a *applier) pool(ctx context.Context, want api.StoragePoolsPost) error {
	have, etag, err := a.c.StoragePool(ctx, want.Name)
	if errors.Is(err, api.NotFound) {
		if err := a.c.CreateStoragePool(ctx, want); err != nil {
			return err
		}
		a.onFailure(func(ctx context.Context) error { return a.c.DeleteStoragePool(ctx, want.Name) })
		return nil
	}
	if err != nil {
		return err
	}
	if want.Driver != "" && want.Driver != have.Driver {
		return api.Errorf(api.Conflict, "it exists with driver %s, not %s", have.Driver, want.Driver)
	}
	put := api.StoragePoolPut{Config: overlaid(have.Config, want.Config), Description: or(want.Description, have.Description)}
	if maps.Equal(put.Config, have.Config) && put.Description == have.Description {
		return nil
	}
	if err := a.c.UpdateStoragePool(ctx, want.Name, put, etag); err != nil {
		return err
	}
	a.onFailure(func(ctx context.Context) error { return a.c.UpdateStoragePool(ctx, want.Name, have.StoragePoolPut, "") })
	return nil
}

func (a *applier) profile(ctx context.Context, want api.ProfilesPost) error {
	have, etag, err := a.c.Profile(ctx, want.Name)
	if errors.Is(err, api.NotFound) {
		if err := a.c.CreateProfile(ctx, want); err != nil {
			return err
		}
		a.onFailure(func(ctx context.Context) error { return a.c.DeleteProfile(ctx, want.Name) })
		return nil
	}
	if err != nil {
		return err
	}
	put := api.ProfilePut{
		Config: overlaid(have.Config, want.Config), Description: or(want.Description, have.Description),
		Devices: overlaid(have.Devices, want.Devices),
	}
	if err := a.c.UpdateProfile(ctx, want.Name, put, etag); err != nil {
		return err
	}
	a.onFailure(func(ctx context.Context) error { return a.c.UpdateProfile(ctx, want.Name, have.ProfilePut, "") })
	return nil
}

// overlaid is a copy of base with the entries of top in it.
func overlaid[V any](base, top map[string]V) map[string]V {
	out := map[string]V{}
	maps.Copy(out, base)
	maps.Copy(out, top)
	return out
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// dump prints the present set-up in the form that --preseed takes.
func dump(ctx context.Context, c *client.Client, out io.Writer) error {
	p := preseed{Config: map[string]string{}, Networks: []preseedNetwork{}, StoragePools: []api.StoragePoolsPost{}, Profiles: []api.ProfilesPost{}}
	srv, _, err := c.Server(ctx)
	if err != nil {
		return err
	}
	for k, v := range srv.Config {
		p.Config[k] = fmt.Sprint(v)
	}
	networks, err := c.Networks(ctx)
	if err != nil {
		return err
	}
	for _, n := range networks {
		if n.Managed {
			p.Networks = append(p.Networks, preseedNetwork{
				NetworksPost: api.NetworksPost{NetworkPut: n.NetworkPut, Name: n.Name, Type: n.Type}, Project: "default",
			})
		}
	}
	pools, err := c.StoragePools(ctx)
	if err != nil {
		return err
	}
	for _, s := range pools {
		p.StoragePools = append(p.StoragePools, api.StoragePoolsPost{StoragePoolPut: s.StoragePoolPut, Name: s.Name, Driver: s.Driver})
	}
	profiles, err := c.Profiles(ctx)
	if err != nil {
		return err
	}
	for _, pr := range profiles {
		p.Profiles = append(p.Profiles, api.ProfilesPost{ProfilePut: pr.ProfilePut, Name: pr.Name})
	}
	enc := yaml.NewEncoder(out)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(p), enc.Close())
}
