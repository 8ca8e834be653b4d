package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/helper"
)

// Names of the helpers, in the table that [Helpers] gives.
const (
	helperInspect = "image-inspect"
	helperUnpack  = "image-unpack"
	helperRender  = "image-render"
)

// Helpers is what the program's main function adds to the table of
// helper.Main, so that [Tools] works.
func Helpers() map[string]helper.Func {
	return map[string]helper.Func{
		helperInspect: helper.Handle(inspectHelper),
		helperUnpack:  helper.Handle(unpackHelper),
		helperRender:  helper.Handle(renderHelper),
	}
}

// Tools handles untrusted images in confined helpers. It is safe for concurrent
// use.
type Tools struct {
	// Helper starts the helpers; nil means a zero helper.Runner.
	Helper *helper.Runner
	// Limits bound archives; zero fields mean the defaults.
	Limits Limits
	// Unprivileged works without root: helpers are processes of their own, but
	// not confined, and unpacking keeps no owners and devices. For tests.
	Unprivileged bool
}

func (t *Tools) runner() *helper.Runner {
	if t.Helper != nil {
		return t.Helper
	}
	return &helper.Runner{}
}

// nobody is Debian's user and group nobody; as a number it needs no look-up.
const nobody = 65534

// harmless is for helpers that only compute: no rights, no files, no network.
func (t *Tools) harmless(limits map[int]uint64) *helper.Confine {
	if t.Unprivileged {
		return nil
	}
	return &helper.Confine{UID: nobody, GID: nobody, NoNetwork: true, PIDs: true, Files: true, Limits: limits}
}

type inspectRequest struct{ Limits Limits }

// Inspect is the function [Inspect] in a helper without any rights, on files by
// their paths; rootPath is empty for a unified image.
func (t *Tools) Inspect(ctx context.Context, metaPath, rootPath string) (*Info, error) {
	paths := []string{metaPath}
	if rootPath != "" {
		paths = append(paths, rootPath)
	}
	files := make([]*os.File, 0, len(paths))
	for _, p := range paths {
		f, err := openRegular(p)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		files = append(files, f)
	}
	return helper.Call[*Info](ctx, t.runner(), helperInspect, inspectRequest{t.Limits}, files,
		t.harmless(map[int]uint64{unix.RLIMIT_FSIZE: 0}))
}

func inspectHelper(ctx context.Context, req inspectRequest, files []*os.File) (*Info, error) {
	switch len(files) {
	case 1:
		return Inspect(ctx, files[0], nil, req.Limits)
	case 2:
		return Inspect(ctx, files[0], files[1], req.Limits)
	}
	return nil, api.Errorf(api.Internal, "inspect: %d files given, want 1 or 2", len(files))
}

// openRegular opens an image file. Links and devices in its place are refused:
// who can write the folder shall not choose what is read.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, api.Errorf(api.NotFound, "image file: %w", err)
	case err != nil:
		return nil, fmt.Errorf("image file: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = api.Errorf(api.Invalid, "image file %s is no regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// What names the part of an image file that is unpacked.
type What string

// The parts.
const (
	Everything What = ""       // the file is the root filesystem: tarball or squashfs
	RootFS     What = "rootfs" // the folder rootfs of a unified tarball
)

type unpackRequest struct {
	Source, Dest string
	Prefix       string
	Limits       Limits
	Unprivileged bool
}

// unpackCaps is what it takes to recreate a file tree with owners, modes, nodes
// and file capabilities.
func unpackCaps() []uintptr {
	return []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_MKNOD, unix.CAP_SETFCAP}
}

// Unpack unpacks the image file source into dest, an existing empty folder that
// the caller removes on failure. Owners are as in the image (container root is
// uid 0): dest must lie below a folder that no other user may enter, as the
// tree can hold set-uid programs and device nodes.
//
// A tarball is unpacked by [Extract], a squashfs by unsquashfs(1), both in a
// helper that can write nothing but dest, has no network and only the rights to
// create files with their owners.
//
// Errors: those of Extract; NotFound without source or dest; Unsupported for a
// squashfs when the host has no unsquashfs.
func (t *Tools) Unpack(ctx context.Context, source string, what What, dest string) (Stats, error) {
	var zero Stats
	if !filepath.IsAbs(source) || !filepath.IsAbs(dest) {
		return zero, api.Errorf(api.Internal, "unpack %s to %s: paths must be absolute", source, dest)
	}
	f, err := openRegular(source)
	if err != nil {
		return zero, err
	}
	defer f.Close()
	if st, err := os.Lstat(dest); err != nil {
		return zero, api.Errorf(api.NotFound, "unpack: %w", err)
	} else if !st.IsDir() {
		return zero, api.Errorf(api.Invalid, "unpack: %s is no folder", dest)
	}
	req := unpackRequest{Source: source, Dest: dest, Prefix: string(what), Limits: t.Limits, Unprivileged: t.Unprivileged}
	var confine *helper.Confine
	if !t.Unprivileged {
		confine = &helper.Confine{
			Caps: unpackCaps(), NoNetwork: true, PIDs: true,
			Files: true, Writable: []string{dest}, Readable: []string{source},
		}
	}
	return helper.Call[Stats](ctx, t.runner(), helperUnpack, req, []*os.File{f}, confine)
}

func unpackHelper(ctx context.Context, req unpackRequest, files []*os.File) (Stats, error) {
	if len(files) != 1 {
		return Stats{}, api.Errorf(api.Internal, "unpack: %d files given, want 1", len(files))
	}
	f := files[0]
	format, err := formatOf(f)
	if err != nil {
		return Stats{}, err
	}
	if format == Squashfs {
		return unsquash(ctx, f, req)
	}
	unix.Umask(0)
	dest, err := os.Open(req.Dest)
	if err != nil {
		return Stats{}, fmt.Errorf("unpack: %w", err)
	}
	defer dest.Close()
	stream, err := decompress(ctx, f, format)
	if err != nil {
		return Stats{}, err
	}
	defer stream.Close()
	stats, err := Extract(ctx, stream, dest, ExtractOptions{Prefix: req.Prefix, Limits: req.Limits, Unprivileged: req.Unprivileged})
	if err == nil && stats.Entries == 0 {
		err = api.Errorf(api.Invalid, "the archive has nothing below %q to unpack", req.Prefix)
	}
	return stats, err
}
