package inventory

import (
	"context"
	"errors"
	"maps"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/store"
)

// getServer reads the daemon's configuration; a new daemon has none.
func getServer(tx store.Tx) (*model.Server, store.Rev, error) {
	rec, rev, err := store.Get[model.Server](tx, model.ServerKey)
	if errors.Is(err, api.NotFound) {
		return &model.Server{Config: map[string]string{}}, 0, nil
	}
	return rec, rev, err
}

// GetServerConfig gives the daemon's configuration. The map is shared: it must
// not be modified.
func (i *Inventory) GetServerConfig(ctx context.Context) (cfg map[string]string, etag string, err error) {
	err = i.deps.Store.View(ctx, func(tx store.Tx) error {
		rec, rev, err := getServer(tx)
		if err != nil {
			return err
		}
		cfg, etag = rec.Config, etagOf(rev)
		return nil
	})
	return cfg, etag, err
}

// UpdateServerConfig changes the daemon's configuration. mutate changes the map
// it gets, and may run more than once. Errors: Precondition; Invalid, naming key,
// value and what is allowed.
func (i *Inventory) UpdateServerConfig(ctx context.Context, ifMatch string, mutate func(map[string]string) error) error {
	who := auth.From(ctx).Requestor()
	return i.deps.Store.Update(ctx, func(tx store.Tx) error {
		known, rev, err := getServer(tx)
		if err != nil {
			return err
		}
		if err := checkETag(ifMatch, rev, "server configuration"); err != nil {
			return err
		}
		cfg := maps.Clone(known.Config)
		if err := mutate(cfg); err != nil {
			return err
		}
		cfg = compact(cfg)
		if maps.Equal(cfg, known.Config) {
			return nil
		}
		if err := option.Server.Validate(cfg); err != nil {
			return err
		}
		if err := store.Put(tx, model.ServerKey, &model.Server{Config: cfg}); err != nil {
			return err
		}
		return emit(tx, who, "config-updated", "/1.0", nil)
	})
}
