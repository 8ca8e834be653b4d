package operation

import (
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/croft-project/croft/api"
)

// Publisher takes the events of operations; event.Hub is one. It must not block.
type Publisher interface {
	Publish(project, eventType string, metadata any)
}

// Deps of [New]. Events is required.
type Deps struct {
	Events   Publisher
	Log      *slog.Logger     // nil discards
	Now      func() time.Time // nil means time.Now
	Location string           // member name; empty means "none"
	Linger   time.Duration    // how long an ended operation stays visible; 0 means 5 s
}

// Manager starts and finds operations. Its methods are safe for concurrent use.
type Manager struct {
	deps Deps
	wg   sync.WaitGroup // goroutines of operations

	mu      sync.Mutex
	ops     map[string]*Op
	timers  map[string]*time.Timer // of ended operations that are still visible
	stopped bool
}

// New makes a manager without operations.
func New(deps Deps) *Manager {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Location == "" {
		deps.Location = "none"
	}
	if deps.Linger == 0 {
		deps.Linger = 5 * time.Second
	}
	return &Manager{deps: deps, ops: map[string]*Op{}, timers: map[string]*time.Timer{}}
}

// Start begins an operation and returns while it runs. Errors: Unavailable
// after Shutdown, Conflict when the ID is taken, Internal for a bad Spec.
func (m *Manager) Start(spec Spec) (*Op, error) {
	o, err := m.newOp(spec)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		o.cancel(nil)
		return nil, errStopping()
	}
	if _, taken := m.ops[o.spec.ID]; taken {
		m.mu.Unlock()
		o.cancel(nil)
		return nil, api.Errorf(api.Conflict, "operation %s already exists", o.spec.ID)
	}
	m.ops[o.spec.ID] = o
	m.wg.Add(1)
	m.mu.Unlock()

	o.mu.Lock()
	o.publishLocked()
	if o.status == api.Pending { // not cancelled meanwhile
		o.status = api.Running
		o.publishLocked()
	}
	o.mu.Unlock()
	go m.run(o)
	return o, nil
}

func (m *Manager) newOp(spec Spec) (*Op, error) {
	switch spec.Class {
	case "":
		spec.Class = api.ClassTask
	case api.ClassTask, api.ClassWebsocket, api.ClassToken:
	default:
		return nil, api.Errorf(api.Internal, "operation class %q is not known", spec.Class)
	}
	if spec.Run == nil && spec.Class != api.ClassToken {
		return nil, api.Errorf(api.Internal, "operation %q has nothing to run", spec.Description)
	}
	if spec.ID == "" {
		spec.ID = uuid.NewString()
	}
	spec.Secrets = maps.Clone(spec.Secrets)
	spec.Resources = maps.Clone(spec.Resources)
	now := m.deps.Now().UTC()
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Op{
		m: m, spec: spec, ctx: ctx, cancel: cancel, created: now, updated: now,
		log:  m.deps.Log.With("operation", spec.ID, "project", spec.Project),
		done: make(chan struct{}), status: api.Pending,
		metadata: maps.Clone(spec.Metadata), showFDs: true,
	}, nil
}

func errStopping() error { return api.Errorf(api.Unavailable, "the daemon is stopping") }

func (m *Manager) run(o *Op) {
	defer m.wg.Done()
	// What holds when Run does not return: it panics or calls runtime.Goexit.
	var err error = api.Errorf(api.Internal, "operation %s failed: internal error", o.spec.ID).
		WithHint("this is a defect; please report it with the daemon's log")
	defer func() { m.end(o, err) }()
	defer func() {
		if p := recover(); p != nil {
			o.log.Error("operation panicked", "description", o.spec.Description, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	err = o.work()
}

func (o *Op) work() error {
	if o.spec.Run == nil {
		<-o.ctx.Done()
		return context.Cause(o.ctx)
	}
	return o.spec.Run(o.ctx, o)
}

// end records and shows how the operation ended, and forgets it after a while.
func (m *Manager) end(o *Op, err error) {
	o.cancelUnused()
	o.finish(err)
	m.logEnd(o, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timers[o.spec.ID] = time.AfterFunc(m.deps.Linger, func() { m.forget(o) })
}

// cancelUnused is called when Run has returned: a context that has not ended by
// now frees its resources without counting as cancelled.
func (o *Op) cancelUnused() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = o.ctx.Err() != nil
	o.cancel(nil)
}

func (m *Manager) logEnd(o *Op, err error) {
	took := m.deps.Now().Sub(o.created).Round(time.Millisecond)
	switch {
	case err == nil:
		o.log.Debug("operation ended", "description", o.spec.Description, "took", took)
	case api.KindOf(err) == api.Internal && !errors.Is(err, context.Canceled):
		o.log.Error("operation failed", "description", o.spec.Description, "took", took, "err", err)
	default:
		o.log.Info("operation failed", "description", o.spec.Description, "took", took, "err", err)
	}
}

func (m *Manager) forget(o *Op) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ops, o.spec.ID)
	delete(m.timers, o.spec.ID)
}

// Get finds an operation that runs or ended a moment ago. Errors: NotFound.
func (m *Manager) Get(id string) (*Op, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.ops[id]
	if !ok {
		return nil, api.Errorf(api.NotFound, "operation %s not found", id)
	}
	return o, nil
}

// List gives the operations of a project and those of none, or, with an empty
// project, all; oldest first.
func (m *Manager) List(project string) []*Op {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []*Op{}
	for _, o := range m.ops {
		if project == "" || o.spec.Project == "" || o.spec.Project == project {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *Op) int {
		if c := a.created.Compare(b.created); c != 0 {
			return c
		}
		return strings.Compare(a.spec.ID, b.spec.ID)
	})
	return out
}

// Wait waits until an operation has ended, or for timeout if that is not
// negative, and gives it in whatever state it is then: running out of time is no
// error. Errors: NotFound, and Canceled when ctx ends.
func (m *Manager) Wait(ctx context.Context, id string, timeout time.Duration) (*Op, error) {
	o, err := m.Get(id)
	if err != nil {
		return nil, err
	}
	var expired <-chan time.Time
	if timeout >= 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-o.done:
	case <-expired:
	case <-ctx.Done():
		return nil, api.Errorf(api.Canceled, "wait for operation %s: %w", id, ctx.Err())
	}
	return o, nil
}

// Cancel asks an operation to end, on behalf of by (may be nil). Errors:
// NotFound, BadState.
func (m *Manager) Cancel(id string, by *api.EventLifecycleRequestor) error {
	o, err := m.Get(id)
	if err != nil {
		return err
	}
	if err := o.Cancel(); err != nil {
		return err
	}
	m.deps.Events.Publish(o.spec.Project, api.EventLifecycle, api.EventLifecycleMetadata{
		Action: "operation-cancelled", Source: o.Path(), Requestor: by,
	})
	return nil
}

// Connect hands a websocket request to the operation whose secret it carries.
// Errors: NotFound; Internal without the right secret (LXD answers 500 there,
// which its clients' tests expect); BadState when the operation has ended or
// takes no connections.
func (m *Manager) Connect(ctx context.Context, id, secret string, w http.ResponseWriter, r *http.Request) error {
	o, err := m.Get(id)
	if err != nil {
		return err
	}
	if o.spec.Class != api.ClassWebsocket || o.spec.Connect == nil {
		return api.Errorf(api.BadState, "operation %s takes no websocket connections", id)
	}
	if secret == "" {
		return api.Errorf(api.Internal, "missing secret")
	}
	fd, ok := o.stream(secret)
	if !ok {
		return api.Errorf(api.Internal, "the secret is not one of operation %s", id)
	}
	select {
	case <-o.done:
		return api.Errorf(api.BadState, "operation %s has ended", id)
	default:
	}
	return o.spec.Connect(ctx, o, fd, w, r)
}

// stream finds the stream of a secret, comparing with all in constant time.
func (o *Op) stream(secret string) (fd string, ok bool) {
	for name, s := range o.spec.Secrets {
		if subtle.ConstantTimeCompare([]byte(s), []byte(secret)) == 1 {
			fd, ok = name, true
		}
	}
	return fd, ok
}

// Shutdown refuses new operations, gives running tasks up to grace to end by
// themselves, ends the contexts of the rest (websocket and token operations at
// once: sessions outlive the daemon) and waits for them until ctx ends. Errors:
// Timeout or Canceled when some are still running then.
func (m *Manager) Shutdown(ctx context.Context, grace time.Duration) error {
	m.mu.Lock()
	m.stopped = true
	for _, t := range m.timers {
		t.Stop()
	}
	m.mu.Unlock()
	m.stopAll(func(o *Op) bool { return o.spec.Class != api.ClassTask })

	ended := make(chan struct{})
	go func() {
		m.wg.Wait()
		close(ended)
	}()
	wait, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	select {
	case <-ended:
		return nil
	case <-wait.Done():
	}
	m.stopAll(func(*Op) bool { return true })
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return api.Errorf(api.Timeout, "%s", m.stillRunning())
	}
}

func (m *Manager) stopAll(which func(*Op) bool) {
	for _, o := range m.List("") {
		if which(o) {
			o.mu.Lock()
			if !o.status.Final() {
				o.cancelLocked(errStopping())
			}
			o.mu.Unlock()
		}
	}
}

func (m *Manager) stillRunning() string {
	var names []string
	for _, o := range m.List("") {
		select {
		case <-o.done:
		default:
			names = append(names, o.spec.Description+" ("+o.spec.ID+")")
		}
	}
	return "operations that did not stop: " + strings.Join(names, ", ")
}
