package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

func testContext(t *testing.T, b Backend) {
	s := b.open(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	none := func(store.Tx) error { t.Error("function ran"); return nil }
	for ctx, kind := range map[context.Context]api.Kind{ended: api.Canceled, late: api.Timeout} {
		wantKind(t, s.View(ctx, none), kind)
		wantKind(t, s.Update(ctx, none), kind)
		_, err := s.Watch(ctx, 0)
		wantKind(t, err, kind)
	}
	// One that waits for another's transaction gives up with its context.
	inside, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		update(t, s, func(store.Tx) error { close(inside); <-done; return nil })
	})
	<-inside
	waiting, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	wantKind(t, s.Update(waiting, none), api.Canceled)
	close(done)
	wg.Wait()
}

func testReopen(t *testing.T, b Backend) {
	dir := t.TempDir()
	s, err := b.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		put(t, s, fmt.Sprintf("k/%d", i), i)
	}
	put(t, s, "local/k", 1)
	update(t, s, func(tx store.Tx) error {
		if err := tx.Delete("k/3"); err != nil {
			return err
		}
		return store.EmitLifecycle(tx, "p", api.EventLifecycleMetadata{Action: "gone", Source: "/1.0/k"})
	})
	before := rev(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = b.openDir(t, dir, nil)
	if after := rev(t, s); after != before {
		t.Errorf("revision %d, before %d", after, before)
	}
	view(t, s, func(tx store.Tx) error {
		items, err := tx.List("")
		if got, want := keys(items), "k/0 k/1 k/2 k/4 k/5 k/6 k/7 k/8 k/9 local/k"; err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		d, r, err := store.Get[doc](tx, "k/4")
		if err != nil || d.N != 4 || r != 5 {
			t.Errorf("got %v at %d, %v", d, r, err)
		}
		return nil
	})
	ch, err := s.Watch(t.Context(), before-1) // the log survives
	if err != nil {
		t.Fatal(err)
	}
	batch := <-ch
	if batch.Rev != before || !slices.Equal(batch.Deletes, []string{"k/3"}) || len(batch.Events) != 1 || batch.Events[0].Project != "p" {
		t.Errorf("got %+v", batch)
	}
	put(t, s, "k/3", 3)
	if next := <-ch; next.Rev != before+1 {
		t.Errorf("next batch is %d, want %d", next.Rev, before+1)
	}
}

func testClose(t *testing.T, b Backend) {
	dir := t.TempDir()
	s, err := b.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-ch; open {
		t.Error("watch gave a batch after Close")
	}
	none := func(store.Tx) error { t.Error("function ran"); return nil }
	wantKind(t, s.View(t.Context(), none), api.Unavailable)
	wantKind(t, s.Update(t.Context(), none), api.Unavailable)
	_, err = s.Watch(t.Context(), 0)
	wantKind(t, err, api.Unavailable)
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
