package operation

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// Spec describes an operation to start.
type Spec struct {
	ID          string              // empty: a new UUID; set to adopt a session after a restart
	Project     string              // empty: of no project, visible in all
	Class       string              // api.ClassTask (also when empty), ClassWebsocket or ClassToken
	Description string              // shown to users, such as "Starting instance"
	Resources   map[string][]string // collection ("instances") to URL paths
	Metadata    map[string]any      // initial metadata; nil shows as null
	Cancel      bool                // clients may cancel it

	// Owner is the identity that started it, which alone may see Secrets. Empty
	// means nobody.
	Owner string
	// Secrets of a websocket operation, by name of the stream ("0", "control").
	Secrets map[string]string
	// Requestor is shown in lifecycle events about the operation.
	Requestor *api.EventLifecycleRequestor

	// Run does the work. ctx ends on cancellation and when the daemon stops, with
	// the reason as its cause. The operation ends when Run returns. It may be nil
	// for a token, which waits to be cancelled.
	Run func(ctx context.Context, op *Op) error
	// Connect serves one websocket of the operation: the request carried the
	// secret of stream fd. It may run while Run does, once per connection, and
	// returns when the connection has been taken over; an error is for the
	// client that tried to connect and does not end the operation.
	Connect func(ctx context.Context, op *Op, fd string, w http.ResponseWriter, r *http.Request) error
}

// Op is one operation. Its methods are safe for concurrent use.
type Op struct {
	m       *Manager
	spec    Spec
	ctx     context.Context
	cancel  context.CancelCauseFunc
	created time.Time
	log     *slog.Logger
	done    chan struct{}

	mu       sync.Mutex
	status   api.StatusCode
	updated  time.Time
	metadata map[string]any // replaced, never changed: API hands it out
	showFDs  bool           // Secrets are still a part of the metadata for Owner
	err      error
	stopped  bool      // ctx had ended before Run returned
	shown    time.Time // when progress was last published
}

// errCancelled is the cause of a context that a client ended.
var errCancelled = api.Errorf(api.Canceled, "operation was cancelled")

// ID is the operation's UUID.
func (o *Op) ID() string { return o.spec.ID }

// Project is the project that the operation belongs to, or empty.
func (o *Op) Project() string { return o.spec.Project }

// Description is what the operation does, in words.
func (o *Op) Description() string { return o.spec.Description }

// Requestor is who asked for the operation; it may be nil.
func (o *Op) Requestor() *api.EventLifecycleRequestor { return o.spec.Requestor }

// Path is the operation's URL path, without the API's host.
func (o *Op) Path() string { return "/1.0/operations/" + o.spec.ID }

// Log is a logger that names the operation.
func (o *Op) Log() *slog.Logger { return o.log }

// Done is closed when the operation has ended.
func (o *Op) Done() <-chan struct{} { return o.done }

// API shows the operation as anyone who may see it sees it: without secrets.
func (o *Op) API() api.Operation { return o.APIFor("") }

// APIFor shows the operation to an identity. Only its owner sees the secrets of
// its websockets, as metadata "fds".
func (o *Op) APIFor(identity string) api.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	owner := identity != "" && identity == o.spec.Owner
	return o.apiLocked(owner)
}

func (o *Op) apiLocked(secrets bool) api.Operation {
	a := api.Operation{
		ID: o.spec.ID, Class: o.spec.Class, Description: o.spec.Description,
		CreatedAt: o.created, UpdatedAt: o.updated,
		Status: o.status.String(), StatusCode: o.status,
		Resources: o.spec.Resources, Metadata: o.metadata,
		MayCancel: o.spec.Cancel, Location: o.m.deps.Location,
	}
	if secrets && o.showFDs && len(o.spec.Secrets) > 0 {
		a.Metadata = maps.Clone(o.metadata)
		if a.Metadata == nil {
			a.Metadata = map[string]any{}
		}
		a.Metadata["fds"] = maps.Clone(o.spec.Secrets)
	}
	if o.err != nil {
		a.Err, a.Kind, a.Hint = o.err.Error(), api.KindOf(o.err), api.HintOf(o.err)
	}
	return a
}

// UpdateMetadata replaces the metadata, and with it the websocket secrets that
// the owner sees.
func (o *Op) UpdateMetadata(md map[string]any) {
	o.change(func() {
		o.metadata = maps.Clone(md)
		o.showFDs = false
	})
}

// ExtendMetadata sets some keys of the metadata and keeps the others.
func (o *Op) ExtendMetadata(md map[string]any) {
	o.change(func() { o.metadata = merged(o.metadata, md) })
}

// SetResources replaces the resources, for work that learns their names late.
func (o *Op) SetResources(res map[string][]string) {
	o.change(func() { o.spec.Resources = maps.Clone(res) })
}

func merged(a, b map[string]any) map[string]any {
	out := make(map[string]any, len(a)+len(b))
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

// change applies fn under the lock and publishes the result. What is changed
// after the end is dropped.
func (o *Op) change(fn func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.status.Final() {
		return
	}
	fn()
	o.publishLocked()
}

// publishLocked keeps the lock so that events leave in the order of changes.
func (o *Op) publishLocked() {
	o.updated = o.m.deps.Now().UTC()
	o.m.deps.Events.Publish(o.spec.Project, api.EventOperation, o.apiLocked(false))
}

// Wait waits until the operation has ended and gives its error, nil for success.
// When ctx ends first the error is that of ctx (Canceled or Timeout), and Done
// is still open.
func (o *Op) Wait(ctx context.Context) error {
	select {
	case <-o.done:
		return o.Err()
	default:
	}
	select {
	case <-o.done:
		return o.Err()
	case <-ctx.Done():
		return store.ContextError(ctx, "wait for operation "+o.spec.ID)
	}
}

// Err is how the operation ended; nil while it runs and after success.
func (o *Op) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// Cancel asks the operation to end; it does not wait for that. Errors: BadState
// when it cannot be cancelled or has ended.
func (o *Op) Cancel() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.status.Final():
		return api.Errorf(api.BadState, "operation %s has ended: %s", o.spec.ID, o.status)
	case !o.spec.Cancel:
		return api.Errorf(api.BadState, "operation %s (%s) cannot be cancelled", o.spec.ID, o.spec.Description)
	}
	o.cancelLocked(errCancelled)
	return nil
}

func (o *Op) cancelLocked(cause error) {
	if o.status == api.Running || o.status == api.Pending {
		o.status = api.Cancelling
		o.publishLocked()
	}
	o.cancel(cause)
}

// finish records how Run ended.
func (o *Op) finish(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.status = api.Success
	case o.stopped:
		// Whatever the work failed with, it was told to stop.
		o.status = api.Cancelled
		if errors.Is(err, context.Canceled) || errors.Is(err, api.Canceled) {
			err = context.Cause(o.ctx)
		}
		o.err = err
	default:
		o.status, o.err = api.Failure, err
	}
	o.publishLocked()
	close(o.done)
}
