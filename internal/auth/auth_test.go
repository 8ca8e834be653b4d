package auth

import (
	"context"
	"testing"
)

func TestIdentity(t *testing.T) {
	nobody := From(context.Background())
	if nobody.Trusted() || nobody.Key() != "" || nobody.Requestor() != nil {
		t.Errorf("nobody: got trusted %v, key %q, requestor %v", nobody.Trusted(), nobody.Key(), nobody.Requestor())
	}
	id := From(With(context.Background(), Identity{Protocol: ProtocolUnix, Username: "ann", Address: "@", UID: 1000}))
	if !id.Trusted() || id.Key() != "unix:ann" {
		t.Errorf("got trusted %v, key %q, want true, unix:ann", id.Trusted(), id.Key())
	}
	if r := id.Requestor(); r.Username != "ann" || r.Protocol != "unix" || r.Address != "@" {
		t.Errorf("requestor: got %+v", *r)
	}
}
