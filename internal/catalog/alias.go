package catalog

import (
	"context"
	"errors"
	"net/url"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/store"
)

func aliasPath(name string) string { return "/1.0/images/aliases/" + url.PathEscape(name) }

func aliasToAPI(a *model.Alias) api.ImageAliasesEntry {
	return api.ImageAliasesEntry{ImageAliasesEntryPut: a.ImageAliasesEntryPut, Name: a.Name, Type: api.InstanceTypeContainer}
}

// aliasesByTarget groups a project's aliases by fingerprint.
func aliasesByTarget(tx store.Tx, project string) (map[string][]api.ImageAlias, error) {
	records, err := store.List[model.Alias](tx, model.AliasPrefix+project+"/")
	if err != nil {
		return nil, err
	}
	out := make(map[string][]api.ImageAlias, len(records))
	for _, r := range records {
		a := r.Value
		out[a.Target] = append(out[a.Target], api.ImageAlias{Name: a.Name, Description: a.Description})
	}
	return out, nil
}

// ListAliases gives the aliases of a project by name.
func (c *Catalog) ListAliases(ctx context.Context, project string) ([]api.ImageAliasesEntry, error) {
	out := []api.ImageAliasesEntry{}
	err := c.deps.Store.View(ctx, func(tx store.Tx) error {
		records, err := store.List[model.Alias](tx, model.AliasPrefix+project+"/")
		if err != nil {
			return err
		}
		out = make([]api.ImageAliasesEntry, 0, len(records))
		for _, r := range records {
			out = append(out, aliasToAPI(r.Value))
		}
		return nil
	})
	return out, err
}

// GetAlias gives one alias. Errors: NotFound.
func (c *Catalog) GetAlias(ctx context.Context, project, name string) (alias api.ImageAliasesEntry, etag string, err error) {
	err = c.deps.Store.View(ctx, func(tx store.Tx) error {
		rec, rev, err := getAlias(tx, project, name)
		if err != nil {
			return err
		}
		alias, etag = aliasToAPI(rec), etagOf(rev)
		return nil
	})
	return alias, etag, err
}

// getAlias reads an alias; a name that cannot be one does not exist.
func getAlias(tx store.Tx, project, name string) (*model.Alias, store.Rev, error) {
	if model.CheckAliasName(name) != nil {
		return nil, 0, noAlias(name)
	}
	rec, rev, err := store.Get[model.Alias](tx, model.AliasKey(project, name))
	if errors.Is(err, api.NotFound) {
		err = noAlias(name)
	}
	return rec, rev, err
}

func noAlias(name string) error {
	return api.Errorf(api.NotFound, "image alias %q not found", name)
}

// CreateAlias names an image; the target may be the beginning of a fingerprint.
// Errors: Invalid for the name; Conflict; NotFound for the target.
func (c *Catalog) CreateAlias(ctx context.Context, project string, req api.ImageAliasesPost) error {
	if err := model.CheckAliasName(req.Name); err != nil {
		return err
	}
	who := auth.From(ctx).Requestor()
	return c.deps.Store.Update(ctx, func(tx store.Tx) error {
		target, _, err := find(tx, project, req.Target)
		if err != nil {
			return wrap(err, "image alias %s", req.Name)
		}
		return putAlias(tx, who, project, target.Fingerprint, api.ImageAlias{Name: req.Name, Description: req.Description})
	})
}

// putAlias adds an alias within a transaction. Errors: Conflict.
func putAlias(tx store.Tx, who requestor, project, fingerprint string, a api.ImageAlias) error {
	rec := &model.Alias{
		Project: project, Name: a.Name,
		ImageAliasesEntryPut: api.ImageAliasesEntryPut{Description: a.Description, Target: fingerprint},
	}
	if err := aliasFree(tx, project, a.Name); err != nil {
		return err
	}
	if err := store.Put(tx, rec.Key(), rec); err != nil {
		return err
	}
	return emit(tx, who, project, "image-alias-created", aliasPath(a.Name), map[string]any{"target": fingerprint})
}

func aliasFree(tx store.Tx, project, name string) error {
	taken, err := store.Exists(tx, model.AliasKey(project, name))
	if err == nil && taken {
		err = api.Errorf(api.Conflict, "image alias %q already exists", name).
			WithHint("choose another alias, or delete it: croft image alias delete %s", name)
	}
	return err
}

// UpdateAlias changes an alias. Errors: NotFound, also for a new target;
// Precondition.
func (c *Catalog) UpdateAlias(ctx context.Context, project, name, ifMatch string, mutate func(*api.ImageAliasesEntryPut) error) error {
	who := auth.From(ctx).Requestor()
	return c.deps.Store.Update(ctx, func(tx store.Tx) error {
		known, rev, err := getAlias(tx, project, name)
		if err != nil {
			return err
		}
		if err := checkETag(ifMatch, rev, "image alias "+name); err != nil {
			return err
		}
		rec := *known
		if err := mutate(&rec.ImageAliasesEntryPut); err != nil {
			return err
		}
		if rec.Target == "" {
			return api.Errorf(api.Invalid, "image alias %s: field target is empty, it must be a fingerprint", name)
		}
		target, _, err := find(tx, project, rec.Target)
		if err != nil {
			return wrap(err, "image alias %s", name)
		}
		rec.Target = target.Fingerprint
		if err := store.Put(tx, rec.Key(), &rec); err != nil {
			return err
		}
		return emit(tx, who, project, "image-alias-updated", aliasPath(name), map[string]any{"target": rec.Target})
	})
}

// RenameAlias gives an alias another name. Errors: NotFound, Conflict, Invalid.
func (c *Catalog) RenameAlias(ctx context.Context, project, from, to string) error {
	if err := model.CheckAliasName(to); err != nil {
		return err
	}
	who := auth.From(ctx).Requestor()
	return c.deps.Store.Update(ctx, func(tx store.Tx) error {
		known, _, err := getAlias(tx, project, from)
		if err != nil {
			return err
		}
		if err := aliasFree(tx, project, to); err != nil {
			return err
		}
		rec := *known
		rec.Name = to
		if err := store.Delete(tx, known.Key()); err != nil {
			return err
		}
		if err := store.Put(tx, rec.Key(), &rec); err != nil {
			return err
		}
		return emit(tx, who, project, "image-alias-renamed", aliasPath(to), map[string]any{"old_name": from})
	})
}

// DeleteAlias removes a name; the image stays. Errors: NotFound.
func (c *Catalog) DeleteAlias(ctx context.Context, project, name string) error {
	who := auth.From(ctx).Requestor()
	return c.deps.Store.Update(ctx, func(tx store.Tx) error {
		rec, _, err := getAlias(tx, project, name)
		if err != nil {
			return err
		}
		return dropAlias(tx, who, rec)
	})
}

func dropAlias(tx store.Tx, who requestor, rec *model.Alias) error {
	if err := store.Delete(tx, rec.Key()); err != nil {
		return err
	}
	return emit(tx, who, rec.Project, "image-alias-deleted", aliasPath(rec.Name), map[string]any{"target": rec.Target})
}
