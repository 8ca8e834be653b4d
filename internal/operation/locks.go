package operation

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// Owner says who holds a lock and what for.
type Owner struct {
	Operation string // UUID; may be empty
	Reason    string // in words that fit after "is", such as "stopping"
}

// Holder is an owner in possession.
type Holder struct {
	Owner
	Since time.Time
}

// Locks are locks by key; a key is that of the record it protects, such as
// "instance/default/c1". Who waits gets a lock in order of arrival. The zero
// value is not usable: see [NewLocks].
type Locks struct {
	now func() time.Time

	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	holder Holder
	queue  []*waiter // in order of arrival
}

type waiter struct {
	owner   Owner
	granted chan struct{} // closed when the lock has been handed over
}

// NewLocks makes an empty set of locks; a nil now means time.Now.
func NewLocks(now func() time.Time) *Locks {
	if now == nil {
		now = time.Now
	}
	return &Locks{now: now, held: map[string]*lock{}}
}

// Acquire takes all keys, in sorted order so that two callers cannot block each
// other, and waits for those that are taken until ctx ends. The release function
// may be called more than once. Errors: Canceled or Timeout, naming what holds
// the key; Internal when the same operation holds one of them already, which
// would never end.
func (l *Locks) Acquire(ctx context.Context, owner Owner, keys ...string) (release func(), err error) {
	keys = sorted(keys)
	for i, key := range keys {
		if err := l.acquire(ctx, owner, key); err != nil {
			l.releaseAll(keys[:i])
			return nil, err
		}
	}
	return sync.OnceFunc(func() { l.releaseAll(keys) }), nil
}

// TryAcquire takes all keys or none, without waiting. Errors: Busy, naming what
// holds a key.
func (l *Locks) TryAcquire(owner Owner, keys ...string) (release func(), err error) {
	keys = sorted(keys)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if k, taken := l.held[key]; taken {
			return nil, api.Errorf(api.Busy, "%s", l.busy(key, k.holder))
		}
	}
	for _, key := range keys {
		l.held[key] = &lock{holder: Holder{owner, l.now()}}
	}
	return sync.OnceFunc(func() { l.releaseAll(keys) }), nil
}

// Holder tells who holds a key.
func (l *Locks) Holder(key string) (Holder, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.held[key]
	if !ok {
		return Holder{}, false
	}
	return k.holder, true
}

func sorted(keys []string) []string {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (l *Locks) acquire(ctx context.Context, owner Owner, key string) error {
	l.mu.Lock()
	k, taken := l.held[key]
	if !taken {
		l.held[key] = &lock{holder: Holder{owner, l.now()}}
		l.mu.Unlock()
		return nil
	}
	if owner.Operation != "" && k.holder.Operation == owner.Operation {
		l.mu.Unlock()
		return api.Errorf(api.Internal, "operation %s takes the lock of %s twice", owner.Operation, store.Describe(key))
	}
	w := &waiter{owner: owner, granted: make(chan struct{})}
	k.queue = append(k.queue, w)
	l.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		return l.giveUp(ctx, key, w)
	}
}

// giveUp leaves the queue; when the lock arrived in the same moment it is passed
// on.
func (l *Locks) giveUp(ctx context.Context, key string, w *waiter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[key]
	msg := "wait for " + store.Describe(key)
	if i := slices.Index(k.queue, w); i >= 0 {
		k.queue = slices.Delete(k.queue, i, i+1)
		msg = l.busy(key, k.holder)
	} else {
		l.releaseLocked(key)
	}
	return store.ContextError(ctx, msg)
}

func (l *Locks) releaseAll(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		l.releaseLocked(key)
	}
}

// releaseLocked hands the lock to the first in the queue.
func (l *Locks) releaseLocked(key string) {
	k := l.held[key]
	if len(k.queue) == 0 {
		delete(l.held, key)
		return
	}
	w := k.queue[0]
	k.queue = k.queue[1:]
	k.holder = Holder{w.owner, l.now()}
	close(w.granted)
}

// busy says what keeps a key from being taken.
func (l *Locks) busy(key string, h Holder) string {
	msg := fmt.Sprintf("%s is busy: %s since %s", store.Describe(key), h.Reason, l.now().Sub(h.Since).Round(time.Second))
	if h.Operation != "" {
		msg += fmt.Sprintf(" (operation %s)", h.Operation)
	}
	return msg
}
