package operation

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/croft-project/croft/api"
)

func TestTryAcquire(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := NewLocks(func() time.Time { return now })
	release, err := l.TryAcquire(Owner{"op1", "stopping"}, "instance/default/c1", "instance/default/c2", "instance/default/c1")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(3 * time.Second)
	_, err = l.TryAcquire(Owner{"op2", "starting"}, "instance/default/c0", "instance/default/c1")
	wantKind(t, err, api.Busy)
	if want := "instance c1 is busy: stopping since 3s (operation op1)"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, held := l.Holder("instance/default/c0"); held {
		t.Error("a part of the keys was taken")
	}
	if h, held := l.Holder("instance/default/c2"); !held || h.Operation != "op1" || h.Reason != "stopping" {
		t.Errorf("holder %+v, %v", h, held)
	}
	release()
	release() // harmless
	release, err = l.TryAcquire(Owner{Reason: "starting"}, "instance/default/c1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.TryAcquire(Owner{}, "instance/default/c1")
	if want := "instance c1 is busy: starting since 0s"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	release()
	if len(l.held) != 0 {
		t.Errorf("%d locks are left", len(l.held))
	}
}

func TestAcquireInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocks(nil)
		first, err := l.Acquire(t.Context(), Owner{"op0", "x"}, "k")
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Acquire(t.Context(), Owner{"op0", "x"}, "k")
		wantKind(t, err, api.Internal) // by itself: would never end
		order := make(chan int, 10)
		for i := range 5 {
			go func() {
				release, err := l.Acquire(t.Context(), Owner{Reason: "x"}, "k", "other")
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				release()
			}()
			synctest.Wait()
		}
		first()
		for i := range 5 {
			if got := <-order; got != i {
				t.Errorf("got %d, want %d", got, i)
			}
		}
		synctest.Wait()
		if len(l.held) != 0 {
			t.Errorf("%d locks are left", len(l.held))
		}
	})
}

func TestAcquireGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocks(nil)
		release, err := l.Acquire(t.Context(), Owner{"op1", "copying"}, "instance/web/c1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err = l.Acquire(ctx, Owner{Operation: "op2"}, "instance/default/a", "instance/web/c1")
		wantKind(t, err, api.Timeout)
		if want := "instance c1 in project web is busy: copying since 2s (operation op1): context deadline exceeded"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if _, held := l.Holder("instance/default/a"); held {
			t.Error("a key is still held")
		}
		release()
		if len(l.held) != 0 {
			t.Errorf("%d locks are left", len(l.held))
		}
	})
}

// TestLocksStress takes pairs of keys in both orders, gives up at random, and
// checks that no two hold the same key.
func TestLocksStress(t *testing.T) {
	l := NewLocks(nil)
	keys := []string{"a", "b", "c"}
	inside := map[string]*atomic.Int32{}
	for _, k := range keys {
		inside[k] = &atomic.Int32{}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				k1, k2 := keys[(i+j)%3], keys[(i+2*j+1)%3]
				ctx, cancel := context.WithCancel(t.Context())
				if j%5 == 0 {
					go cancel()
				}
				release, err := l.Acquire(ctx, Owner{Reason: "x"}, k1, k2)
				if err == nil {
					for _, k := range sorted([]string{k1, k2}) {
						if inside[k].Add(1) != 1 {
							t.Errorf("two hold %s", k)
						}
					}
					for _, k := range sorted([]string{k1, k2}) {
						inside[k].Add(-1)
					}
					release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if len(l.held) != 0 {
		t.Errorf("%d locks are left", len(l.held))
	}
}
