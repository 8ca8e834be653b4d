package api

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind classifies an [Error]. It decides the HTTP status on the wire and lets
// both ends branch with errors.Is without looking at the text.
type Kind string

// The kinds of error. A kind is itself an error, so that
// errors.Is(err, api.NotFound) works on a wrapped [*Error] in the daemon and in
// a client alike.
const (
	Internal     Kind = "internal"     // 500: a defect or an unexpected answer of the system
	Invalid      Kind = "invalid"      // 400: the request is wrong whatever the state
	Forbidden    Kind = "forbidden"    // 403: the identity may not do this
	NotFound     Kind = "not-found"    // 404: the object does not exist (or may not be seen)
	NotAllowed   Kind = "not-allowed"  // 405: the path exists, the method does not
	Conflict     Kind = "conflict"     // 409: an object of that name exists
	Precondition Kind = "precondition" // 412: the If-Match revision is stale
	TooLarge     Kind = "too-large"    // 413: the request exceeds a size limit
	InUse        Kind = "in-use"       // 400: another object uses it; free it first
	BadState     Kind = "bad-state"    // 400: not possible in the object's present state
	Busy         Kind = "busy"         // 400: another operation holds the object
	Unsupported  Kind = "unsupported"  // 501: this host or build cannot do it
	NoSpace      Kind = "no-space"     // 507: a disk, pool or range of ids is full
	Unavailable  Kind = "unavailable"  // 503: starting, stopping, or a peer is gone
	Canceled     Kind = "canceled"     // 499: the caller gave up or cancelled the operation
	Timeout      Kind = "timeout"      // 408: a deadline passed
)

// Error makes a Kind usable as a target of errors.Is.
func (k Kind) Error() string { return string(k) }

var statusOf = map[Kind]int{
	Internal: http.StatusInternalServerError, Invalid: http.StatusBadRequest, Forbidden: http.StatusForbidden,
	NotFound: http.StatusNotFound, NotAllowed: http.StatusMethodNotAllowed, Conflict: http.StatusConflict,
	Precondition: http.StatusPreconditionFailed, TooLarge: http.StatusRequestEntityTooLarge,
	InUse: http.StatusBadRequest, BadState: http.StatusBadRequest, Busy: http.StatusBadRequest,
	Unsupported: http.StatusNotImplemented, NoSpace: http.StatusInsufficientStorage,
	Unavailable: http.StatusServiceUnavailable, Canceled: 499, Timeout: http.StatusRequestTimeout,
}

// Status is the HTTP status that carries the kind.
func (k Kind) Status() int {
	if s, ok := statusOf[k]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// KindOfStatus is the inverse of [Kind.Status] for answers that carry no kind,
// such as those of an LXD server.
func KindOfStatus(status int) Kind {
	switch status {
	case http.StatusBadRequest:
		return Invalid
	case http.StatusUnauthorized:
		return Forbidden
	}
	for k, s := range statusOf {
		if s == status {
			return k
		}
	}
	return Internal
}

// Error is the one error type that crosses the API. Daemon and client share it.
type Error struct {
	Kind    Kind   // decides the HTTP status; sent beside LXD's error and error_code
	Message string // what was attempted, on what, and why it failed
	Hint    string // the next command to try; may be empty
	cause   error
}

// Errorf makes an Error of a kind. A %w verb keeps the cause for errors.Is and
// errors.As; the cause's kind does not override k.
func Errorf(k Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, Message: err.Error(), cause: errors.Unwrap(err)}
}

// WithHint returns a copy of e that carries a hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Error is the message alone; user interfaces print the hint on its own line.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause that was wrapped with %w, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is reports a match with a bare Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf finds the kind of err: that of the outermost *Error in its chain, or
// Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// HintOf finds the first hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.cause
	}
	return ""
}
