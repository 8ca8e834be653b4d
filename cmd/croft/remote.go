package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
)

const (
	localRemote = "local"
	defaultDir  = "/var/lib/croft"
)

// config is the client's config.yml, in LXD's format. Fields that croft does
// not know are kept.
type config struct {
	DefaultRemote string            `yaml:"default-remote"`
	Remotes       map[string]remote `yaml:"remotes"`
	Aliases       map[string]string `yaml:"aliases"`
	Rest          map[string]any    `yaml:",inline"`
}

// remote is a server that the user named.
type remote struct {
	Addr string         `yaml:"addr"`
	Rest map[string]any `yaml:",inline"`
}

// config loads config.yml; without one there is the remote local only.
func (g *global) config() (*config, error) {
	if g.conf != nil {
		return g.conf, nil
	}
	c := &config{}
	file, err := g.configFile()
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, api.Errorf(api.Invalid, "cannot read the client's configuration: %w", err)
	default:
		if err := yaml.Unmarshal(raw, c); err != nil {
			return nil, api.Errorf(api.Invalid, "client configuration %s is not valid YAML: %w", file, err)
		}
	}
	if c.DefaultRemote == "" {
		c.DefaultRemote = localRemote
	}
	if c.Remotes == nil {
		c.Remotes = map[string]remote{}
	}
	if _, ok := c.Remotes[localRemote]; !ok {
		c.Remotes[localRemote] = remote{Addr: "unix://"}
	}
	if c.Aliases == nil {
		c.Aliases = map[string]string{}
	}
	g.conf = c
	return c, nil
}

func (g *global) configFile() (string, error) {
	dir, err := g.configDir()
	return filepath.Join(dir, "config.yml"), err
}

// saveConfig replaces config.yml as a whole, so that a crash leaves the old one.
func (g *global) saveConfig() error {
	file, err := g.configFile()
	if err != nil {
		return err
	}
	raw, err := yamlBytes(g.conf)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return api.Errorf(api.Invalid, "cannot make the directory of the client's configuration: %w", err)
	}
	tmp := file + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return api.Errorf(api.Invalid, "cannot write the client's configuration: %w", err)
	}
	return os.Rename(tmp, file)
}

// parse splits [remote:]name. A name without a remote is on the default one.
func (g *global) parse(arg string) (remote, name string, err error) {
	conf, err := g.config()
	if err != nil {
		return "", "", err
	}
	remote, name, ok := strings.Cut(arg, ":")
	if !ok {
		remote, name = conf.DefaultRemote, arg
		if g.forceLocal {
			remote = localRemote
		}
	}
	if _, known := conf.Remotes[remote]; !known {
		return "", "", api.Errorf(api.NotFound, "the remote %q does not exist", remote).
			WithHint("write names without a remote, or with %q", localRemote+":")
	}
	return remote, name, nil
}

// socket is the unix socket of a remote.
func (g *global) socket(remote string) (string, error) {
	conf, err := g.config()
	if err != nil {
		return "", err
	}
	addr := conf.Remotes[remote].Addr
	path, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		return "", api.Errorf(api.Unsupported, "remote %q is at %s: only unix sockets can be used so far", remote, addr)
	}
	if path = strings.TrimPrefix(path, "//"); path != "" {
		return path, nil
	}
	if s := g.getenv("CROFT_SOCKET", "LXD_SOCKET"); s != "" {
		return s, nil
	}
	dir := g.getenv("CROFT_DIR", "LXD_DIR")
	if dir == "" {
		dir = defaultDir
	}
	return filepath.Join(dir, "unix.socket"), nil
}
