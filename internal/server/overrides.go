package server

import (
	"errors"
	"net/http"

	"github.com/croft-project/croft/api"
)

// override gives one kind of error at one place the status that LXD answers
// there, although another would be right, because a client that is tested
// against LXD may look for it.
type override struct {
	kind   api.Kind
	status int
	reason string
}

// All exceptions from the rule that a kind decides the status.
var (
	profileTaken = override{api.Conflict, http.StatusInternalServerError,
		"LXD 5.0.2 answers 500 when a profile of the name exists, on create and rename (conformance: profiles.api)"}
	logGone = override{api.NotFound, http.StatusInternalServerError,
		"LXD 5.0.2 answers 500 for a recorded output that was deleted (conformance: exec.api-no-websocket)"}
)

// on applies the override to err if it is of its kind.
func (o override) on(err error) error {
	if !errors.Is(err, o.kind) {
		return err
	}
	return &overridden{error: err, status: o.status}
}

// overridden is an error with a status of its own.
type overridden struct {
	error
	status int
}

func (o *overridden) Unwrap() error { return o.error }
