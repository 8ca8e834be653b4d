package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
)

// maxWait bounds the timeout of a wait, so that it fits a duration.
const maxWait = 365 * 24 * time.Hour

// listOperations groups operations by their status in lower case.
func (s *Server) listOperations(w http.ResponseWriter, r *http.Request) error {
	byStatus := map[string][]any{}
	for _, op := range s.Operations.List(operationsProject(r)) {
		o := op.APIFor(auth.From(r.Context()).Key())
		status := strings.ToLower(o.Status)
		if recursion(r) == 0 {
			byStatus[status] = append(byStatus[status], op.Path())
		} else {
			byStatus[status] = append(byStatus[status], o)
		}
	}
	return ok(w, byStatus)
}

// operationsProject is the project whose operations are shown; empty for all.
func operationsProject(r *http.Request) string {
	if truthy(r.URL.Query().Get("all-projects")) {
		return ""
	}
	return project(r)
}

func (s *Server) getOperation(w http.ResponseWriter, r *http.Request) error {
	op, err := s.Operations.Get(r.PathValue("id"))
	if err != nil {
		return err
	}
	return ok(w, op.APIFor(auth.From(r.Context()).Key()))
}

func (s *Server) cancelOperation(w http.ResponseWriter, r *http.Request) error {
	if err := s.Operations.Cancel(r.PathValue("id"), auth.From(r.Context()).Requestor()); err != nil {
		return err
	}
	return done(w)
}

// waitOperation waits until an operation has ended or the timeout, in seconds, is
// over; below 0 waits without limit. It shows the operation as it is then.
func (s *Server) waitOperation(w http.ResponseWriter, r *http.Request) error {
	timeout, err := waitTimeout(r.URL.Query().Get("timeout"))
	if err != nil {
		return err
	}
	ctx, cancel := s.untilStop(r.Context())
	defer cancel()
	op, err := s.Operations.Wait(ctx, r.PathValue("id"), timeout)
	if err != nil {
		return s.whileStopping(r, err)
	}
	return ok(w, op.APIFor(auth.From(r.Context()).Key()))
}

// whileStopping gives the error of a long poll that ended because the server
// stops.
func (s *Server) whileStopping(r *http.Request, err error) error {
	if s.stopping.Err() != nil && r.Context().Err() == nil {
		return api.Errorf(api.Unavailable, "the daemon is stopping")
	}
	return err
}

func waitTimeout(v string) (time.Duration, error) {
	if v == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err != nil:
		return 0, api.Errorf(api.Invalid, "query parameter \"timeout\" is %q, allowed are whole seconds, -1 for no limit", v)
	case n < 0:
		return -1, nil
	}
	return time.Duration(min(n, int64(maxWait/time.Second))) * time.Second, nil
}

// connectOperation hands a websocket to an operation; the secret says which of
// its streams it is.
func (s *Server) connectOperation(w http.ResponseWriter, r *http.Request) error {
	return s.Operations.Connect(r.Context(), r.PathValue("id"), r.URL.Query().Get("secret"), w, r)
}
