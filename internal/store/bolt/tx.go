package bolt

import (
	"slices"
	"strings"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// viewTx reads one snapshot.
type viewTx struct {
	snap *snapshot
	now  time.Time
	done bool // the function that got the Tx has returned
}

func (t *viewTx) Now() time.Time { return t.now }
func (t *viewTx) Rev() store.Rev { return t.snap.rev }

func (t *viewTx) Get(key string) (store.Item, bool, error) {
	if err := t.live(); err != nil {
		return store.Item{}, false, err
	}
	it, ok := t.snap.get(key)
	return it, ok, nil
}

func (t *viewTx) List(prefix string) ([]store.Item, error) {
	if err := t.live(); err != nil {
		return nil, err
	}
	return t.snap.list(prefix), nil
}

func (t *viewTx) Put(key string, _ []byte) error { return readOnly("write " + key) }
func (t *viewTx) Delete(key string) error        { return readOnly("delete " + key) }
func (t *viewTx) Emit(e store.Event) error       { return readOnly("emit a " + e.Type + " event") }

func (t *viewTx) live() error {
	if t.done {
		return api.Errorf(api.Internal, "transaction is used after its end")
	}
	return nil
}

func readOnly(what string) error {
	return api.Errorf(api.Internal, "cannot %s in a read-only transaction", what)
}

// updateTx lays its own changes over a snapshot.
type updateTx struct {
	viewTx
	pending map[string]change
	events  []store.Event
}

func (t *updateTx) Get(key string) (store.Item, bool, error) {
	if err := t.live(); err != nil {
		return store.Item{}, false, err
	}
	if c, ok := t.pending[key]; ok {
		return c.item, !c.deleted, nil
	}
	return t.viewTx.Get(key)
}

func (t *updateTx) List(prefix string) ([]store.Item, error) {
	if err := t.live(); err != nil {
		return nil, err
	}
	base := t.snap.list(prefix)
	own := t.changes(prefix)
	if len(own) == 0 {
		return base, nil
	}
	return merge(base, own), nil
}

func (t *updateTx) Put(key string, value []byte) error {
	if err := t.live(); err != nil {
		return err
	}
	if err := store.CheckPut(key, value); err != nil {
		return err
	}
	t.set(change{key: key, item: store.NewItem(key, value, t.snap.rev+1)})
	return nil
}

func (t *updateTx) Delete(key string) error {
	if err := t.live(); err != nil {
		return err
	}
	if _, there := t.snap.get(key); !there {
		delete(t.pending, key)
		return nil
	}
	t.set(change{key: key, deleted: true})
	return nil
}

func (t *updateTx) Emit(e store.Event) error {
	if err := t.live(); err != nil {
		return err
	}
	if err := store.CheckEvent(e); err != nil {
		return err
	}
	e.Rev, e.Time = t.snap.rev+1, t.now
	t.events = append(t.events, e)
	return nil
}

func (t *updateTx) set(c change) {
	if t.pending == nil {
		t.pending = map[string]change{}
	}
	t.pending[c.key] = c
}

// changes gives the pending changes below prefix in key order.
func (t *updateTx) changes(prefix string) []change {
	var out []change
	for k, c := range t.pending {
		if strings.HasPrefix(k, prefix) {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b change) int { return strings.Compare(a.key, b.key) })
	return out
}

// finish gives the commit as a batch and the snapshot after it; false when
// there is nothing to commit.
func (t *updateTx) finish() (store.Batch, *snapshot, bool) {
	changes := t.changes("")
	if len(changes) == 0 && len(t.events) == 0 {
		return store.Batch{}, nil, false
	}
	next := &snapshot{rev: t.snap.rev + 1, items: t.snap.items}
	if len(changes) > 0 {
		next.items = merge(t.snap.items, changes)
	}
	batch := store.Batch{Rev: next.rev, Time: t.now, Events: t.events}
	for _, c := range changes {
		if c.deleted {
			batch.Deletes = append(batch.Deletes, c.key)
		} else {
			batch.Puts = append(batch.Puts, c.item)
		}
	}
	return batch, next, true
}
