package main

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// nicFor is a network device on a network: by the name of a managed one, by
// the host's interface otherwise.
func nicFor(ctx context.Context, c *client.Client, network string) (configMap, error) {
	n, _, err := c.Network(ctx, network)
	switch {
	case err != nil:
		return nil, err
	case n.Managed:
		return configMap{"type": "nic", "network": network}, nil
	case n.Type == "bridge":
		return configMap{"type": "nic", "nictype": "bridged", "parent": network}, nil
	}
	return configMap{"type": "nic", "nictype": "macvlan", "parent": network}, nil
}

// profileNIC is nicFor as LXD's client writes it into profiles: bridges by
// parent, so that the profile does not depend on the managed network.
func profileNIC(ctx context.Context, c *client.Client, network string) (configMap, error) {
	n, _, err := c.Network(ctx, network)
	if err != nil {
		return nil, err
	}
	if n.Managed && n.Type == "bridge" {
		return configMap{"type": "nic", "nictype": "bridged", "parent": network}, nil
	}
	return nicFor(ctx, c, network)
}

// attachCommand adds a network device to an instance or a profile.
func attachCommand(g *global, use, short string, load loader, complete namesFunc,
	nic func(context.Context, *client.Client, string) (configMap, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(2, 4), ValidArgsFunction: g.complete(false, networkNames, complete),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, network, err := g.object(ctx, "network", args[0])
			if err != nil {
				return err
			}
			e, err := load(ctx, g, c, args[1])
			if err != nil {
				return err
			}
			dev, err := nic(ctx, c, network)
			if err != nil {
				return err
			}
			name := network
			if len(args) > 2 {
				name = args[2]
			}
			if len(args) > 3 {
				dev["name"] = args[3]
			}
			if _, ok := e.devices[name]; ok {
				return api.Errorf(api.Conflict, "device %s exists already in %s %s", name, e.kind, e.name)
			}
			e.devices[name] = dev
			return e.save(ctx)
		},
	}
}

func newNetworkAttach(g *global) *cobra.Command {
	return attachCommand(g, "attach [REMOTE:]NETWORK INSTANCE [DEVICE] [INTERFACE]",
		"Attach an instance to a network", loadInstance, instanceNames, nicFor)
}

func newNetworkAttachProfile(g *global) *cobra.Command {
	return attachCommand(g, "attach-profile [REMOTE:]NETWORK PROFILE [DEVICE] [INTERFACE]",
		"Attach a profile to a network", loadProfile, profileNames, profileNIC)
}

// detachCommand removes a network device from an instance or a profile.
func detachCommand(g *global, use, short string, load loader, complete namesFunc) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(2, 3), ValidArgsFunction: g.complete(false, networkNames, complete),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, network, err := g.object(ctx, "network", args[0])
			if err != nil {
				return err
			}
			e, err := load(ctx, g, c, args[1])
			if err != nil {
				return err
			}
			name := ""
			if len(args) > 2 {
				name = args[2]
			}
			if name, err = nicOn(e, network, name); err != nil {
				return err
			}
			delete(e.devices, name)
			return e.save(ctx)
		},
	}
}

// nicOn is the device of e on a network; name picks one of several.
func nicOn(e *entity, network, name string) (string, error) {
	on := func(dev configMap) bool {
		return dev["type"] == "nic" && (dev["network"] == network || dev["parent"] == network)
	}
	if name != "" {
		dev, ok := e.devices[name]
		switch {
		case !ok:
			return "", api.Errorf(api.NotFound, "%s %s has no device %q", e.kind, e.name, name)
		case !on(dev):
			return "", api.Errorf(api.Invalid, "device %s of %s %s is not on network %s", name, e.kind, e.name, network)
		}
		return name, nil
	}
	var found []string
	for _, d := range slices.Sorted(maps.Keys(e.devices)) {
		if on(e.devices[d]) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return "", api.Errorf(api.NotFound, "%s %s has no device on network %s", e.kind, e.name, network)
	case 1:
		return found[0], nil
	}
	return "", api.Errorf(api.Invalid, "%s %s has several devices on network %s: %q", e.kind, e.name, network, found).
		WithHint("name the device to detach")
}

func newNetworkDetach(g *global) *cobra.Command {
	return detachCommand(g, "detach [REMOTE:]NETWORK INSTANCE [DEVICE]",
		"Detach an instance from a network", loadInstance, instanceNames)
}

func newNetworkDetachProfile(g *global) *cobra.Command {
	return detachCommand(g, "detach-profile [REMOTE:]NETWORK PROFILE [DEVICE]",
		"Detach a profile from a network", loadProfile, profileNames)
}
