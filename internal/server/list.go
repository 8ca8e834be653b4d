package server

import (
	"net/http"
)

// list answers a collection: the paths of its members, or the members. filter
// of the query applies to both. It never answers null.
func list[T any](w http.ResponseWriter, r *http.Request, items []T, pathOf func(T) string) error {
	match, err := filterOf(r)
	if err != nil {
		return err
	}
	if match != nil {
		if items, err = filtered(items, match); err != nil {
			return err
		}
	}
	if recursion(r) == 0 {
		paths := make([]string, len(items))
		for i, it := range items {
			paths[i] = pathOf(it)
		}
		return ok(w, paths)
	}
	if items == nil {
		items = []T{}
	}
	return ok(w, items)
}
