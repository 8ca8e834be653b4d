package main

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// createOptions are the flags that init and launch share.
type createOptions struct {
	config       []string
	devices      []string
	profiles     []string
	noProfiles   bool
	ephemeral    bool
	network      string
	storage      string
	instanceType string
	target       string
	vm           bool
	empty        bool
}

func (o *createOptions) flags(g *global, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.config, "config", "c", nil, "configuration `key=value` of the new instance; may be repeated")
	f.StringArrayVarP(&o.devices, "device", "d", nil, "`device,key=value` of the new instance; may be repeated")
	f.StringArrayVarP(&o.profiles, "profile", "p", nil, "profile to use instead of default; may be repeated")
	f.BoolVar(&o.noProfiles, "no-profiles", false, "use no profile at all")
	f.BoolVarP(&o.ephemeral, "ephemeral", "e", false, "delete the instance when it stops")
	f.StringVarP(&o.network, "network", "n", "", "network to attach as eth0")
	f.StringVarP(&o.storage, "storage", "s", "", "storage pool of the root disk")
	f.StringVarP(&o.instanceType, "type", "t", "", "size of the instance, such as c2-m4")
	f.StringVar(&o.target, "target", "", "cluster member; refused, as the server is not clustered")
	f.BoolVar(&o.vm, "vm", false, "virtual machine; refused, as Croft runs containers")
	f.BoolVar(&o.empty, "empty", false, "create the instance without an image")
	g.completeFlag(cmd, "profile", profileNames)
	g.completeFlag(cmd, "network", networkNames)
	g.completeFlag(cmd, "storage", poolNames)
	cmd.ValidArgsFunction = g.complete(false, imageNames)
	cmd.Args = args(1, 2)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if o.empty && len(args) > 1 {
			return api.Errorf(api.Invalid, "--empty takes no image: give only the name, not %q", args[0])
		}
		return nil
	}
}

func newInit(g *global) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "init [REMOTE:]IMAGE [REMOTE:][NAME]",
		Short: "Create an instance from an image without starting it",
		Example: `  croft init debian/12 web1 -c limits.memory=1GiB
  croft init debian/12 web1 < web1.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, _, err := runCreate(cmd.Context(), g, o, args)
			return err
		},
	}
	o.flags(g, cmd)
	return cmd
}

func newLaunch(g *global) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "launch [REMOTE:]IMAGE [REMOTE:][NAME]",
		Short: "Create an instance from an image and start it",
		Example: `  croft launch debian/12 web1
  croft launch debian/12 web1 < web1.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error { return runLaunch(cmd.Context(), g, o, args) },
	}
	o.flags(g, cmd)
	return cmd
}

func runLaunch(ctx context.Context, g *global, o createOptions, args []string) error {
	c, name, err := runCreate(ctx, g, o, args)
	if err != nil {
		return err
	}
	g.say("Starting %s", name)
	return g.changeState(ctx, c, name, api.InstanceStatePut{Action: "start", Timeout: -1})
}

// runCreate creates an instance and gives its name.
func runCreate(ctx context.Context, g *global, o createOptions, args []string) (*client.Client, string, error) {
	if err := o.refuse(); err != nil {
		return nil, "", err
	}
	image, target := "", args[0]
	if !o.empty {
		image, target = args[0], ""
		if len(args) > 1 {
			target = args[1]
		}
	}
	c, name, err := g.createTarget(ctx, image, target)
	if err != nil {
		return nil, "", err
	}
	if name == "" {
		g.say("Creating the instance")
	} else {
		g.say("Creating %s", name)
	}
	post, err := g.createRequest(ctx, c, o, name)
	if err != nil {
		return nil, "", err
	}
	if post.Source, err = imageSource(ctx, g, c, image); err != nil {
		return nil, "", err
	}
	op, err := c.CreateInstance(ctx, post)
	if err != nil {
		return nil, "", err
	}
	done, err := g.wait(ctx, op, "Creating the instance")
	if err != nil {
		return nil, "", err
	}
	if name == "" {
		name = client.CreatedName(done)
		g.say("Instance name is: %s", name)
	}
	return c, name, g.warnNoNetwork(ctx, c, name)
}

// refuse rejects what Croft does not do.
func (o *createOptions) refuse() error {
	switch {
	case o.vm:
		return api.Errorf(api.Unsupported, "--vm: virtual machines are not supported, only containers")
	case o.target != "":
		return api.Errorf(api.Invalid, "--target %s: members can be chosen only when the server is clustered", o.target)
	case o.noProfiles && len(o.profiles) > 0:
		return api.Errorf(api.Invalid, "--no-profiles and --profile %s exclude each other", o.profiles[0])
	}
	return nil
}

// createTarget is the server and the name of a new instance. It is made where
// the image is, unless the name has a remote.
func (g *global) createTarget(ctx context.Context, image, target string) (*client.Client, string, error) {
	if strings.Contains(target, ":") || image == "" {
		return g.target(ctx, target)
	}
	c, _, err := g.target(ctx, image)
	return c, target, err
}

// createRequest puts the request together: YAML from standard input first,
// then what the flags say.
func (g *global) createRequest(ctx context.Context, c *client.Client, o createOptions, name string) (api.InstancesPost, error) {
	post := api.InstancesPost{Name: name, InstanceType: o.instanceType, Type: api.InstanceTypeContainer}
	if !g.stdinTerminal() {
		raw, err := g.readStdin()
		if err != nil {
			return post, err
		}
		if err := yaml.Unmarshal(raw, &post.InstancePut); err != nil {
			return post, api.Errorf(api.Invalid, "configuration on standard input is not valid YAML: %w", err)
		}
	}
	kv, err := parseKeyValues(o.config)
	if err != nil {
		return post, err
	}
	post.Config, post.Devices = orEmpty(post.Config), orEmpty(post.Devices)
	maps.Copy(post.Config, kv)
	post.Ephemeral = post.Ephemeral || o.ephemeral
	switch {
	case o.noProfiles:
		post.Profiles = []string{}
	case len(o.profiles) > 0:
		post.Profiles = o.profiles
	}
	if o.network != "" {
		dev, err := nicFor(ctx, c, o.network)
		if err != nil {
			return post, fmt.Errorf("--network %s: %w", o.network, err)
		}
		dev["name"] = "eth0"
		post.Devices["eth0"] = dev
	}
	if o.storage != "" {
		if _, _, err := c.StoragePool(ctx, o.storage); err != nil {
			return post, fmt.Errorf("--storage %s: %w", o.storage, err)
		}
		post.Devices["root"] = configMap{"type": "disk", "path": "/", "pool": o.storage}
	}
	return post, overrideDevices(ctx, c, &post, o.devices)
}

// overrideDevices applies DEVICE,KEY=VALUE flags. A device that comes from a
// profile is copied from it first.
func overrideDevices(ctx context.Context, c *client.Client, post *api.InstancesPost, flags []string) error {
	for _, flag := range flags {
		name, kv, ok := strings.Cut(flag, ",")
		key, value, ok2 := strings.Cut(kv, "=")
		if !ok || !ok2 || name == "" || key == "" {
			return api.Errorf(api.Invalid, "--device %s: want DEVICE,KEY=VALUE", flag)
		}
		if post.Devices[name] == nil {
			dev, err := profileDevice(ctx, c, post.Profiles, name)
			if err != nil {
				return err
			}
			post.Devices[name] = dev
		}
		post.Devices[name][key] = value
	}
	return nil
}

// profileDevice is a copy of the device that the profiles give, empty if none
// has it. nil profiles are the default one.
func profileDevice(ctx context.Context, c *client.Client, profiles []string, device string) (configMap, error) {
	if profiles == nil {
		profiles = []string{"default"}
	}
	dev := configMap{}
	for _, name := range profiles {
		p, _, err := c.Profile(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("profile %s: %w", name, err)
		}
		if d, ok := p.Devices[device]; ok {
			dev = maps.Clone(d)
		}
	}
	return dev, nil
}

// imageSource finds out whether an image argument is an alias or a
// fingerprint. Without an image the instance stays empty.
func imageSource(ctx context.Context, g *global, c *client.Client, arg string) (api.InstanceSource, error) {
	if arg == "" {
		return api.InstanceSource{Type: "none"}, nil
	}
	_, image, err := g.parse(arg)
	if err != nil {
		return api.InstanceSource{}, err
	}
	fingerprint, err := resolveImage(ctx, c, image)
	return api.InstanceSource{Type: "image", Fingerprint: fingerprint}, err
}

// warnNoNetwork tells of an instance without any network interface.
func (g *global) warnNoNetwork(ctx context.Context, c *client.Client, name string) error {
	inst, _, err := c.Instance(ctx, name)
	if err != nil {
		return err
	}
	for _, dev := range inst.ExpandedDevices {
		if dev["type"] == "nic" {
			return nil
		}
	}
	fmt.Fprintf(g.stderr, `
The instance has no network interface.
  To create a network, use: croft network create
  To attach it to the instance, use: croft network attach

`)
	return nil
}
