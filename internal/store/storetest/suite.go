// Package storetest is the suite that every store back-end passes: what a
// transaction sees, conflicts, the order of watches, the decode cache, and that
// nothing acknowledged is lost and nothing half-done is kept when the process is
// killed while it writes.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// Backend opens the store under test.
type Backend struct {
	// Open opens the store that lives in dir, creating it when it is new. The
	// log must keep LogLimit commits, and now is the clock (nil: the real one).
	Open func(ctx context.Context, dir string, now func() time.Time) (store.Store, error)
	// LogLimit is how many commits the store keeps for watchers; a few dozen
	// make the suite fast.
	LogLimit int
}

type doc struct {
	Name string         `json:"name"`
	N    int            `json:"n"`
	Tags map[string]int `json:"tags,omitempty"`
}

// Run runs the whole suite.
func Run(t *testing.T, b Backend) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Backend)
	}{
		{"ReadWrite", testReadWrite},
		{"ListOrder", testListOrder},
		{"ListInUpdate", testListInUpdate},
		{"Rollback", testRollback},
		{"Conditions", testConditions},
		{"Revisions", testRevisions},
		{"ReadOnly", testReadOnly},
		{"Limits", testLimits},
		{"UseAfterEnd", testUseAfterEnd},
		{"Clock", testClock},
		{"Cache", testCache},
		{"Isolation", testIsolation},
		{"WatchOrder", testWatchOrder},
		{"WatchFromPast", testWatchFromPast},
		{"WatchTooOld", testWatchTooOld},
		{"WatchSlow", testWatchSlow},
		{"Context", testContext},
		{"Reopen", testReopen},
		{"Close", testClose},
		{"Crash", testCrash},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, b) })
	}
}

// open opens a fresh store that is closed when the test ends.
func (b Backend) open(t testing.TB) store.Store {
	t.Helper()
	return b.openDir(t, t.TempDir(), nil)
}

func (b Backend) openDir(t testing.TB, dir string, now func() time.Time) store.Store {
	t.Helper()
	s, err := b.Open(t.Context(), dir, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// CheckShared fails the test when somebody has changed a value that he shares
// with other readers.
func CheckShared(t testing.TB, s store.Store) {
	t.Helper()
	view(t, s, func(tx store.Tx) error {
		items, err := tx.List("")
		if err != nil {
			return err
		}
		for _, it := range items {
			if err := store.CheckShared(it); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
}

func update(t testing.TB, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	// Not the test's context: it has ended in a Cleanup.
	if err := s.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, s store.Store, key string, n int) {
	t.Helper()
	update(t, s, func(tx store.Tx) error { return store.Put(tx, key, &doc{Name: key, N: n}) })
}

func rev(t testing.TB, s store.Store) (r store.Rev) {
	t.Helper()
	view(t, s, func(tx store.Tx) error {
		r = tx.Rev()
		return nil
	})
	return r
}

func wantKind(t testing.TB, err error, kind api.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got error %v, want one of kind %s", err, kind)
	}
}

func keys(items []store.Item) string {
	var out []string
	for _, it := range items {
		out = append(out, it.Key)
	}
	return strings.Join(out, " ")
}

func testReadWrite(t *testing.T, b Backend) {
	s := b.open(t)
	update(t, s, func(tx store.Tx) error {
		if err := store.Put(tx, "instance/default/c1", &doc{Name: "c1", N: 1}); err != nil {
			return err
		}
		got, _, err := store.Get[doc](tx, "instance/default/c1")
		if err != nil || got.N != 1 {
			t.Errorf("own write: got %v, %v", got, err)
		}
		return store.Put(tx, "local/instance/default/c1", &doc{Name: "facts"})
	})
	view(t, s, func(tx store.Tx) error {
		got, r, err := store.Get[doc](tx, "instance/default/c1")
		if err != nil || got.Name != "c1" || r != 1 {
			t.Errorf("got %v at %d, %v", got, r, err)
		}
		local, _, err := store.Get[doc](tx, "local/instance/default/c1")
		if err != nil || local.Name != "facts" {
			t.Errorf("local: got %v, %v", local, err)
		}
		_, _, err = store.Get[doc](tx, "instance/web/c2")
		wantKind(t, err, api.NotFound)
		if want := "instance c2 in project web not found"; err == nil || err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
		return nil
	})
	update(t, s, func(tx store.Tx) error { return store.Delete(tx, "instance/default/c1") })
	view(t, s, func(tx store.Tx) error {
		if ok, err := store.Exists(tx, "instance/default/c1"); ok || err != nil {
			t.Errorf("deleted key exists: %v, %v", ok, err)
		}
		return nil
	})
}

func testListOrder(t *testing.T, b Backend) {
	s := b.open(t)
	for _, k := range []string{"a/z", "b", "a/b", "a", "a0", "a/b/c", "local/a/x", "a/b\xff"} {
		put(t, s, k, 0)
	}
	view(t, s, func(tx store.Tx) error {
		for prefix, want := range map[string]string{
			"":       "a a/b a/b/c a/b\xff a/z a0 b local/a/x",
			"a/":     "a/b a/b/c a/b\xff a/z",
			"a":      "a a/b a/b/c a/b\xff a/z a0",
			"a/b":    "a/b a/b/c a/b\xff",
			"c":      "",
			"local/": "local/a/x",
			"zz":     "",
		} {
			items, err := tx.List(prefix)
			if got := keys(items); err != nil || got != want {
				t.Errorf("list %q: got %q, %v, want %q", prefix, got, err, want)
			}
		}
		return nil
	})
}

func testListInUpdate(t *testing.T, b Backend) {
	s := b.open(t)
	for _, k := range []string{"p/b", "p/d", "p/f", "q"} {
		put(t, s, k, 1)
	}
	update(t, s, func(tx store.Tx) error {
		for _, k := range []string{"p/a", "p/d", "p/e", "p/z", "r"} {
			if err := store.Put(tx, k, &doc{Name: k, N: 2}); err != nil {
				return err
			}
		}
		for _, k := range []string{"p/b", "p/z", "p/none"} {
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		recs, err := store.List[doc](tx, "p/")
		if err != nil {
			return err
		}
		var got []string
		for _, r := range recs {
			got = append(got, fmt.Sprintf("%s=%d", r.Key, r.Value.N))
		}
		if want := "p/a=2 p/d=2 p/e=2 p/f=1"; strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
		return nil
	})
	view(t, s, func(tx store.Tx) error {
		items, err := tx.List("")
		if got, want := keys(items), "p/a p/d p/e p/f q r"; err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		return nil
	})
}

func testRollback(t *testing.T, b Backend) {
	s := b.open(t)
	put(t, s, "a", 1)
	before := rev(t, s)
	fail := errors.New("fail")
	change := func(tx store.Tx) {
		for _, err := range []error{
			store.Put(tx, "a", &doc{N: 2}), store.Put(tx, "b", &doc{}), tx.Delete("a"),
			store.EmitLifecycle(tx, "default", api.EventLifecycleMetadata{Action: "x"}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error { change(tx); return fail }); !errors.Is(err, fail) {
		t.Errorf("got %v, want the function's error", err)
	}
	func() {
		defer func() {
			if p := recover(); p != "boom" {
				t.Errorf("panic value %v", p)
			}
		}()
		_ = s.Update(t.Context(), func(tx store.Tx) error { change(tx); panic("boom") })
	}()
	view(t, s, func(tx store.Tx) error {
		got, _, err := store.Get[doc](tx, "a")
		if err != nil || got.N != 1 {
			t.Errorf("got %v, %v", got, err)
		}
		if ok, _ := store.Exists(tx, "b"); ok {
			t.Error("b was kept")
		}
		return nil
	})
	if after := rev(t, s); after != before {
		t.Errorf("revision went from %d to %d", before, after)
	}
	put(t, s, "a", 3) // the store is still usable
}

func testConditions(t *testing.T, b Backend) {
	s := b.open(t)
	put(t, s, "profile/default/p", 1)
	first := rev(t, s)
	put(t, s, "profile/default/p", 2)
	p := "profile/default/p"
	try := func(kind api.Kind, fn func(store.Tx) error) {
		t.Helper()
		wantKind(t, s.Update(t.Context(), fn), kind)
	}
	try(api.Precondition, func(tx store.Tx) error { return store.Put(tx, p, &doc{}, store.IfRev(first)) })
	try(api.Precondition, func(tx store.Tx) error { return store.Delete(tx, p, store.IfRev(first)) })
	try(api.Precondition, func(tx store.Tx) error { return store.Put(tx, "profile/default/q", &doc{}, store.IfRev(first)) })
	try(api.Conflict, func(tx store.Tx) error { return store.Put(tx, p, &doc{}, store.IfAbsent()) })
	try(api.NotFound, func(tx store.Tx) error { return store.Delete(tx, "profile/default/q", store.IfPresent()) })
	update(t, s, func(tx store.Tx) error {
		if err := store.Put(tx, p, &doc{N: 3}, store.IfRev(rev(t, s)), store.IfPresent()); err != nil {
			return err
		}
		return store.Put(tx, "profile/default/q", &doc{}, store.IfAbsent(), store.IfRev(0))
	})
	update(t, s, func(tx store.Tx) error { return store.Delete(tx, p, store.IfRev(rev(t, s))) })
}

func testRevisions(t *testing.T, b Backend) {
	s := b.open(t)
	if r := rev(t, s); r != 0 {
		t.Errorf("new store is at revision %d", r)
	}
	put(t, s, "a", 1)
	put(t, s, "local/b", 1)
	update(t, s, func(tx store.Tx) error { return nil })                    // no change
	update(t, s, func(tx store.Tx) error { return tx.Delete("not-there") }) // no change
	update(t, s, func(tx store.Tx) error {                                  // no change in the end
		if err := tx.Put("tmp", []byte("1")); err != nil {
			return err
		}
		return tx.Delete("tmp")
	})
	if r := rev(t, s); r != 2 {
		t.Errorf("got revision %d, want 2", r)
	}
	update(t, s, func(tx store.Tx) error { // an event alone is a commit
		return store.EmitLifecycle(tx, "", api.EventLifecycleMetadata{Action: "config-updated"})
	})
	put(t, s, "a", 2)
	view(t, s, func(tx store.Tx) error {
		a, _, _ := tx.Get("a")
		lb, _, _ := tx.Get("local/b")
		if a.Rev != 4 || lb.Rev != 2 || tx.Rev() != 4 {
			t.Errorf("got a at %d, local/b at %d, store at %d; want 4, 2, 4", a.Rev, lb.Rev, tx.Rev())
		}
		return nil
	})
}

func testReadOnly(t *testing.T, b Backend) {
	s := b.open(t)
	view(t, s, func(tx store.Tx) error {
		wantKind(t, tx.Put("a", []byte("1")), api.Internal)
		wantKind(t, tx.Delete("a"), api.Internal)
		wantKind(t, tx.Emit(store.Event{Type: "x", Payload: json.RawMessage("1")}), api.Internal)
		return nil
	})
	if r := rev(t, s); r != 0 {
		t.Errorf("revision %d after reads", r)
	}
}

func testLimits(t *testing.T, b Backend) {
	s := b.open(t)
	update(t, s, func(tx store.Tx) error {
		for _, key := range []string{"", "local/", "a\x00b", "a\nb", strings.Repeat("k", store.MaxKey+1)} {
			wantKind(t, tx.Put(key, []byte("1")), api.Invalid)
		}
		wantKind(t, tx.Put("big", make([]byte, store.MaxValue+1)), api.TooLarge)
		wantKind(t, tx.Emit(store.Event{Payload: json.RawMessage("{}")}), api.Invalid)
		wantKind(t, tx.Emit(store.Event{Type: "lifecycle", Payload: json.RawMessage("{")}), api.Invalid)
		if err := tx.Put(strings.Repeat("k", store.MaxKey), []byte("1")); err != nil {
			return err
		}
		return tx.Put("full", make([]byte, store.MaxValue))
	})
	view(t, s, func(tx store.Tx) error {
		it, ok, err := tx.Get("full")
		if !ok || err != nil || len(it.Value) != store.MaxValue {
			t.Errorf("got %d bytes, %v, %v", len(it.Value), ok, err)
		}
		_, _, err = store.Get[doc](tx, "full")
		wantKind(t, err, api.Internal) // not JSON
		return nil
	})
}

func testUseAfterEnd(t *testing.T, b Backend) {
	s := b.open(t)
	var kept []store.Tx
	keep := func(tx store.Tx) error { kept = append(kept, tx); return nil }
	update(t, s, keep)
	view(t, s, keep)
	for _, tx := range kept {
		_, _, err := tx.Get("a")
		wantKind(t, err, api.Internal)
		_, err = tx.List("")
		wantKind(t, err, api.Internal)
		wantKind(t, tx.Put("a", []byte("1")), api.Internal)
	}
}

func testClock(t *testing.T, b Backend) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7, time.FixedZone("x", 3600))
	s := b.openDir(t, t.TempDir(), func() time.Time { return at })
	ch, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx store.Tx) error {
		if !tx.Now().Equal(at) || tx.Now().Location() != time.UTC {
			t.Errorf("got %v, want %v in UTC", tx.Now(), at)
		}
		return store.EmitLifecycle(tx, "p", api.EventLifecycleMetadata{Action: "x"})
	})
	batch := <-ch
	if !batch.Time.Equal(at) || !batch.Events[0].Time.Equal(at) || batch.Events[0].Rev != batch.Rev {
		t.Errorf("got batch %v with event %+v", batch.Time, batch.Events[0])
	}
}

func testCache(t *testing.T, b Backend) {
	s := b.open(t)
	get := func() (d *doc) {
		view(t, s, func(tx store.Tx) (err error) {
			d, _, err = store.Get[doc](tx, "a")
			return err
		})
		return d
	}
	put(t, s, "a", 1)
	put(t, s, "b", 1)
	first := get()
	put(t, s, "b", 2)
	if get() != first {
		t.Error("value was decoded again although its revision is the same")
	}
	view(t, s, func(tx store.Tx) error {
		recs, err := store.List[doc](tx, "a")
		if err != nil || recs[0].Value != first {
			t.Errorf("list does not share the value: %v", err)
		}
		other, _, err := store.Get[map[string]any](tx, "a") // another type is decoded on its own
		if err != nil || (*other)["n"] != 1.0 {
			t.Errorf("got %v, %v", other, err)
		}
		return nil
	})
	update(t, s, func(tx store.Tx) error {
		d, r, err := store.Edit[doc](tx, "a")
		if err != nil {
			return err
		}
		if d == first {
			t.Error("Edit gave the shared value")
		}
		d.N, d.Tags = 2, map[string]int{"x": 1}
		return store.Put(tx, "a", d, store.IfRev(r))
	})
	if second := get(); second == first || second.N != 2 || first.N != 1 {
		t.Errorf("after a write: first %v, second %v", first, second)
	}
	CheckShared(t, s)
	get().N = 99 // a defect, which CheckShared must find
	view(t, s, func(tx store.Tx) error {
		it, _, err := tx.Get("a")
		if err == nil && store.CheckShared(it) == nil {
			t.Error("modified shared value not found")
		}
		return err
	})
}

// testIsolation lets readers look for a pair of keys that differ while a writer
// changes both in one transaction.
func testIsolation(t *testing.T, b Backend) {
	s := b.open(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				view(t, s, func(tx store.Tx) error {
					x, _, _ := tx.Get("x")
					y, _, _ := tx.Get("local/y")
					list, _ := tx.List("")
					if string(x.Value) != string(y.Value) || (len(list) != 0 && len(list) != 2) {
						t.Errorf("saw x=%s y=%s, %d keys", x.Value, y.Value, len(list))
					}
					return nil
				})
			}
		})
	}
	for i := range 50 {
		update(t, s, func(tx store.Tx) error {
			v := fmt.Appendf(nil, "%d", i)
			if err := tx.Put("x", v); err != nil {
				return err
			}
			return tx.Put("local/y", slices.Clone(v))
		})
	}
	close(stop)
	wg.Wait()
}
