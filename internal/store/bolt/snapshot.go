package bolt

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/croft-project/croft/internal/store"
)

// snapshot is the state after one commit. It is never changed.
type snapshot struct {
	rev   store.Rev
	items []store.Item // in key order
}

func (s *snapshot) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.items, key, func(it store.Item, k string) int { return cmp.Compare(it.Key, k) })
}

func (s *snapshot) get(key string) (store.Item, bool) {
	i, ok := s.find(key)
	if !ok {
		return store.Item{}, false
	}
	return s.items[i], true
}

// list gives the part of the snapshot below prefix, without a copy. Its
// capacity is cut so that an append of the caller cannot reach the next item.
func (s *snapshot) list(prefix string) []store.Item {
	lo, _ := s.find(prefix)
	hi := lo + sort.Search(len(s.items)-lo, func(i int) bool { return !strings.HasPrefix(s.items[lo+i].Key, prefix) })
	return s.items[lo:hi:hi]
}

// change is what a transaction did to one key.
type change struct {
	key     string
	item    store.Item
	deleted bool
}

// merge lays changes, in key order, over items, in key order.
func merge(items []store.Item, changes []change) []store.Item {
	out := make([]store.Item, 0, len(items)+len(changes))
	for _, c := range changes {
		n := sort.Search(len(items), func(i int) bool { return items[i].Key >= c.key })
		out = append(out, items[:n]...)
		items = items[n:]
		if len(items) > 0 && items[0].Key == c.key {
			items = items[1:]
		}
		if !c.deleted {
			out = append(out, c.item)
		}
	}
	return append(out, items...)
}
