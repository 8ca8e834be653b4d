package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

func newNetwork(g *global) *cobra.Command {
	cmd := group("network", "Manage networks and attach instances to them",
		newNetworkAttach(g), newNetworkAttachProfile(g), newNetworkCreate(g), newNetworkDelete(g), newNetworkDetach(g),
		newNetworkDetachProfile(g), newNetworkEdit(g), newNetworkInfo(g), newNetworkList(g), newNetworkLeases(g),
		newNetworkRename(g), newNetworkShow(g))
	cmd.AddCommand(keyCommands(g, "network", loadNetwork, networkNames)...)
	return cmd
}

// networkCommand is a command about one network that exists.
func networkCommand(g *global, use, short string, run func(context.Context, *client.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(1, 1), ValidArgsFunction: g.complete(false, networkNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "network", args[0])
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, name)
		},
	}
}

func newNetworkCreate(g *global) *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use: "create [REMOTE:]NETWORK [KEY=VALUE...]", Short: "Create a network", Args: args(1, -1),
		Example: "  croft network create lan0 ipv4.address=10.66.0.1/24 ipv6.address=none",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "network", args[0])
			if err != nil {
				return err
			}
			kv, err := parseKeyValues(args[1:])
			if err != nil {
				return err
			}
			post := api.NetworksPost{Name: name, Type: kind, NetworkPut: api.NetworkPut{Config: kv}}
			if err := c.CreateNetwork(cmd.Context(), post); err != nil {
				return err
			}
			g.say("Network %s created", name)
			return nil
		},
	}
	cmd.Flags().StringVarP(&kind, "type", "t", "", "type of the network (default bridge)")
	targetFlag(cmd)
	return cmd
}

func newNetworkDelete(g *global) *cobra.Command {
	cmd := networkCommand(g, "delete [REMOTE:]NETWORK", "Delete a network",
		func(ctx context.Context, c *client.Client, name string) error {
			err := c.DeleteNetwork(ctx, name)
			if err == nil {
				g.say("Network %s deleted", name)
			}
			return err
		})
	cmd.Aliases = []string{"rm"}
	return cmd
}

func newNetworkEdit(g *global) *cobra.Command {
	return networkCommand(g, "edit [REMOTE:]NETWORK", "Edit a network as YAML",
		func(ctx context.Context, c *client.Client, name string) error {
			n, etag, err := c.Network(ctx, name)
			if err != nil {
				return err
			}
			if !n.Managed {
				return api.Errorf(api.Invalid, "network %s is an interface of the host and has no configuration", name)
			}
			return editYAML(ctx, g, "network "+name, n.NetworkPut, func(put api.NetworkPut) error {
				return c.UpdateNetwork(ctx, name, put, etag)
			})
		})
}

func newNetworkShow(g *global) *cobra.Command {
	cmd := networkCommand(g, "show [REMOTE:]NETWORK", "Show a network as YAML",
		func(ctx context.Context, c *client.Client, name string) error {
			n, _, err := c.Network(ctx, name)
			if err != nil {
				return err
			}
			return g.printYAML(n)
		})
	targetFlag(cmd)
	return cmd
}

func newNetworkRename(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "rename [REMOTE:]NETWORK NEW-NAME", Aliases: []string{"mv"}, Short: "Rename a network", Args: args(2, 2),
		ValidArgsFunction: g.complete(false, networkNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "network", args[0])
			if err != nil {
				return err
			}
			if err := c.RenameNetwork(cmd.Context(), name, args[1]); err != nil {
				return err
			}
			g.say("Network %s renamed to %s", name, args[1])
			return nil
		},
	}
}

func newNetworkList(g *global) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List networks", Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := g.optional(cmd.Context(), args)
			if err != nil {
				return err
			}
			networks, err := c.Networks(cmd.Context())
			if err != nil {
				return err
			}
			t := table{
				header: []string{"NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE"},
				data:   networks,
			}
			for _, n := range networks {
				if n.Type == "loopback" {
					continue
				}
				t.add(n.Name, n.Type, yesNo(n.Managed), n.Config["ipv4.address"], n.Config["ipv6.address"],
					n.Description, strconv.Itoa(len(n.UsedBy)), strings.ToUpper(n.Status))
			}
			return g.render(format, t)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func newNetworkLeases(g *global) *cobra.Command {
	var format string
	cmd := networkCommand(g, "list-leases [REMOTE:]NETWORK", "List the addresses in use on a network",
		func(ctx context.Context, c *client.Client, name string) error {
			leases, err := c.NetworkLeases(ctx, name)
			if err != nil {
				return err
			}
			t := table{header: []string{"HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"}, data: leases}
			for _, l := range leases {
				t.add(l.Hostname, l.Hwaddr, l.Address, strings.ToUpper(l.Type))
			}
			return g.render(format, t)
		})
	formatFlag(cmd, &format)
	return cmd
}

func newNetworkInfo(g *global) *cobra.Command {
	cmd := networkCommand(g, "info [REMOTE:]NETWORK", "Show what the kernel says about a network",
		func(ctx context.Context, c *client.Client, name string) error {
			st, err := c.NetworkState(ctx, name)
			if err != nil {
				return err
			}
			g.printf("%s", networkInfo(name, st))
			return nil
		})
	targetFlag(cmd)
	return cmd
}

func networkInfo(name string, st api.NetworkState) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Name: %s\nMAC address: %s\nMTU: %d\nState: %s\nType: %s\n", name, st.Hwaddr, st.Mtu, st.State, st.Type)
	if len(st.Addresses) > 0 {
		b.WriteString("\nIP addresses:\n")
		for _, a := range st.Addresses {
			fmt.Fprintf(&b, "  %s\t%s/%s (%s)\n", a.Family, a.Address, a.Netmask, a.Scope)
		}
	}
	c := st.Counters
	fmt.Fprintf(&b, "\nNetwork usage:\n  Bytes received: %s\n  Bytes sent: %s\n  Packets received: %d\n  Packets sent: %d\n",
		siSize(c.BytesReceived), siSize(c.BytesSent), c.PacketsReceived, c.PacketsSent)
	if br := st.Bridge; br != nil {
		fmt.Fprintf(&b, "\nBridge:\n  ID: %s\n  STP: %t\n  Forward delay: %d\n  Default VLAN ID: %d\n  VLAN filtering: %t\n  Upper devices: %s\n",
			br.ID, br.STP, br.ForwardDelay, br.VLANDefault, br.VLANFiltering, strings.Join(br.UpperDevices, ", "))
	}
	return b.String()
}
