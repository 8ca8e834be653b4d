package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// testWatchOrder has several watchers follow several writers: each sees every
// commit once, in the order of revisions, with what was written in it.
func testWatchOrder(t *testing.T, b Backend) {
	s := b.open(t)
	const writers, each = 4, 10
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 3 {
		ch, err := s.Watch(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			state := map[string]string{}
			for want := store.Rev(1); want <= writers*each; want++ {
				batch, ok := <-ch
				if !ok || batch.Rev != want {
					t.Errorf("got revision %d (open: %v), want %d", batch.Rev, ok, want)
					return
				}
				for _, it := range batch.Puts {
					state[it.Key] = string(it.Value)
				}
				if len(batch.Events) != 2 || string(batch.Events[0].Payload) != "1" || string(batch.Events[1].Payload) != "2" {
					t.Errorf("revision %d: events %+v", want, batch.Events)
				}
			}
			for w := range writers {
				if k := fmt.Sprintf("w/%d", w); state[k] != fmt.Sprint(each-1) {
					t.Errorf("last seen %s=%s", k, state[k])
				}
			}
		})
	}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				update(t, s, func(tx store.Tx) error {
					for _, p := range []string{"1", "2"} {
						if err := tx.Emit(store.Event{Type: api.EventLifecycle, Payload: []byte(p)}); err != nil {
							return err
						}
					}
					return tx.Put(fmt.Sprintf("w/%d", w), fmt.Append(nil, i))
				})
			}
		})
	}
}

func testWatchFromPast(t *testing.T, b Backend) {
	s := b.open(t)
	for i := range 10 {
		put(t, s, "a", i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ch, err := s.Watch(ctx, 7)
	if err != nil {
		t.Fatal(err)
	}
	var got []store.Rev
	for range 3 {
		got = append(got, (<-ch).Rev)
	}
	if !slices.Equal(got, []store.Rev{8, 9, 10}) {
		t.Errorf("got %v", got)
	}
	cancel()
	if _, open := <-ch; open {
		t.Error("watch goes on after its context has ended")
	}
}

func testWatchTooOld(t *testing.T, b Backend) {
	s := b.open(t)
	for i := range b.LogLimit + 5 {
		put(t, s, "a", i)
	}
	last := rev(t, s)
	for _, from := range []store.Rev{0, last - store.Rev(b.LogLimit) - 1, last + 1} {
		if _, err := s.Watch(t.Context(), from); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("watch from %d of %d: got %v, want ErrTooOld", from, last, err)
		}
	}
	for _, from := range []store.Rev{last - store.Rev(b.LogLimit), last} {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := s.Watch(ctx, from); err != nil {
			t.Errorf("watch from %d of %d: %v", from, last, err)
		}
		cancel()
	}
}

// testWatchSlow does not read until the log has passed the watcher by.
func testWatchSlow(t *testing.T, b Backend) {
	s := b.open(t)
	ch, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * b.LogLimit {
		put(t, s, "a", i)
	}
	want := store.Rev(1)
	for batch := range ch {
		if batch.Rev != want {
			t.Fatalf("got revision %d, want %d: a gap must close the channel", batch.Rev, want)
		}
		want++
	}
	if want > store.Rev(2*b.LogLimit) {
		t.Errorf("watcher got %d commits out of a log of %d", want-1, b.LogLimit)
	}
}
