package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
)

// versions lists the versions of the API.
func (s *Server) versions(w http.ResponseWriter, _ *http.Request) error {
	return ok(w, []string{"/1.0"})
}

// untrustedServer is what a client without identity sees of the server.
type untrustedServer struct {
	APIExtensions []string `json:"api_extensions"`
	APIStatus     string   `json:"api_status"`
	APIVersion    string   `json:"api_version"`
	Auth          string   `json:"auth"`
	Public        bool     `json:"public"`
	AuthMethods   []string `json:"auth_methods"`
}

func (s *Server) getServer(w http.ResponseWriter, r *http.Request) error {
	public := untrustedServer{
		APIExtensions: extensions(), APIStatus: "stable", APIVersion: "1.0",
		Auth: "untrusted", AuthMethods: []string{"tls"},
	}
	if !auth.From(r.Context()).Trusted() {
		return ok(w, public)
	}
	config, etag, err := s.Config.GetServerConfig(r.Context())
	if err != nil {
		return err
	}
	env, err := s.Environment(r.Context())
	if err != nil {
		return err
	}
	env.Project = project(r)
	srv := api.Server{
		APIExtensions: public.APIExtensions, APIStatus: public.APIStatus, APIVersion: public.APIVersion,
		Auth: "trusted", AuthMethods: public.AuthMethods, Environment: env,
	}
	srv.Config = make(map[string]any, len(config))
	for k, v := range config {
		srv.Config[k] = v
	}
	return okTagged(w, etag, srv)
}

// updateServer replaces the server's configuration or, with PATCH, changes the
// keys that are given.
func (s *Server) updateServer(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Config map[string]configValue `json:"config"`
	}
	if err := decode(w, r, &req); err != nil {
		return err
	}
	err := s.Config.UpdateServerConfig(r.Context(), ifMatch(r), func(config map[string]string) error {
		if r.Method == http.MethodPut {
			clear(config)
		}
		for k, v := range maps.All(req.Config) {
			if v == "" {
				delete(config, k) // an empty value unsets a key
			} else {
				config[k] = string(v)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return done(w)
}

// configValue is a value of the server's configuration. Clients may send numbers
// and booleans for what is stored as text.
type configValue string

// UnmarshalJSON takes strings, numbers, booleans and null.
func (c *configValue) UnmarshalJSON(raw []byte) error {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		*c = ""
	case string:
		*c = configValue(v)
	case bool:
		*c = configValue(strconv.FormatBool(v))
	case float64:
		*c = configValue(raw) // as it is written
	default:
		return fmt.Errorf("a value of field \"config\" is %s, expected is a string", raw)
	}
	return nil
}

// ready answers when the daemon has recovered.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := s.untilStop(r.Context())
	defer cancel()
	select {
	case <-s.Ready:
		return done(w)
	case <-ctx.Done():
		return s.whileStopping(r, ctx.Err())
	}
}

// shutDown begins to stop the daemon; force in the query stops
// instances without asking them.
func (s *Server) shutDown(w http.ResponseWriter, r *http.Request) error {
	if err := s.Shutdown(r.Context(), truthy(r.URL.Query().Get("force"))); err != nil {
		return err
	}
	return done(w)
}
