package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
	"github.com/croft-project/croft/internal/daemon"
)

const defaultDir = "/var/lib/croft"

// stateDir is the directory that the environment names, made absolute.
func stateDir() (string, error) {
	for _, name := range []string{"CROFT_DIR", "LXD_DIR"} {
		if dir := os.Getenv(name); dir != "" {
			return filepath.Abs(dir)
		}
	}
	return defaultDir, nil
}

// dial connects to the daemon of the state directory.
func dial(ctx context.Context) (*client.Client, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, api.Errorf(api.Internal, "state directory: %w", err)
	}
	return client.Dial(ctx, client.Options{Socket: filepath.Join(dir, daemon.SocketName), UserAgent: "croftd/" + daemon.Version})
}
