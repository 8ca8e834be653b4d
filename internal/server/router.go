package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// handlerFunc answers a request or returns the error to answer with, having
// written nothing.
type handlerFunc func(w http.ResponseWriter, r *http.Request) error

// access says who may use a route.
type access int

const (
	trusted  access = iota // an identity that may use the whole API
	anybody                // also without identity; the handler shows less then
	internal               // trusted, and only over the unix socket
)

// route is one line of the route table.
type route struct {
	method  string
	pattern string // path; {name} matches one segment, {name...} the rest, escaped slashes included
	handler handlerFunc
	access  access
}

// router finds routes by path. http.ServeMux is not used because it redirects
// paths that it would clean, and image aliases may hold any of "//", "." and
// "..".
type router struct {
	root node
}

// node is a position in the tree of path segments.
type node struct {
	static  map[string]*node
	param   *node // any one segment
	rest    *node // all that remains, at least one segment
	pattern string
	names   []string // of the parameters on the way here
	methods map[string]*route
}

// add puts a route into the tree. Errors: a method twice on one pattern, and
// patterns that differ in the names of parameters only.
func (t *router) add(rt route) error {
	n := &t.root
	var names []string
	for seg := range strings.SplitSeq(strings.TrimPrefix(rt.pattern, "/"), "/") {
		switch {
		case strings.HasSuffix(seg, "...}"):
			names = append(names, strings.TrimSuffix(seg[1:], "...}"))
			n = child(&n.rest)
		case strings.HasPrefix(seg, "{"):
			names = append(names, strings.Trim(seg, "{}"))
			n = child(&n.param)
		default:
			if n.static == nil {
				n.static = map[string]*node{}
			}
			next := n.static[seg]
			n.static[seg] = child(&next)
			n = next
		}
	}
	if n.methods == nil {
		n.pattern, n.names, n.methods = rt.pattern, names, map[string]*route{}
	}
	if n.pattern != rt.pattern || n.methods[rt.method] != nil {
		return fmt.Errorf("route %s %s clashes with %s", rt.method, rt.pattern, n.pattern)
	}
	n.methods[rt.method] = &rt
	return nil
}

func child(at **node) *node {
	if *at == nil {
		*at = &node{}
	}
	return *at
}

// find gives the node of an escaped path and the values of its parameters, or
// nil when there is none or an escape is broken.
func (t *router) find(escaped string) (*node, []string) {
	if !strings.HasPrefix(escaped, "/") {
		return nil, nil
	}
	return t.root.find(strings.Split(escaped[1:], "/"), nil)
}

func (n *node) find(segs, values []string) (*node, []string) {
	if len(segs) == 0 {
		if n.methods == nil {
			return nil, nil
		}
		return n, values
	}
	if next := n.static[segs[0]]; next != nil {
		if found, v := next.find(segs[1:], values); found != nil {
			return found, v
		}
	}
	if n.param != nil {
		if value, err := url.PathUnescape(segs[0]); err == nil && value != "" {
			if found, v := n.param.find(segs[1:], append(values, value)); found != nil {
				return found, v
			}
		}
	}
	if n.rest != nil {
		if value, err := url.PathUnescape(strings.Join(segs, "/")); err == nil && value != "" {
			return n.rest, append(values, value)
		}
	}
	return nil, nil
}

// route picks the route for a method; GET serves HEAD too. When there is none,
// allow lists the methods that exist.
func (n *node) route(method string) (rt *route, allow []string) {
	if rt := n.methods[method]; rt != nil {
		return rt, nil
	}
	if get := n.methods[http.MethodGet]; get != nil && method == http.MethodHead {
		return get, nil
	}
	for m := range n.methods {
		allow = append(allow, m)
	}
	if n.methods[http.MethodGet] != nil && n.methods[http.MethodHead] == nil {
		allow = append(allow, http.MethodHead)
	}
	allow = append(allow, http.MethodOptions)
	slices.Sort(allow)
	return nil, allow
}
