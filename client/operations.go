package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sort"
	"time"

	"github.com/croft-project/croft/api"
)

// cancelLimit bounds the request that cancels an operation after the caller's
// own context has ended.
const cancelLimit = 5 * time.Second

// Operation is work that the server does in the background.
type Operation struct {
	c    *Client
	last api.Operation
}

// ID is the UUID of the operation; empty if the server did the work at once.
func (o *Operation) ID() string { return o.last.ID }

// Last is the operation as the server described it last.
func (o *Operation) Last() api.Operation { return o.last }

// Wait returns when the operation has ended. When ctx ends first, an operation
// that may be cancelled is cancelled.
//
// Errors: that of the operation if it failed; Canceled if somebody cancelled
// it or ctx was.
func (o *Operation) Wait(ctx context.Context) (api.Operation, error) {
	if o.last.ID == "" || o.last.StatusCode.Final() {
		return o.last, operationError(o.last)
	}
	op, _, err := get[api.Operation](ctx, o.c, path("operations", o.last.ID, "wait"), nil)
	if err != nil {
		if ctx.Err() != nil {
			o.abandon(ctx)
		}
		return o.last, err
	}
	o.last = op
	return op, operationError(op)
}

// WaitProgress is [Operation.Wait] that calls fn, on the caller's goroutine or
// one that has ended by the time WaitProgress returns, with each change of the
// operation that the server announces. Changes may be missed; fn is not called
// for the end.
func (o *Operation) WaitProgress(ctx context.Context, fn func(api.Operation)) (api.Operation, error) {
	if o.last.ID == "" || o.last.StatusCode.Final() || fn == nil {
		return o.Wait(ctx)
	}
	fn(o.last)
	watch, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.watch(watch, fn)
	}()
	defer func() {
		stop()
		<-done
	}()
	return o.Wait(ctx)
}

// watch passes on the changes of o until ctx ends. Progress is a courtesy, so
// trouble with the event stream is not an error.
func (o *Operation) watch(ctx context.Context, fn func(api.Operation)) {
	id := o.last.ID
	events, err := o.c.Events(ctx, EventFilter{Types: []string{api.EventOperation}})
	if err != nil {
		return
	}
	defer events.Close()
	for {
		ev, err := events.Next(ctx)
		if err != nil {
			return
		}
		var op api.Operation
		if json.Unmarshal(ev.Metadata, &op) == nil && op.ID == id && !op.StatusCode.Final() {
			fn(op)
		}
	}
}

// Cancel asks the server to cancel the operation.
func (o *Operation) Cancel(ctx context.Context) error {
	return o.c.CancelOperation(ctx, o.last.ID)
}

// abandon cancels an operation whose caller has gone.
func (o *Operation) abandon(ctx context.Context) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelLimit)
	defer stop()
	op, _, err := get[api.Operation](ctx, o.c, path("operations", o.last.ID), nil)
	if err == nil && op.MayCancel && !op.StatusCode.Final() {
		_ = o.Cancel(ctx) // the caller's context error is what counts
	}
}

// operationError is the error of an operation that has ended.
func operationError(op api.Operation) error {
	switch op.StatusCode {
	case api.Failure:
		kind := op.Kind
		if kind == "" {
			kind = api.Internal
		}
		if op.Err == "" {
			op.Err = "operation failed"
		}
		return &api.Error{Kind: kind, Message: op.Err, Hint: op.Hint}
	case api.Cancelled:
		return api.Errorf(api.Canceled, "operation %s was cancelled", op.ID)
	}
	return nil
}

// Operations lists the operations that the server knows, running ones and those
// that ended a moment ago, oldest first.
func (c *Client) Operations(ctx context.Context, allProjects bool) ([]api.Operation, error) {
	q := recursion("1")
	if allProjects {
		q.Set("all-projects", "true")
	}
	byStatus, _, err := get[map[string][]api.Operation](ctx, c, path("operations"), q)
	if err != nil {
		return nil, err
	}
	var all []api.Operation
	for _, ops := range byStatus {
		all = append(all, ops...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].CreatedAt.Before(all[j].CreatedAt) })
	return all, nil
}

// Operation fetches one operation.
func (c *Client) Operation(ctx context.Context, id string) (api.Operation, error) {
	op, _, err := get[api.Operation](ctx, c, path("operations", id), nil)
	return op, err
}

// AttachOperation gives a handle on an operation that somebody else began.
func (c *Client) AttachOperation(ctx context.Context, id string) (*Operation, error) {
	op, err := c.Operation(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Operation{c: c, last: op}, nil
}

// CancelOperation asks the server to cancel an operation.
func (c *Client) CancelOperation(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, path("operations", id), nil, "")
}

// IsGone reports whether err says that an object does not exist.
func IsGone(err error) bool { return errors.Is(err, api.NotFound) }
