package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
)

// deviceCommands are the device commands of instances or profiles.
type deviceCommands struct {
	g    *global
	kind string
	load loader
	name namesFunc
}

// newDevice is the group "device" below config and profile.
func newDevice(g *global, kind string, load loader, complete namesFunc) *cobra.Command {
	d := &deviceCommands{g: g, kind: kind, load: load, name: complete}
	cmd := group("device", "Manage the devices of an "+kind, d.add(), d.get(), d.list(), d.remove(), d.set(), d.show(), d.unset())
	if kind == "profile" {
		cmd.Short = "Manage the devices of a profile"
		return cmd
	}
	cmd.AddCommand(d.override())
	return cmd
}

// command makes one device command; run gets the entity and the arguments
// after its name.
func (d *deviceCommands) command(use, short string, low, high int, run func(context.Context, *entity, []string) error) *cobra.Command {
	verb, rest, _ := strings.Cut(use, " ")
	return &cobra.Command{
		Use:               strings.TrimSpace(verb + " [REMOTE:]" + strings.ToUpper(d.kind) + " " + rest),
		Short:             short,
		Args:              args(low, high),
		ValidArgsFunction: d.g.complete(false, d.name),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := d.g.object(cmd.Context(), d.kind, args[0])
			if err != nil {
				return err
			}
			e, err := d.load(cmd.Context(), d.g, c, name)
			if err != nil {
				return err
			}
			return run(cmd.Context(), e, args[1:])
		},
	}
}

// own is a device that the entity itself has.
func (e *entity) own(device string) (configMap, error) {
	if dev, ok := e.devices[device]; ok {
		return dev, nil
	}
	err := api.Errorf(api.NotFound, "%s %s has no device %q", e.kind, e.name, device)
	if _, ok := e.expandedDevices[device]; ok {
		return nil, err.WithHint("it comes from a profile; make it the instance's own with: croft config device override %s %s", e.name, device)
	}
	return nil, err
}

func (d *deviceCommands) add() *cobra.Command {
	cmd := d.command("add DEVICE TYPE [KEY=VALUE...]", "Add a device", 3, -1,
		func(ctx context.Context, e *entity, args []string) error {
			if _, ok := e.devices[args[0]]; ok {
				return api.Errorf(api.Conflict, "device %s exists already in %s %s", args[0], e.kind, e.name)
			}
			dev, err := parseKeyValues(args[2:])
			if err != nil {
				return err
			}
			dev["type"] = args[1]
			e.devices[args[0]] = dev
			if err := e.save(ctx); err != nil {
				return err
			}
			d.g.say("Device %s added to %s", args[0], e.name)
			return nil
		})
	cmd.Example = "  croft config device add web1 www disk source=/srv/www path=/var/www"
	return cmd
}

func (d *deviceCommands) get() *cobra.Command {
	return d.command("get DEVICE KEY", "Print the value of a device's key", 3, 3,
		func(_ context.Context, e *entity, args []string) error {
			dev, err := e.own(args[0])
			if err == nil {
				d.g.printf("%s\n", dev[args[1]])
			}
			return err
		})
}

func (d *deviceCommands) list() *cobra.Command {
	cmd := d.command("list", "List the devices", 1, 1, func(_ context.Context, e *entity, _ []string) error {
		d.g.printf("%s\n", strings.Join(slices.Sorted(maps.Keys(e.devices)), "\n"))
		return nil
	})
	cmd.Aliases = []string{"ls"}
	return cmd
}

func (d *deviceCommands) remove() *cobra.Command {
	cmd := d.command("remove DEVICE...", "Remove devices", 2, -1, func(ctx context.Context, e *entity, args []string) error {
		for _, name := range args {
			if _, err := e.own(name); err != nil {
				return err
			}
			delete(e.devices, name)
		}
		if err := e.save(ctx); err != nil {
			return err
		}
		for _, name := range args {
			d.g.say("Device %s removed from %s", name, e.name)
		}
		return nil
	})
	cmd.Aliases = []string{"rm"}
	return cmd
}

func (d *deviceCommands) set() *cobra.Command {
	return d.command("set DEVICE KEY=VALUE...", "Set keys of a device", 3, -1,
		func(ctx context.Context, e *entity, args []string) error {
			kv, err := d.g.parseSet(args[1:])
			if err != nil {
				return err
			}
			dev, err := e.own(args[0])
			if err != nil {
				return err
			}
			maps.Copy(dev, kv)
			return e.save(ctx)
		})
}

func (d *deviceCommands) show() *cobra.Command {
	return d.command("show", "Show the devices as YAML", 1, 1, func(_ context.Context, e *entity, _ []string) error {
		return d.g.printYAML(e.devices)
	})
}

func (d *deviceCommands) unset() *cobra.Command {
	return d.command("unset DEVICE KEY", "Unset a key of a device", 3, 3,
		func(ctx context.Context, e *entity, args []string) error {
			dev, err := e.own(args[0])
			if err != nil {
				return err
			}
			delete(dev, args[1])
			return e.save(ctx)
		})
}

func (d *deviceCommands) override() *cobra.Command {
	return d.command("override DEVICE [KEY=VALUE...]", "Make a profile's device the instance's own and change its keys", 2, -1,
		func(ctx context.Context, e *entity, args []string) error {
			if _, ok := e.devices[args[0]]; ok {
				return api.Errorf(api.Conflict, "device %s is already the own device of instance %s", args[0], e.name)
			}
			inherited, ok := e.expandedDevices[args[0]]
			if !ok {
				return api.Errorf(api.NotFound, "no profile of instance %s has a device %q", e.name, args[0])
			}
			kv, err := parseKeyValues(args[1:])
			if err != nil {
				return err
			}
			dev := maps.Clone(inherited)
			maps.Copy(dev, kv)
			e.devices[args[0]] = dev
			if err := e.save(ctx); err != nil {
				return err
			}
			d.g.say("Device %s overridden for %s", args[0], e.name)
			return nil
		})
}
