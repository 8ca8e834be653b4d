package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/store"
)

// firstProfiles are what a new daemon begins with. The default profile gets its
// devices from croftd init.
func firstProfiles() []*model.Profile {
	return []*model.Profile{
		{
			Project: model.DefaultProject, Name: "default",
			ProfilePut: api.ProfilePut{
				Description: "Default profile", Config: map[string]string{}, Devices: map[string]map[string]string{},
			},
		},
		{
			Project: model.DefaultProject, Name: "docker",
			ProfilePut: api.ProfilePut{
				Description: "Profile for instances that run Docker or another container engine",
				Config: map[string]string{
					"linux.kernel_modules": "overlay,nf_nat",
					"security.nesting":     "true",
				},
				Devices: map[string]map[string]string{"fuse": {"type": "unix-char", "path": "/dev/fuse"}},
			},
		},
	}
}

// addProfiles makes the first profiles at the first start. The default profile
// cannot be deleted, so its absence tells a new database; a docker profile that
// was deleted stays so.
func addProfiles(ctx context.Context, s store.Store) error {
	return s.Update(ctx, func(tx store.Tx) error {
		known, err := store.Exists(tx, model.ProfileKey(model.DefaultProject, "default"))
		if err != nil || known {
			return err
		}
		for _, p := range firstProfiles() {
			if err := store.Put(tx, p.Key(), p); err != nil {
				return err
			}
		}
		return nil
	})
}

// shutdownTimeout is the configured time for operations when the host goes down.
func shutdownTimeout(s store.Store, log *slog.Logger) time.Duration {
	cfg := map[string]string{}
	err := s.View(context.Background(), func(tx store.Tx) error {
		rec, _, err := store.Get[model.Server](tx, model.ServerKey)
		if err == nil {
			cfg = rec.Config
		}
		if errors.Is(err, api.NotFound) {
			err = nil
		}
		return err
	})
	if err != nil {
		log.Warn("the configuration could not be read", "err", err)
	}
	minutes, err := strconv.Atoi(option.Server.Get(cfg, "core.shutdown_timeout"))
	if err != nil {
		minutes = 5
	}
	return time.Duration(minutes) * time.Minute
}
