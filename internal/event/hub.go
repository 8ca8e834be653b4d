package event

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// Reasons why a [Subscription] ends; match with errors.Is.
var (
	ErrSlow   = errors.New("event reader is too slow")
	ErrLost   = errors.New("events were lost")
	ErrClosed = errors.New("event subscription is closed")
)

// maxPublished bounds the events that wait for the hub's goroutine; beyond it
// the oldest are dropped. It is only reached when nobody runs the hub.
const maxPublished = 8192

// Options of [New]. Store is required.
type Options struct {
	Store    store.Store
	Log      *slog.Logger     // must not be one made with [NewLogHandler] of this hub; nil discards
	Now      func() time.Time // nil means time.Now
	Location string           // member name in each event; empty means "none"
	Buffer   int              // events a subscriber may be behind; 0 means 1024
}

// Hub is the one place where events are fanned out. Its methods are safe for
// concurrent use.
type Hub struct {
	opts Options
	wake chan struct{} // capacity 1: something is in published

	mu        sync.Mutex
	subs      map[*Subscription]struct{}
	published []pending
	rev       store.Rev // of the last commit that was dispatched
	running   bool

	loggers atomic.Int64 // subscribers that want logging events
}

// pending is a published event and the revision it has to come after.
type pending struct {
	after store.Rev
	msg   Message
}

// Message is one event on its way to subscribers. It is shared: read only.
type Message struct {
	// Rev is the cursor of a stored event, to resume after it with
	// [Filter.Since]; 0 when the event was not stored.
	Rev store.Rev
	api.Event
	// JSON is the encoded Event, made once for all subscribers.
	JSON []byte
}

// New makes a hub that sees all commits after this call, once [Hub.Run] runs.
func New(ctx context.Context, opts Options) (*Hub, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Location == "" {
		opts.Location = "none"
	}
	if opts.Buffer == 0 {
		opts.Buffer = 1024
	}
	h := &Hub{opts: opts, wake: make(chan struct{}, 1), subs: map[*Subscription]struct{}{}}
	rev, err := h.storeRev(ctx)
	if err != nil {
		return nil, err
	}
	h.rev = rev
	return h, nil
}

// Run dispatches events until ctx ends or the store closes; then it ends all
// subscriptions with ErrClosed. It is called once.
func (h *Hub) Run(ctx context.Context) error {
	h.mu.Lock()
	if h.running {
		h.mu.Unlock()
		return api.Errorf(api.Internal, "event hub is running already")
	}
	h.running = true
	h.mu.Unlock()
	defer h.endAll(ErrClosed)
	for {
		batches, err := h.watch(ctx)
		if err != nil {
			return err
		}
		h.pump(ctx, batches)
		if err := store.ContextError(ctx, "dispatch events"); err != nil {
			return err
		}
		// The hub fell behind the log or the store closed: watching again tells.
	}
}

// watch follows the store from where the hub is. When commits have been missed,
// subscribers are told to read everything afresh.
func (h *Hub) watch(ctx context.Context) (<-chan store.Batch, error) {
	batches, err := h.opts.Store.Watch(ctx, h.lastRev())
	if !errors.Is(err, store.ErrTooOld) {
		return batches, err
	}
	rev, err := h.storeRev(ctx)
	if err != nil {
		return nil, err
	}
	h.opts.Log.Warn("lifecycle events were lost", "from", h.lastRev(), "to", rev)
	h.setRev(rev)
	h.endAll(ErrLost)
	return h.opts.Store.Watch(ctx, rev)
}

// pump dispatches until batches is closed or ctx ends.
func (h *Hub) pump(ctx context.Context, batches <-chan store.Batch) {
	for {
		select {
		case <-ctx.Done():
			return
		case b, ok := <-batches:
			if !ok {
				return
			}
			h.dispatchBatch(b)
		case <-h.wake:
			for _, p := range h.takePublished() {
				for h.lastRev() < p.after {
					b, ok := <-batches
					if !ok {
						h.dispatch(p.msg)
						return
					}
					h.dispatchBatch(b)
				}
				h.dispatch(p.msg)
			}
		}
	}
}

func (h *Hub) dispatchBatch(b store.Batch) {
	msgs := h.messages(b)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rev = b.Rev
	for _, m := range msgs {
		h.sendLocked(m)
	}
}

func (h *Hub) dispatch(m Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sendLocked(m)
}

func (h *Hub) sendLocked(m Message) {
	for s := range h.subs {
		if s.filter.matches(m) && !s.push(m) {
			h.dropLocked(s)
		}
	}
}

// messages turns the stored events of a commit into what the API shows.
func (h *Hub) messages(b store.Batch) []Message {
	out := make([]Message, 0, len(b.Events))
	for _, e := range b.Events {
		m, err := newMessage(e.Rev, api.Event{
			Type: e.Type, Timestamp: e.Time, Metadata: e.Payload, Location: h.opts.Location, Project: e.Project,
		})
		if err != nil {
			h.opts.Log.Error("stored event cannot be sent", "revision", e.Rev, "err", err)
			continue
		}
		out = append(out, m)
	}
	return out
}

func newMessage(rev store.Rev, e api.Event) (Message, error) {
	data, err := json.Marshal(e)
	return Message{Rev: rev, Event: e, JSON: data}, err
}

// Publish sends an event that is not stored to those who listen now, after all
// lifecycle events that have been committed by now. It never blocks, and drops
// what nobody wants to hear. An empty project reaches subscribers of all
// projects. Metadata is encoded before Publish returns.
func (h *Hub) Publish(project, eventType string, metadata any) {
	if !h.wanted(project, eventType) {
		return
	}
	data, err := json.Marshal(metadata)
	if err != nil {
		h.opts.Log.Error("event cannot be encoded", "type", eventType, "err", err)
		return
	}
	msg, err := newMessage(0, api.Event{
		Type: eventType, Timestamp: h.opts.Now().UTC(), Metadata: data, Location: h.opts.Location, Project: project,
	})
	if err != nil {
		h.opts.Log.Error("event cannot be encoded", "type", eventType, "err", err)
		return
	}
	after, err := h.storeRev(context.Background()) // in-memory read
	if err != nil {
		after = 0 // the store is closing; order does not matter any more
	}
	h.mu.Lock()
	if len(h.published) >= maxPublished {
		h.published = slices.Delete(h.published, 0, maxPublished/2)
	}
	h.published = append(h.published, pending{after, msg})
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *Hub) wanted(project, eventType string) bool {
	if eventType == api.EventLogging {
		return h.loggers.Load() > 0
	}
	m := Message{Event: api.Event{Type: eventType, Project: project}}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if s.filter.matches(m) {
			return true
		}
	}
	return false
}

func (h *Hub) takePublished() []pending {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.published
	h.published = nil
	return p
}

func (h *Hub) storeRev(ctx context.Context) (rev store.Rev, err error) {
	err = h.opts.Store.View(ctx, func(tx store.Tx) error {
		rev = tx.Rev()
		return nil
	})
	return rev, err
}

func (h *Hub) lastRev() store.Rev {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rev
}

func (h *Hub) setRev(rev store.Rev) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rev = rev
}

func (h *Hub) endAll(reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.end(reason)
		h.dropLocked(s)
	}
}

// dropLocked forgets a subscriber; dropping twice is harmless.
func (h *Hub) dropLocked(s *Subscription) {
	if _, ok := h.subs[s]; !ok {
		return
	}
	delete(h.subs, s)
	if s.filter.wants(api.EventLogging) {
		h.loggers.Add(-1)
	}
}
