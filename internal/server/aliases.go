package server

import (
	"net/http"

	"github.com/croft-project/croft/api"
)

// Alias names may hold slashes. In a path these may be escaped or not.

func (s *Server) listAliases(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Aliases.ListAliases(r.Context(), project(r))
	if err != nil {
		return err
	}
	return list(w, r, all, func(a api.ImageAliasesEntry) string { return apiPath("images", "aliases", a.Name) })
}

func (s *Server) createAlias(w http.ResponseWriter, r *http.Request) error {
	var req api.ImageAliasesPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := s.Aliases.CreateAlias(r.Context(), project(r), req); err != nil {
		return err
	}
	return created(w, apiPath("images", "aliases", req.Name))
}

func (s *Server) getAlias(w http.ResponseWriter, r *http.Request) error {
	a, etag, err := s.Aliases.GetAlias(r.Context(), project(r), r.PathValue("name"))
	if err != nil {
		return err
	}
	return okTagged(w, etag, a)
}

func (s *Server) updateAlias(w http.ResponseWriter, r *http.Request) error {
	mutate, err := change[api.ImageAliasesEntryPut](w, r)
	if err != nil {
		return err
	}
	if err := s.Aliases.UpdateAlias(r.Context(), project(r), r.PathValue("name"), ifMatch(r), mutate); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) renameAlias(w http.ResponseWriter, r *http.Request) error {
	var req api.ImageAliasesEntryPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := s.Aliases.RenameAlias(r.Context(), project(r), r.PathValue("name"), req.Name); err != nil {
		return err
	}
	return created(w, apiPath("images", "aliases", req.Name))
}

func (s *Server) deleteAlias(w http.ResponseWriter, r *http.Request) error {
	if err := s.Aliases.DeleteAlias(r.Context(), project(r), r.PathValue("name")); err != nil {
		return err
	}
	return done(w)
}
