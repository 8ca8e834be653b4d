package server

import (
	"net/http"
	"slices"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
)

// What is here exists for clients that ask for it; this version has one project,
// no trusted certificates, no warnings and no cluster.

func (s *Server) listProjects(w http.ResponseWriter, r *http.Request) error {
	if recursion(r) == 0 {
		return ok(w, []string{apiPath("projects", model.DefaultProject)})
	}
	p, err := s.defaultProject(r)
	if err != nil {
		return err
	}
	return list(w, r, []api.Project{p}, func(p api.Project) string { return apiPath("projects", p.Name) })
}

func (s *Server) getProject(w http.ResponseWriter, r *http.Request) error {
	if name := r.PathValue("name"); name != model.DefaultProject {
		return api.Errorf(api.NotFound, "project %q not found", name)
	}
	p, err := s.defaultProject(r)
	if err != nil {
		return err
	}
	return ok(w, p)
}

func (s *Server) defaultProject(r *http.Request) (api.Project, error) {
	p := api.Project{Name: model.DefaultProject}
	p.Description = "Default project"
	p.Config = map[string]string{
		"features.images": "true", "features.networks": "true", "features.profiles": "true", "features.storage.volumes": "true",
	}
	p.UsedBy = []string{}
	instances, err := s.Instances.List(r.Context(), p.Name)
	if err != nil {
		return p, err
	}
	for _, i := range instances {
		p.UsedBy = append(p.UsedBy, apiPath(instancesName, i.Name))
	}
	images, err := s.Images.List(r.Context(), p.Name)
	if err != nil {
		return p, err
	}
	for _, i := range images {
		p.UsedBy = append(p.UsedBy, apiPath("images", i.Fingerprint))
	}
	profiles, err := s.Profiles.ListProfiles(r.Context(), p.Name)
	if err != nil {
		return p, err
	}
	for _, i := range profiles {
		p.UsedBy = append(p.UsedBy, apiPath("profiles", i.Name))
	}
	slices.Sort(p.UsedBy)
	return p, nil
}

func (s *Server) listCertificates(w http.ResponseWriter, _ *http.Request) error {
	return ok(w, []struct{}{})
}

func (s *Server) noCertificate(_ http.ResponseWriter, r *http.Request) error {
	return api.Errorf(api.NotFound, "certificate %q not found", r.PathValue("fingerprint"))
}

// listWarnings answers an empty list as LXD does: null when paths are asked for.
func (s *Server) listWarnings(w http.ResponseWriter, r *http.Request) error {
	if recursion(r) == 0 {
		return ok(w, nil)
	}
	return ok(w, []struct{}{})
}

func (s *Server) noWarning(_ http.ResponseWriter, r *http.Request) error {
	return api.Errorf(api.NotFound, "warning %q not found", r.PathValue("uuid"))
}

// getCluster tells that there is none.
func (s *Server) getCluster(w http.ResponseWriter, _ *http.Request) error {
	return ok(w, struct {
		ServerName   string     `json:"server_name"`
		Enabled      bool       `json:"enabled"`
		MemberConfig []struct{} `json:"member_config"`
	}{MemberConfig: []struct{}{}})
}
