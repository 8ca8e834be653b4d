package server

import (
	"net/http"
	"os"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/server/resources"
)

// getResources describes the host's hardware.
func (s *Server) getResources(w http.ResponseWriter, r *http.Request) error {
	env, err := s.Environment(r.Context())
	if err != nil {
		return err
	}
	res, err := resources.Read(os.DirFS("/"), env.KernelArchitecture)
	if err != nil {
		return api.Errorf(api.Internal, "describe the host: %w", err)
	}
	return ok(w, res)
}
