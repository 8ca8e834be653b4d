package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

func newStorage(g *global) *cobra.Command {
	cmd := group("storage", "Manage storage pools and volumes",
		newStorageCreate(g), newStorageDelete(g), newStorageEdit(g), newStorageInfo(g), newStorageList(g), newStorageShow(g),
		group("volume", "Manage storage volumes", newVolumeList(g), newVolumeShow(g)))
	cmd.AddCommand(keyCommands(g, "storage pool", loadPool, poolNames)...)
	return cmd
}

// poolCommand is a command about one pool that exists.
func poolCommand(g *global, use, short string, run func(context.Context, *client.Client, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args(1, 1), ValidArgsFunction: g.complete(false, poolNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "storage pool", args[0])
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, name)
		},
	}
	return cmd
}

func newStorageCreate(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create [REMOTE:]POOL DRIVER [KEY=VALUE...]", Short: "Create a storage pool", Args: args(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "storage pool", args[0])
			if err != nil {
				return err
			}
			kv, err := parseKeyValues(args[2:])
			if err != nil {
				return err
			}
			post := api.StoragePoolsPost{Name: name, Driver: args[1], StoragePoolPut: api.StoragePoolPut{Config: kv}}
			if err := c.CreateStoragePool(cmd.Context(), post); err != nil {
				return err
			}
			g.say("Storage pool %s created", name)
			return nil
		},
	}
	targetFlag(cmd)
	return cmd
}

func newStorageDelete(g *global) *cobra.Command {
	cmd := poolCommand(g, "delete [REMOTE:]POOL", "Delete a storage pool",
		func(ctx context.Context, c *client.Client, name string) error {
			err := c.DeleteStoragePool(ctx, name)
			if err == nil {
				g.say("Storage pool %s deleted", name)
			}
			return err
		})
	cmd.Aliases = []string{"rm"}
	return cmd
}

func newStorageEdit(g *global) *cobra.Command {
	return poolCommand(g, "edit [REMOTE:]POOL", "Edit a storage pool as YAML",
		func(ctx context.Context, c *client.Client, name string) error {
			p, etag, err := c.StoragePool(ctx, name)
			if err != nil {
				return err
			}
			return editYAML(ctx, g, "storage pool "+name, p.StoragePoolPut, func(put api.StoragePoolPut) error {
				return c.UpdateStoragePool(ctx, name, put, etag)
			})
		})
}

func newStorageList(g *global) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List storage pools", Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := g.optional(cmd.Context(), args)
			if err != nil {
				return err
			}
			pools, err := c.StoragePools(cmd.Context())
			if err != nil {
				return err
			}
			t := table{header: []string{"NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"}, data: pools}
			for _, p := range pools {
				t.add(p.Name, p.Driver, p.Config["source"], p.Description, strconv.Itoa(len(p.UsedBy)), strings.ToUpper(p.Status))
			}
			return g.render(format, t)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func newStorageShow(g *global) *cobra.Command {
	var resources bool
	cmd := poolCommand(g, "show [REMOTE:]POOL", "Show a storage pool as YAML",
		func(ctx context.Context, c *client.Client, name string) error {
			if resources {
				res, err := c.StoragePoolResources(ctx, name)
				if err != nil {
					return err
				}
				return g.printYAML(res)
			}
			p, _, err := c.StoragePool(ctx, name)
			if err != nil {
				return err
			}
			slices.Sort(p.UsedBy)
			return g.printYAML(p)
		})
	cmd.Flags().BoolVar(&resources, "resources", false, "show the space and inodes of the pool")
	targetFlag(cmd)
	return cmd
}

func newStorageInfo(g *global) *cobra.Command {
	var bytes bool
	cmd := poolCommand(g, "info [REMOTE:]POOL", "Show the space of a storage pool and what uses it",
		func(ctx context.Context, c *client.Client, name string) error {
			p, _, err := c.StoragePool(ctx, name)
			if err != nil {
				return err
			}
			res, err := c.StoragePoolResources(ctx, name)
			if err != nil {
				return err
			}
			return g.printYAML(poolInfo(p, res, bytes))
		})
	cmd.Flags().BoolVar(&bytes, "bytes", false, "show the space in bytes")
	targetFlag(cmd)
	return cmd
}

// poolInfo is what storage info shows: facts and users, by kind of object.
func poolInfo(p api.StoragePool, res api.ResourcesStoragePool, bytes bool) map[string]any {
	show := func(n uint64) string {
		if bytes {
			return strconv.FormatUint(n, 10)
		}
		return iecSize(int64(n))
	}
	used := map[string][]string{}
	for _, path := range p.UsedBy {
		path, _, _ = strings.Cut(path, "?")
		parts := strings.Split(strings.TrimPrefix(path, "/1.0/"), "/")
		if len(parts) > 1 {
			used[parts[0]] = append(used[parts[0]], parts[len(parts)-1])
		}
	}
	for _, kind := range slices.Collect(maps.Keys(used)) {
		slices.Sort(used[kind])
	}
	return map[string]any{
		"info": configMap{
			"name": p.Name, "driver": p.Driver, "description": p.Description,
			"space used": show(res.Space.Used), "total space": show(res.Space.Total),
		},
		"used by": used,
	}
}

func newVolumeList(g *global) *cobra.Command {
	var format string
	cmd := poolCommand(g, "list [REMOTE:]POOL", "List the volumes of a pool",
		func(ctx context.Context, c *client.Client, pool string) error {
			volumes, err := c.StorageVolumes(ctx, pool)
			if err != nil {
				return err
			}
			t := table{header: []string{"TYPE", "NAME", "DESCRIPTION", "CONTENT-TYPE", "USED BY"}, data: volumes}
			for _, v := range volumes {
				t.add(v.Type, v.Name, v.Description, v.ContentType, strconv.Itoa(len(v.UsedBy)))
			}
			return g.render(format, t)
		})
	cmd.Aliases = []string{"ls"}
	formatFlag(cmd, &format)
	return cmd
}

func newVolumeShow(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "show [REMOTE:]POOL TYPE/VOLUME", Short: "Show a volume as YAML", Args: args(2, 2),
		ValidArgsFunction: g.complete(false, poolNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, pool, err := g.object(cmd.Context(), "storage pool", args[0])
			if err != nil {
				return err
			}
			kind, name, ok := strings.Cut(args[1], "/")
			if !ok {
				kind, name = "custom", args[1]
			}
			v, _, err := c.StorageVolume(cmd.Context(), pool, kind, name)
			if err != nil {
				return err
			}
			return g.printYAML(v)
		},
	}
}
