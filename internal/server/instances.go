package server

import (
	"net/http"
	"strings"

	"github.com/croft-project/croft/api"
)

// The two names of the collection of instances in paths.
const (
	instancesName  = "instances"
	containersName = "containers"
)

// collection is the name by which the client asked for instances; paths in the
// answer use the same.
func collection(r *http.Request) string {
	if strings.HasPrefix(r.URL.Path, "/1.0/"+containersName) {
		return containersName
	}
	return instancesName
}

func (s *Server) listInstances(w http.ResponseWriter, r *http.Request) error {
	root := collection(r)
	if recursion(r) == 2 {
		all, err := s.Instances.ListFull(r.Context(), project(r))
		if err != nil {
			return err
		}
		return list(w, r, all, func(i api.InstanceFull) string { return apiPath(root, i.Name) })
	}
	all, err := s.Instances.List(r.Context(), project(r))
	if err != nil {
		return err
	}
	return list(w, r, all, func(i api.Instance) string { return apiPath(root, i.Name) })
}

func (s *Server) createInstance(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Content-Type") == octetStream {
		return notSupported("importing a backup is")
	}
	var req api.InstancesPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	op, err := s.Instances.Create(r.Context(), project(r), req)
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

// setStateAll changes the state of all instances of a project.
func (s *Server) setStateAll(w http.ResponseWriter, r *http.Request) error {
	var req api.InstancesPut
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if req.State == nil {
		return api.Errorf(api.Invalid, "field \"state\" of the request is missing: it holds the action")
	}
	op, err := s.Instances.SetStateAll(r.Context(), project(r), *req.State)
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

func (s *Server) getInstance(w http.ResponseWriter, r *http.Request) error {
	if recursion(r) > 0 {
		inst, etag, err := s.Instances.GetFull(r.Context(), project(r), r.PathValue("name"))
		if err != nil {
			return err
		}
		return okTagged(w, etag, inst)
	}
	inst, etag, err := s.Instances.Get(r.Context(), project(r), r.PathValue("name"))
	if err != nil {
		return err
	}
	return okTagged(w, etag, inst)
}

func (s *Server) replaceInstance(w http.ResponseWriter, r *http.Request) error {
	var req api.InstancePut
	if err := decode(w, r, &req); err != nil {
		return err
	}
	op, err := s.Instances.Replace(r.Context(), project(r), r.PathValue("name"), ifMatch(r), req)
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

func (s *Server) patchInstance(w http.ResponseWriter, r *http.Request) error {
	mutate, err := change[api.InstancePut](w, r)
	if err != nil {
		return err
	}
	if err := s.Instances.Update(r.Context(), project(r), r.PathValue("name"), ifMatch(r), mutate); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) renameInstance(w http.ResponseWriter, r *http.Request) error {
	var req api.InstancePost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	op, err := s.Instances.Rename(r.Context(), project(r), r.PathValue("name"), req)
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

func (s *Server) deleteInstance(w http.ResponseWriter, r *http.Request) error {
	op, err := s.Instances.Delete(r.Context(), project(r), r.PathValue("name"))
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

func (s *Server) getState(w http.ResponseWriter, r *http.Request) error {
	state, err := s.Instances.State(r.Context(), project(r), r.PathValue("name"))
	if err != nil {
		return err
	}
	return ok(w, state)
}

func (s *Server) setState(w http.ResponseWriter, r *http.Request) error {
	var req api.InstanceStatePut
	if err := decode(w, r, &req); err != nil {
		return err
	}
	op, err := s.Instances.SetState(r.Context(), project(r), r.PathValue("name"), req)
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) error {
	var req api.InstanceExecPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	op, err := s.Instances.Exec(r.Context(), project(r), r.PathValue("name"), req)
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

func (s *Server) getMetadata(w http.ResponseWriter, r *http.Request) error {
	meta, etag, err := s.Instances.Metadata(r.Context(), project(r), r.PathValue("name"))
	if err != nil {
		return err
	}
	return okTagged(w, etag, meta)
}

// emptyOfInstance answers for what an instance does not have in this version.
func (s *Server) emptyOfInstance(w http.ResponseWriter, r *http.Request) error {
	if _, _, err := s.Instances.Get(r.Context(), project(r), r.PathValue("name")); err != nil {
		return err
	}
	return ok(w, []struct{}{})
}

// listVirtualMachines: there are none.
func (s *Server) listVirtualMachines(w http.ResponseWriter, _ *http.Request) error {
	return ok(w, []struct{}{})
}

// unsupported makes a handler for what this version cannot do; subject is a
// phrase such as "snapshots are".
func unsupported(subject string) handlerFunc {
	return func(http.ResponseWriter, *http.Request) error { return notSupported(subject) }
}

func notSupported(subject string) error {
	return api.Errorf(api.Unsupported, "%s not supported by this version", subject)
}
