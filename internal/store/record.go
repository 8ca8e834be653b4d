package store

import (
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/croft-project/croft/api"
)

// memo holds the decoded form of one Item. It dies with the Item, so nothing
// has to be evicted when a key is overwritten or deleted.
type memo struct{ v atomic.Pointer[any] }

// Decode gives the record of an item. The result is shared with every other
// reader of the same revision and must not be modified; see [Edit].
func Decode[T any](it Item) (*T, error) {
	if it.memo != nil {
		if p := it.memo.v.Load(); p != nil {
			if v, ok := (*p).(*T); ok {
				return v, nil
			}
		}
	}
	v, err := decode[T](it)
	if err != nil {
		return nil, err
	}
	if it.memo != nil {
		var held any = v
		if !it.memo.v.CompareAndSwap(nil, &held) {
			// Somebody was faster: hand out one value, not two.
			if first, ok := (*it.memo.v.Load()).(*T); ok {
				return first, nil
			}
		}
	}
	return v, nil
}

func decode[T any](it Item) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(it.Value, v); err != nil {
		return nil, api.Errorf(api.Internal, "record of %s (key %s) cannot be decoded: %w", Describe(it.Key), it.Key, err)
	}
	return v, nil
}

// Get reads the record of key. The result is shared and must not be modified.
// Errors: NotFound, naming what the key stands for.
func Get[T any](tx Tx, key string) (*T, Rev, error) {
	it, err := lookup(tx, key)
	if err != nil {
		return nil, 0, err
	}
	v, err := Decode[T](it)
	return v, it.Rev, err
}

// Edit reads the record of key as a private copy that the caller may change and
// put back. Errors: NotFound.
func Edit[T any](tx Tx, key string) (*T, Rev, error) {
	it, err := lookup(tx, key)
	if err != nil {
		return nil, 0, err
	}
	v, err := decode[T](it)
	return v, it.Rev, err
}

// Exists tells whether there is a record of key.
func Exists(tx Tx, key string) (bool, error) {
	_, ok, err := tx.Get(key)
	return ok, err
}

func lookup(tx Tx, key string) (Item, error) {
	it, ok, err := tx.Get(key)
	if err != nil {
		return Item{}, err
	}
	if !ok {
		return Item{}, api.Errorf(api.NotFound, "%s not found", Describe(key))
	}
	return it, nil
}

// Record is a decoded item of [List].
type Record[T any] struct {
	Key   string
	Value *T // shared: must not be modified
	Rev   Rev
}

// List reads all records whose keys begin with prefix, in key order.
func List[T any](tx Tx, prefix string) ([]Record[T], error) {
	items, err := tx.List(prefix)
	if err != nil {
		return nil, err
	}
	out := make([]Record[T], 0, len(items))
	for _, it := range items {
		v, err := Decode[T](it)
		if err != nil {
			return nil, err
		}
		out = append(out, Record[T]{Key: it.Key, Value: v, Rev: it.Rev})
	}
	return out, nil
}

// Option is a condition of [Put] and [Delete].
type Option func(key string, cur Item, exists bool) error

// IfRev demands that the record is still of revision rev (0: any). Errors:
// Precondition when it has been changed or deleted since.
func IfRev(rev Rev) Option {
	return func(key string, cur Item, exists bool) error {
		switch {
		case rev == 0:
			return nil
		case !exists:
			return api.Errorf(api.Precondition, "%s was deleted since revision %d", Describe(key), rev)
		case cur.Rev != rev:
			return api.Errorf(api.Precondition, "%s has changed: revision %d expected, it is %d", Describe(key), rev, cur.Rev)
		}
		return nil
	}
}

// IfAbsent demands that there is no such record. Errors: Conflict.
func IfAbsent() Option {
	return func(key string, _ Item, exists bool) error {
		if exists {
			return api.Errorf(api.Conflict, "%s already exists", Describe(key))
		}
		return nil
	}
}

// IfPresent demands that the record exists. Errors: NotFound.
func IfPresent() Option {
	return func(key string, _ Item, exists bool) error {
		if !exists {
			return api.Errorf(api.NotFound, "%s not found", Describe(key))
		}
		return nil
	}
}

// Put writes the JSON form of v under key if all conditions hold.
func Put[T any](tx Tx, key string, v *T, opts ...Option) error {
	if err := check(tx, key, opts); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return api.Errorf(api.Internal, "record of %s cannot be encoded: %w", Describe(key), err)
	}
	return tx.Put(key, data)
}

// Delete removes the record of key if all conditions hold; without conditions a
// missing record is no error.
func Delete(tx Tx, key string, opts ...Option) error {
	if err := check(tx, key, opts); err != nil {
		return err
	}
	return tx.Delete(key)
}

func check(tx Tx, key string, opts []Option) error {
	if len(opts) == 0 {
		return nil
	}
	cur, ok, err := tx.Get(key)
	if err != nil {
		return err
	}
	for _, o := range opts {
		if err := o(key, cur, ok); err != nil {
			return err
		}
	}
	return nil
}

// EmitLifecycle adds a lifecycle event of a project to the commit; an empty
// project stands for the server as a whole.
func EmitLifecycle(tx Tx, project string, meta api.EventLifecycleMetadata) error {
	data, err := json.Marshal(meta)
	if err != nil {
		return fmt.Errorf("encode lifecycle event %s: %w", meta.Action, err)
	}
	return tx.Emit(Event{Project: project, Type: api.EventLifecycle, Payload: data})
}
