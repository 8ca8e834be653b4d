package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

type initOptions struct {
	auto, minimal, preseed, dump bool

	networkAddress string
	networkPort    int
	backend        string
	pool           string
	createDevice   string
	createLoop     int
	trustPassword  string
}

func newInit() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use: "init", Short: "Set the daemon up", Args: noArgs,
		Long: "Makes a storage pool, a network, and the default profile's devices that use them.\n" +
			"It may be repeated: what is there already stays.",
		Example: "  croftd init --auto\n  croftd init --auto --storage-backend=dir\n  croftd init --preseed < preseed.yaml\n  croftd init --dump",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			return runInit(cmd.Context(), c, o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.auto, "auto", false, "choose everything, ask nothing")
	f.BoolVar(&o.minimal, "minimal", false, "the same as --auto")
	f.BoolVar(&o.preseed, "preseed", false, "read the set-up from standard input, as YAML")
	f.BoolVar(&o.dump, "dump", false, "print the present set-up, as YAML that --preseed takes")
	f.StringVar(&o.backend, "storage-backend", "", "`DRIVER` of the storage pool: overlay or dir (default: overlay where it works)")
	f.StringVar(&o.pool, "storage-pool", "", "`NAME` of the storage pool (default: default)")
	f.StringVar(&o.networkAddress, "network-address", "", "`ADDRESS` to serve the API on for other hosts (default: none)")
	f.IntVar(&o.networkPort, "network-port", -1, "`PORT` for --network-address (default: 8443)")
	f.StringVar(&o.createDevice, "storage-create-device", "", "not supported by this version")
	f.IntVar(&o.createLoop, "storage-create-loop", -1, "not supported by this version")
	f.StringVar(&o.trustPassword, "trust-password", "", "not supported by this version")
	for _, name := range []string{"minimal", "storage-create-device", "storage-create-loop", "trust-password"} {
		f.Lookup(name).Hidden = true
	}
	return cmd
}

// check refuses combinations that mean nothing.
func (o initOptions) check() error {
	modes := 0
	for _, m := range []bool{o.auto || o.minimal, o.preseed, o.dump} {
		if m {
			modes++
		}
	}
	switch {
	case modes > 1:
		return usageError{errors.New("--auto, --preseed and --dump exclude each other")}
	case modes == 0:
		return usageError{errors.New("this version asks no questions: give --auto, --preseed or --dump")}
	case !o.auto && !o.minimal && (o.backend != "" || o.pool != "" || o.networkAddress != "" || o.networkPort != -1):
		return usageError{errors.New("the flags --storage-* and --network-* go with --auto")}
	case o.networkPort != -1 && o.networkAddress == "":
		return usageError{errors.New("--network-port goes with --network-address")}
	case o.createDevice != "" || o.createLoop != -1:
		return api.Errorf(api.Unsupported, "--storage-create-device and --storage-create-loop are not supported by this version")
	case o.trustPassword != "":
		return api.Errorf(api.Unsupported, "--trust-password is not supported by this version")
	}
	return nil
}

func runInit(ctx context.Context, c *client.Client, o initOptions, in io.Reader, out io.Writer) error {
	switch {
	case o.dump:
		return dump(ctx, c, out)
	case o.preseed:
		p, err := readPreseed(in)
		if err != nil {
			return err
		}
		return apply(ctx, c, p)
	}
	for attempt := 0; ; attempt++ {
		p, err := automatic(ctx, c, o)
		if err != nil {
			return err
		}
		err = apply(ctx, c, p)
		// Another daemon of this host may just have made a bridge of the chosen
		// name, or of the chosen addresses: the next choice sees it.
		if attempt >= bridgeAttempts || len(p.Networks) == 0 || !errors.Is(err, api.Conflict) {
			return err
		}
	}
}

// bridgeAttempts bounds how often another daemon's bridge may come in between.
const bridgeAttempts = 5

// maxPreseed bounds what is read from standard input.
const maxPreseed = 1 << 20

// preseed is LXD's format, with what its own dump adds to the API's types.
type preseed struct {
	Config       map[string]string      `yaml:"config"`
	Networks     []preseedNetwork       `yaml:"networks"`
	StoragePools []api.StoragePoolsPost `yaml:"storage_pools"`
	Profiles     []api.ProfilesPost     `yaml:"profiles"`
	Projects     []preseedProject       `yaml:"projects,omitempty"`
	Cluster      any                    `yaml:"cluster,omitempty"`
}

type preseedNetwork struct {
	api.NetworksPost `yaml:",inline"`
	Project          string `yaml:"project,omitempty"`
}

type preseedProject struct {
	Name        string            `yaml:"name"`
	Description string            `yaml:"description"`
	Config      map[string]string `yaml:"config"`
}

// readPreseed reads YAML; nothing at all is an empty set-up. Unknown fields are
// refused: a typing error must not be ignored silently.
func readPreseed(in io.Reader) (preseed, error) {
	var p preseed
	data, err := io.ReadAll(io.LimitReader(in, maxPreseed+1))
	if err != nil {
		return p, fmt.Errorf("read the preseed: %w", err)
	}
	if len(data) > maxPreseed {
		return p, api.Errorf(api.TooLarge, "the preseed is larger than %d bytes", maxPreseed)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return p, api.Errorf(api.Invalid, "the preseed is not valid: %w", err)
	}
	return p, p.check()
}

// check refuses what this version does not have before anything is changed.
func (p preseed) check() error {
	if p.Cluster != nil {
		return api.Errorf(api.Unsupported, "preseed field cluster: clusters are not supported by this version")
	}
	for _, n := range p.Networks {
		if n.Project != "" && n.Project != "default" {
			return api.Errorf(api.Unsupported, "preseed network %s: project %q: this version has the project default", n.Name, n.Project)
		}
	}
	for _, pr := range p.Projects {
		if pr.Name != "default" {
			return api.Errorf(api.Unsupported, "preseed project %q: this version has the project default", pr.Name)
		}
	}
	return nil
}

// defaultPool and defaultBridge are the names that init chooses.
const (
	defaultPool   = "default"
	defaultBridge = "croftbr"
)

// automatic works out what is missing on this daemon.
func automatic(ctx context.Context, c *client.Client, o initOptions) (preseed, error) {
	var p preseed
	srv, _, err := c.Server(ctx)
	if err != nil {
		return p, err
	}
	if o.networkAddress != "" {
		p.Config = map[string]string{"core.https_address": listenAddress(o)}
	}
	pools, err := c.StoragePools(ctx)
	if err != nil {
		return p, err
	}
	networks, err := c.Networks(ctx)
	if err != nil {
		return p, err
	}
	profile, _, err := c.Profile(ctx, "default")
	if err != nil {
		return p, err
	}
	pool, add := choosePool(pools, srv.Environment.StorageSupportedDrivers, o)
	if add != nil {
		p.StoragePools = append(p.StoragePools, *add)
	}
	bridge, make := chooseBridge(networks)
	if make {
		p.Networks = append(p.Networks, preseedNetwork{NetworksPost: api.NetworksPost{
			Name: bridge, Type: "bridge",
			NetworkPut: api.NetworkPut{Config: map[string]string{"ipv4.address": "auto", "ipv6.address": "auto"}},
		}})
	}
	if devices := missingDevices(profile.Devices, pool, bridge); len(devices) > 0 {
		p.Profiles = append(p.Profiles, api.ProfilesPost{
			Name:       "default",
			ProfilePut: api.ProfilePut{Description: profile.Description, Devices: devices},
		})
	}
	return p, nil
}

func listenAddress(o initOptions) string {
	port := o.networkPort
	if port < 0 {
		port = 8443
	}
	return net.JoinHostPort(strings.Trim(o.networkAddress, "[]"), strconv.Itoa(port))
}

// choosePool takes the pool that was named, else the one called default, else
// the first that is there; add is set when it has to be made.
func choosePool(pools []api.StoragePool, drivers []api.ServerStorageDriverInfo, o initOptions) (name string, add *api.StoragePoolsPost) {
	name = o.pool
	if name == "" && len(pools) > 0 {
		name = pools[0].Name
	}
	if name == "" || slices.ContainsFunc(pools, func(p api.StoragePool) bool { return o.pool == "" && p.Name == defaultPool }) {
		name = defaultPool
	}
	if slices.ContainsFunc(pools, func(p api.StoragePool) bool { return p.Name == name }) {
		return name, nil
	}
	driver := o.backend
	if driver == "" {
		driver = "dir"
		if slices.ContainsFunc(drivers, func(d api.ServerStorageDriverInfo) bool { return d.Name == "overlay" }) {
			driver = "overlay"
		}
	}
	return name, &api.StoragePoolsPost{Name: name, Driver: driver}
}

// chooseBridge takes a managed bridge that is there, else a name that no
// interface of the host has: other daemons have bridges too.
func chooseBridge(networks []api.Network) (name string, make bool) {
	taken := map[string]bool{}
	for _, n := range networks {
		if n.Managed && n.Type == "bridge" {
			return n.Name, false
		}
		taken[n.Name] = true
	}
	for i := 0; ; i++ {
		if name := defaultBridge + strconv.Itoa(i); !taken[name] {
			return name, true
		}
	}
}

// missingDevices are the default profile's network and disk, as far as it does
// not have them under whatever name.
func missingDevices(have map[string]map[string]string, pool, bridge string) map[string]map[string]string {
	add := map[string]map[string]string{
		"eth0": {"type": "nic", "name": "eth0", "network": bridge},
		"root": {"type": "disk", "path": "/", "pool": pool},
	}
	for name, d := range have {
		delete(add, name)
		switch {
		case d["type"] == "nic" && d["name"] == "eth0":
			delete(add, "eth0")
		case d["type"] == "disk" && d["path"] == "/":
			delete(add, "root")
		}
	}
	return add
}
