// Package api holds what travels over the wire between a Croft daemon and its
// clients: request and answer bodies, status codes, operation and event
// records, and the one [Error] type. JSON names and meanings are those of LXD's
// REST API 1.0, so that clients written for LXD work unchanged; fields that LXD
// does not have are marked as ours.
//
// The package depends on the standard library only and builds on any system.
package api
