package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/option"
	"github.com/croft-project/croft/internal/store"
	"github.com/croft-project/croft/internal/store/bolt"
)

// NeedsStart tells whether a daemon on a state directory would start instances,
// without starting it. Where one runs already nothing is needed.
func NeedsStart(ctx context.Context, stateDir string) (needed bool, err error) {
	path := filepath.Join(stateDir, dbDir, dbFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	db, err := bolt.Open(ctx, bolt.Options{Path: path})
	if errors.Is(err, api.Unavailable) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.View(ctx, func(tx store.Tx) error {
		needed, err = anyStarts(tx)
		return err
	})
	return needed, err
}

// anyStarts looks for an instance that is set to start with the host, by itself
// or by its profiles, or that ran before and is not set to stay off.
func anyStarts(tx store.Tx) (bool, error) {
	const key = "boot.autostart"
	instances, err := store.List[model.Instance](tx, model.InstancePrefix)
	if err != nil {
		return false, err
	}
	for _, r := range instances {
		inst := r.Value
		var profiles []*model.Profile
		for _, name := range inst.Profiles {
			p, _, err := store.Get[model.Profile](tx, model.ProfileKey(inst.Project, name))
			if err != nil {
				return false, err
			}
			profiles = append(profiles, p)
		}
		cfg, _ := model.Expand(profiles, inst.Config, inst.Devices)
		if set := cfg[key]; set != "" {
			if option.IsTrue(set) {
				return true, nil
			}
			continue
		}
		local, _, err := store.Get[model.Local](tx, model.LocalKey(inst.Project, inst.Name))
		if err == nil && local.Power == model.PowerRunning {
			return true, nil
		}
		if err != nil && !errors.Is(err, api.NotFound) {
			return false, err
		}
	}
	return false, nil
}
