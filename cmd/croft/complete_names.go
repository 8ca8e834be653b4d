package main

import (
	"context"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

func instanceNames(ctx context.Context, c *client.Client) ([]string, error) {
	l, err := c.Instances(ctx, client.InstanceFilter{})
	return names(l, err, func(i api.Instance) string { return i.Name })
}

func profileNames(ctx context.Context, c *client.Client) ([]string, error) {
	l, err := c.Profiles(ctx)
	return names(l, err, func(p api.Profile) string { return p.Name })
}

// imageNames are the aliases; an image without one is named by fingerprint.
func imageNames(ctx context.Context, c *client.Client) ([]string, error) {
	l, err := c.Images(ctx)
	var out []string
	for _, i := range l {
		if len(i.Aliases) == 0 {
			out = append(out, shortFingerprint(i.Fingerprint))
		}
		for _, a := range i.Aliases {
			out = append(out, a.Name)
		}
	}
	return out, err
}

func aliasNames(ctx context.Context, c *client.Client) ([]string, error) {
	l, err := c.ImageAliases(ctx)
	return names(l, err, func(a api.ImageAliasesEntry) string { return a.Name })
}

func poolNames(ctx context.Context, c *client.Client) ([]string, error) {
	l, err := c.StoragePools(ctx)
	return names(l, err, func(p api.StoragePool) string { return p.Name })
}

func networkNames(ctx context.Context, c *client.Client) ([]string, error) {
	l, err := c.Networks(ctx)
	return names(l, err, func(n api.Network) string { return n.Name })
}

func operationIDs(ctx context.Context, c *client.Client) ([]string, error) {
	l, err := c.Operations(ctx, false)
	return names(l, err, func(o api.Operation) string { return o.ID })
}
