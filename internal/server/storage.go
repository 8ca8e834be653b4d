package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
)

// volumeTypes are the types of storage volume that the API knows.
var volumeTypes = []string{"container", "custom", "image", "virtual-machine"}

func (s *Server) listPools(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Pools.ListPools(r.Context())
	if err != nil {
		return err
	}
	return list(w, r, all, func(p api.StoragePool) string { return apiPath("storage-pools", p.Name) })
}

func (s *Server) createPool(w http.ResponseWriter, r *http.Request) error {
	var req api.StoragePoolsPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := s.Pools.CreatePool(r.Context(), req); err != nil {
		return err
	}
	return created(w, apiPath("storage-pools", req.Name))
}

func (s *Server) getPool(w http.ResponseWriter, r *http.Request) error {
	p, etag, err := s.Pools.GetPool(r.Context(), r.PathValue("pool"))
	if err != nil {
		return err
	}
	return okTagged(w, etag, p)
}

func (s *Server) updatePool(w http.ResponseWriter, r *http.Request) error {
	mutate, err := change[api.StoragePoolPut](w, r)
	if err != nil {
		return err
	}
	if err := s.Pools.UpdatePool(r.Context(), r.PathValue("pool"), ifMatch(r), mutate); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) deletePool(w http.ResponseWriter, r *http.Request) error {
	if err := s.Pools.DeletePool(r.Context(), r.PathValue("pool")); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) poolResources(w http.ResponseWriter, r *http.Request) error {
	res, err := s.Pools.PoolResources(r.Context(), r.PathValue("pool"))
	if err != nil {
		return err
	}
	return ok(w, res)
}

// listVolumes lists the volumes of a pool, those of one type if the path names it.
func (s *Server) listVolumes(w http.ResponseWriter, r *http.Request) error {
	vols, err := s.volumes(r)
	if err != nil {
		return err
	}
	pool := r.PathValue("pool")
	return list(w, r, vols, func(v api.StorageVolume) string {
		return apiPath("storage-pools", pool, "volumes", v.Type, v.Name)
	})
}

func (s *Server) getVolume(w http.ResponseWriter, r *http.Request) error {
	vols, err := s.volumes(r)
	if err != nil {
		return err
	}
	for _, v := range vols {
		if v.Name == r.PathValue("volume") {
			return ok(w, v)
		}
	}
	return api.Errorf(api.NotFound, "storage volume %s of type %s not found in pool %s",
		r.PathValue("volume"), r.PathValue("type"), r.PathValue("pool"))
}

// volumes gives the volumes that the path is about.
func (s *Server) volumes(r *http.Request) ([]api.StorageVolume, error) {
	kind := r.PathValue("type")
	if kind != "" && !slices.Contains(volumeTypes, kind) {
		return nil, api.Errorf(api.Invalid, "volume type %q is not known, allowed are %s", kind, strings.Join(volumeTypes, ", "))
	}
	all, err := s.Pools.Volumes(r.Context(), r.PathValue("pool"))
	if err != nil || kind == "" {
		return all, err
	}
	var out []api.StorageVolume
	for _, v := range all {
		if v.Type == kind {
			out = append(out, v)
		}
	}
	return out, nil
}
