// Package auth says who sent a request. The server puts an [Identity] into the
// request's context; whoever needs to know who asked (the events and operations
// that a request causes) takes it from there with [From].
package auth

import (
	"context"

	"github.com/croft-project/croft/api"
)

// The protocols over which a request can come.
const (
	ProtocolUnix = "unix" // the local socket; the kernel vouches for the user
)

// Identity is one authenticated caller. The zero value is nobody.
type Identity struct {
	Protocol string // ProtocolUnix; empty means not authenticated
	Username string // for people: "root", or the user id in digits
	Address  string // where the request came from; "@" for a unix socket
	UID      uint32 // user on this host, for ProtocolUnix
}

// Trusted tells whether the caller may use the whole API. Who can open the
// local socket may: its owner and group are the access control.
func (i Identity) Trusted() bool { return i.Protocol == ProtocolUnix }

// Key tells callers apart, for the owner of an operation. It is empty for
// nobody.
func (i Identity) Key() string {
	if i.Protocol == "" {
		return ""
	}
	return i.Protocol + ":" + i.Username
}

// Requestor is the identity as lifecycle events show it; nil for nobody.
func (i Identity) Requestor() *api.EventLifecycleRequestor {
	if i.Protocol == "" {
		return nil
	}
	return &api.EventLifecycleRequestor{Username: i.Username, Protocol: i.Protocol, Address: i.Address}
}

type key struct{}

// With gives a context that carries id.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, key{}, id)
}

// From is the identity in ctx: nobody for work that no request caused.
func From(ctx context.Context) Identity {
	id, _ := ctx.Value(key{}).(Identity)
	return id
}
