package event

import (
	"context"
	"slices"
	"sync"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// Filter says which events a subscriber gets.
type Filter struct {
	Types       []string // of api.EventLifecycle, EventOperation, EventLogging; empty means all
	Project     string   // events of this project, and those of none
	AllProjects bool     // of every project, whatever Project says

	// Resume asks for the stored events after revision Since first. Errors of
	// Subscribe: store.ErrTooOld when they are not kept any more.
	Resume bool
	Since  store.Rev
}

// Types lists the event types that exist.
func Types() []string { return []string{api.EventLifecycle, api.EventLogging, api.EventOperation} }

func (f Filter) check() error {
	for _, t := range f.Types {
		if !slices.Contains(Types(), t) {
			return api.Errorf(api.Invalid, "event type %q is not known, allowed are %v", t, Types())
		}
	}
	return nil
}

func (f Filter) wants(eventType string) bool {
	return len(f.Types) == 0 || slices.Contains(f.Types, eventType)
}

func (f Filter) matches(m Message) bool {
	return f.wants(m.Type) && (f.AllProjects || m.Project == "" || m.Project == f.Project)
}

// Subscription is a queue of events for one reader.
type Subscription struct {
	hub    *Hub
	filter Filter
	limit  int
	stop   func() bool // ends the watch on the context; guarded by hub.mu

	notify chan struct{} // capacity 1: queue or err changed

	mu     sync.Mutex
	queue  []Message
	err    error // set once: no more is queued after it
	resume bool  // the backlog is still being read: the reader waits
}

// Subscribe starts to collect events until ctx ends or [Subscription.Close] is
// called. What is published after it returns is not missed. Errors: Invalid for
// an unknown type; Unavailable, matching store.ErrTooOld, when a cursor cannot
// be resumed.
func (h *Hub) Subscribe(ctx context.Context, f Filter) (*Subscription, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	s := &Subscription{hub: h, filter: f, limit: h.opts.Buffer, notify: make(chan struct{}, 1), resume: f.Resume}
	h.mu.Lock()
	rev := h.rev
	h.subs[s] = struct{}{}
	if f.wants(api.EventLogging) {
		h.loggers.Add(1)
	}
	h.mu.Unlock()
	if f.Resume {
		if err := h.replay(ctx, s, rev); err != nil {
			s.Close()
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, s.Close)
	h.mu.Lock()
	s.stop = stop
	h.mu.Unlock()
	return s, nil
}

// replay puts the stored events after the cursor, up to revision last, in front
// of those that have come since.
func (h *Hub) replay(ctx context.Context, s *Subscription, last store.Rev) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches, err := h.opts.Store.Watch(ctx, s.filter.Since)
	if err != nil {
		return err
	}
	var backlog []Message
	for rev := s.filter.Since; rev < last; {
		b, ok := <-batches
		if !ok {
			if err := store.ContextError(ctx, "resume events"); err != nil {
				return err
			}
			return api.Errorf(api.Unavailable, "resume events after revision %d: %w", s.filter.Since, store.ErrTooOld)
		}
		rev = b.Rev
		for _, m := range h.messages(b) {
			if s.filter.matches(m) {
				backlog = append(backlog, m)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A cursor ahead of the hub: skip what its owner has seen.
	live := slices.DeleteFunc(s.queue, func(m Message) bool { return m.Rev != 0 && m.Rev <= s.filter.Since })
	s.limit += len(backlog)
	s.queue = append(backlog, live...)
	s.resume = false
	s.signal()
	return nil
}

// Next waits for the next event. After the subscription has ended it still gives
// what is queued, then the reason: ErrSlow, ErrLost, ErrClosed. It is called by
// one goroutine at a time. Errors besides: Canceled and Timeout of ctx.
func (s *Subscription) Next(ctx context.Context) (Message, error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 && !s.resume {
			m := s.queue[0]
			s.queue[0] = Message{}
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return m, nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return Message{}, err
		}
		select {
		case <-s.notify:
		case <-ctx.Done():
			return Message{}, store.ContextError(ctx, "wait for an event")
		}
	}
}

// Close ends the subscription; it may be called more than once.
func (s *Subscription) Close() {
	s.end(ErrClosed)
	s.hub.mu.Lock()
	s.hub.dropLocked(s)
	stop := s.stop
	s.hub.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// push queues a message; false when the reader is too slow or gone.
func (s *Subscription) push(m Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	if len(s.queue) >= s.limit {
		s.err = ErrSlow
		s.signal()
		return false
	}
	s.queue = append(s.queue, m)
	s.signal()
	return true
}

func (s *Subscription) end(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = reason
		s.signal()
	}
}

func (s *Subscription) signal() {
	select {
	case s.notify <- struct{}{}:
	default:
	}
}
