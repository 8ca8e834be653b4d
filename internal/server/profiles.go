package server

import (
	"net/http"

	"github.com/croft-project/croft/api"
)

func (s *Server) listProfiles(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Profiles.ListProfiles(r.Context(), project(r))
	if err != nil {
		return err
	}
	return list(w, r, all, func(p api.Profile) string { return apiPath("profiles", p.Name) })
}

func (s *Server) createProfile(w http.ResponseWriter, r *http.Request) error {
	var req api.ProfilesPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := s.Profiles.CreateProfile(r.Context(), project(r), req); err != nil {
		return profileTaken.on(err)
	}
	return created(w, apiPath("profiles", req.Name))
}

func (s *Server) getProfile(w http.ResponseWriter, r *http.Request) error {
	p, etag, err := s.Profiles.GetProfile(r.Context(), project(r), r.PathValue("name"))
	if err != nil {
		return err
	}
	return okTagged(w, etag, p)
}

func (s *Server) updateProfile(w http.ResponseWriter, r *http.Request) error {
	mutate, err := change[api.ProfilePut](w, r)
	if err != nil {
		return err
	}
	if err := s.Profiles.UpdateProfile(r.Context(), project(r), r.PathValue("name"), ifMatch(r), mutate); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) renameProfile(w http.ResponseWriter, r *http.Request) error {
	var req api.ProfilePost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := s.Profiles.RenameProfile(r.Context(), project(r), r.PathValue("name"), req.Name); err != nil {
		return profileTaken.on(err)
	}
	return created(w, apiPath("profiles", req.Name))
}

func (s *Server) deleteProfile(w http.ResponseWriter, r *http.Request) error {
	if err := s.Profiles.DeleteProfile(r.Context(), project(r), r.PathValue("name")); err != nil {
		return err
	}
	return done(w)
}
