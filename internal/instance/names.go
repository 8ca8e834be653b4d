package instance

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/store"
)

// Words of made-up names: a quality and an animal of the fields.
var (
	qualities = []string{
		"able", "amber", "brave", "brisk", "calm", "clever", "cosy", "deft", "eager", "early", "fair", "fleet", "fond", "gentle", "glad",
		"golden", "handy", "happy", "hardy", "keen", "kind", "lively", "loyal", "lucky", "merry", "mild", "neat", "nimble", "noble",
		"patient", "plucky", "proud", "quick", "quiet", "ready", "rosy", "rustic", "sharp", "silver", "sleek", "sound", "spry", "steady",
		"sturdy", "sunny", "swift", "tidy", "trusty", "warm", "wise",
	}
	animals = []string{
		"badger", "bee", "bullock", "bunting", "calf", "colt", "crane", "cricket", "crow", "curlew", "deer", "donkey", "dove", "drake",
		"duck", "ewe", "falcon", "ferret", "finch", "foal", "fox", "goat", "goose", "grouse", "hare", "hawk", "hedgehog", "heifer", "hen",
		"heron", "kite", "lamb", "lark", "linnet", "mare", "marten", "mole", "otter", "owl", "partridge", "pheasant", "plover", "pony",
		"rabbit", "raven", "robin", "rook", "shrew", "snipe", "sparrow", "stoat", "swallow", "swan", "thrush", "vole", "wren",
	}
)

// freeName makes up a name that no instance has.
func (e *Engine) freeName(ctx context.Context, project string) (string, error) {
	for try := range 100 {
		name := qualities[rand.IntN(len(qualities))] + "-" + animals[rand.IntN(len(animals))]
		if try > 20 {
			name += strconv.Itoa(rand.IntN(10000))
		}
		var taken bool
		err := e.Store.View(ctx, func(tx store.Tx) (err error) {
			taken, err = nameTaken(tx, project, name)
			return err
		})
		if err != nil || !taken {
			return name, err
		}
	}
	return "", api.Errorf(api.Conflict, "no free name was found").WithHint("give one")
}

// nameTaken reports whether an instance has a name or is about to get it: who
// made another one in the middle of a rename would have his volume in its place.
func nameTaken(tx store.Tx, project, name string) (bool, error) {
	if exists, err := store.Exists(tx, model.InstanceKey(project, name)); err != nil || exists {
		return exists, err
	}
	all, err := store.List[model.Instance](tx, model.InstanceKey(project, ""))
	return slices.ContainsFunc(all, func(r store.Record[model.Instance]) bool { return r.Value.RenameTo == name }), err
}

// forEach calls fn for each name, a few at a time, and joins the errors.
func forEach(names []string, fn func(string) error) error {
	errs := make([]error, len(names))
	g := newGroup(4)
	for i, n := range names {
		g.Go(func() error {
			errs[i] = fn(n)
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

func newGroup(limit int) *errgroup.Group {
	g := &errgroup.Group{}
	g.SetLimit(limit)
	return g
}
