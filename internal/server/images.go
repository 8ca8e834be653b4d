package server

import (
	"net/http"

	"github.com/croft-project/croft/api"
)

func (s *Server) listImages(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Images.List(r.Context(), project(r))
	if err != nil {
		return err
	}
	return list(w, r, all, func(i api.Image) string { return apiPath("images", i.Fingerprint) })
}

// createImage makes an image from what the body holds or, if it is JSON, from
// what it names.
func (s *Server) createImage(w http.ResponseWriter, r *http.Request) error {
	isJSON, err := holdsJSON(r)
	if err != nil {
		return err
	}
	if !isJSON {
		return s.uploadImage(w, r)
	}
	var req api.ImagesPost
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if req.Source == nil {
		return api.Errorf(api.Invalid, "field \"source\" of the request is missing: it says what to make the image from")
	}
	op, err := s.Images.CreateFrom(r.Context(), project(r), req)
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

func (s *Server) getImage(w http.ResponseWriter, r *http.Request) error {
	img, etag, err := s.Images.Get(r.Context(), project(r), r.PathValue("fingerprint"))
	if err != nil {
		return err
	}
	return okTagged(w, etag, img)
}

func (s *Server) updateImage(w http.ResponseWriter, r *http.Request) error {
	mutate, err := change[api.ImagePut](w, r)
	if err != nil {
		return err
	}
	if err := s.Images.Update(r.Context(), project(r), r.PathValue("fingerprint"), ifMatch(r), mutate); err != nil {
		return err
	}
	return done(w)
}

func (s *Server) deleteImage(w http.ResponseWriter, r *http.Request) error {
	op, err := s.Images.Delete(r.Context(), project(r), r.PathValue("fingerprint"))
	if err != nil {
		return err
	}
	return accepted(w, r, op)
}

// exportImage sends a unified image as a file, a split one as a form of two.
func (s *Server) exportImage(w http.ResponseWriter, r *http.Request) error {
	e, err := s.Images.Export(r.Context(), project(r), r.PathValue("fingerprint"))
	if err != nil {
		return err
	}
	defer e.Close()
	if e.Rootfs == nil {
		return serveFile(w, r, e.Meta, e.MetaName)
	}
	return sendForm(w, r, []formFile{
		{partMetadata, e.MetaName, e.Meta},
		{partRootfs, e.RootfsName, e.Rootfs},
	})
}
