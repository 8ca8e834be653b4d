// Package server is the REST API over HTTP: routes, middleware and one file per
// resource. A handler decodes the request, calls one method of a service and
// renders the answer; what the methods do is decided below this package, in
// instance, catalog and inventory, which it knows by the interfaces of deps.go.
//
// The way of a request: [Server.ServeHTTP] recovers from panics, notes who asks,
// refuses foreign web pages and unknown projects, finds the route in the table
// of routes.go, checks its access and calls its handler. A handler that returns
// an error has written nothing; writeError, the only place that knows status
// codes, writes it.
//
// Paths, bodies, headers and status codes are those of LXD 5.0's API 1.0. Where
// LXD answers a mistake of the client with status 500, Croft answers with the
// right 4xx; the few exceptions are in overrides.go, each with its reason.
package server
