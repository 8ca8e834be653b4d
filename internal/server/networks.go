package server

import (
	"net/http"

	"github.com/croft-project/croft/api"
)

func (s *Server) listNetworks(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Networks.ListNetworks(r.Context())
	if err != nil {
		return err
	}
	return list(w, r, all, func(n api.Network) string { return apiPath("networks", n.Name) })
}

func (s *Server) createNetwork(w http.ResponseWriter, r *http.Request) error {
	var req api.NetworksPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := s.Networks.CreateNetwork(r.Context(), req); err != nil {
		return err
	}
	return created(w, apiPath("networks", req.Name))
}

func (s *Server) getNetwork(w http.ResponseWriter, r *http.Request) error {
	n, etag, err := s.Networks.GetNetwork(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return okTagged(w, etag, n)
}

func (s *Server) updateNetwork(w http.ResponseWriter, r *http.Request) error {
	mutate, err := change[api.NetworkPut](w, r)
	if err != nil {
		return err
	}
	if err := s.Networks.UpdateNetwork(r.Context(), r.PathValue("name"), ifMatch(r), mutate); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) renameNetwork(w http.ResponseWriter, r *http.Request) error {
	var req api.NetworkPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := s.Networks.RenameNetwork(r.Context(), r.PathValue("name"), req.Name); err != nil {
		return err
	}
	return created(w, apiPath("networks", req.Name))
}

func (s *Server) deleteNetwork(w http.ResponseWriter, r *http.Request) error {
	if err := s.Networks.DeleteNetwork(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) networkLeases(w http.ResponseWriter, r *http.Request) error {
	leases, err := s.Networks.Leases(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	if leases == nil {
		leases = []api.NetworkLease{}
	}
	return ok(w, leases)
}

func (s *Server) networkState(w http.ResponseWriter, r *http.Request) error {
	state, err := s.Networks.NetworkState(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return ok(w, state)
}
