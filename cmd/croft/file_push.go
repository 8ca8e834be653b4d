package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

type pushOptions struct {
	createDirs bool
	recursive  bool
	uid, gid   int64
	mode       string
}

func newFilePush(g *global) *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use: "push SOURCE... [REMOTE:]INSTANCE/PATH", Short: "Push files into an instance", Args: args(2, -1),
		Long: `Push files into an instance

A source of - is standard input. A target that ends with a slash is a
directory. Owner and mode are those of the local file unless flags say
otherwise.`,
		Example: "  croft file push /etc/hosts web1/etc/hosts\n  croft file push -r site web1/srv/",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPush(cmd.Context(), g, o, args[:len(args)-1], args[len(args)-1])
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.createDirs, "create-dirs", "p", false, "create missing directories")
	f.BoolVarP(&o.recursive, "recursive", "r", false, "push directories with what is in them")
	f.Int64Var(&o.uid, "uid", -1, "user `id` of the files; -1 takes that of the local file")
	f.Int64Var(&o.gid, "gid", -1, "group `id` of the files; -1 takes that of the local file")
	f.StringVar(&o.mode, "mode", "", "permissions of the files in octal")
	return cmd
}

func runPush(ctx context.Context, g *global, o pushOptions, sources []string, arg string) error {
	if o.recursive && (o.uid >= 0 || o.gid >= 0 || o.mode != "") {
		return api.Errorf(api.Invalid, "--uid, --gid and --mode cannot be used together with --recursive")
	}
	target, err := g.remoteFile(ctx, arg)
	if err != nil {
		return err
	}
	if o.recursive {
		for _, src := range sources {
			if err := pushTree(ctx, g, o, src, target); err != nil {
				return err
			}
		}
		return nil
	}
	if len(sources) > 1 && !target.dir {
		return api.Errorf(api.Invalid, "several sources need a directory as target: end %q with a slash", arg)
	}
	for _, src := range sources {
		to := target
		if target.dir {
			if src == "-" {
				return api.Errorf(api.Invalid, "standard input needs a file as target: %q is a directory", arg)
			}
			to = target.at(path.Join(target.path, filepath.Base(src)))
		}
		if err := pushFile(ctx, g, o, src, to); err != nil {
			return err
		}
	}
	return nil
}

// pushFile sends one file; src may be -.
func pushFile(ctx context.Context, g *global, o pushOptions, src string, to remoteFile) error {
	put, local, body, err := o.describe(g, src)
	if err != nil {
		return err
	}
	defer body.Close()
	if o.createDirs {
		like := client.FilePut{UID: put.UID, GID: put.GID, Mode: &local}
		if err := makeDirs(ctx, to.at(path.Dir(to.path)), like); err != nil {
			return err
		}
	}
	p := g.newProgress()
	defer p.clear()
	put.Body = g.metered(body, p, "Pushing "+src+" to "+to.path, put.Size)
	return to.c.PutInstanceFile(ctx, to.instance, to.path, put)
}

// describe opens a source and finds its owner and mode; local is the mode that
// it has here, whatever --mode says.
func (o *pushOptions) describe(g *global, src string) (put client.FilePut, local fs.FileMode, _ io.ReadCloser, _ error) {
	uid, gid, mode := int64(0), int64(0), fs.FileMode(0o644)
	var body io.ReadCloser = io.NopCloser(g.stdin)
	file, isFile := g.stdin.(*os.File)
	if src != "-" {
		f, err := os.Open(src)
		if err != nil {
			return put, 0, nil, api.Errorf(api.Invalid, "cannot push: %w", err)
		}
		file, isFile, body = f, true, f
	}
	if isFile {
		info, err := file.Stat()
		if err == nil && info.IsDir() {
			err = api.Errorf(api.Invalid, "%s is a directory", src).WithHint("use --recursive")
		}
		if err != nil {
			body.Close()
			return put, 0, nil, err
		}
		mode = info.Mode().Perm()
		uid, gid = fileOwner(info)
		if info.Mode().IsRegular() && src != "-" {
			put.Size = info.Size()
		}
	}
	local = mode
	if o.mode != "" {
		m, err := parseMode(o.mode)
		if err != nil {
			body.Close()
			return put, 0, nil, err
		}
		mode = *m
	}
	if o.uid >= 0 {
		uid = o.uid
	}
	if o.gid >= 0 {
		gid = o.gid
	}
	put.UID, put.GID, put.Mode = &uid, &gid, &mode
	return put, local, body, nil
}

// makeDirs creates a directory and its parents where they are missing. They
// belong to the owner of the file, and whoever may read it may enter them.
func makeDirs(ctx context.Context, dir remoteFile, like client.FilePut) error {
	mode := *like.Mode | (*like.Mode&0o444)>>2
	var missing []string
	for p := dir.path; p != "/"; p = path.Dir(p) {
		f, err := dir.at(p).openFollow(ctx)
		if err == nil {
			f.Close()
			if f.Type != client.FileDirectory {
				return api.Errorf(api.Invalid, "%s is a %s, not a directory", p, f.Type)
			}
			break
		}
		if !errors.Is(err, api.NotFound) {
			return err
		}
		missing = append(missing, p)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		put := client.FilePut{Type: client.FileDirectory, UID: like.UID, GID: like.GID, Mode: &mode}
		if err := dir.c.PutInstanceFile(ctx, dir.instance, missing[i], put); err != nil {
			return err
		}
	}
	return nil
}

// pushTree sends a directory, with its name, into the target directory.
func pushTree(ctx context.Context, g *global, o pushOptions, src string, target remoteFile) error {
	root, err := filepath.Abs(src)
	if err != nil {
		return err
	}
	info, err := os.Stat(root)
	if err != nil {
		return api.Errorf(api.Invalid, "cannot push: %w", err)
	}
	if o.createDirs {
		uid, gid := fileOwner(info)
		mode := info.Mode().Perm()
		if err := makeDirs(ctx, target, client.FilePut{UID: &uid, GID: &gid, Mode: &mode}); err != nil {
			return err
		}
	}
	top := path.Join(target.path, filepath.Base(root))
	return filepath.WalkDir(root, func(local string, _ fs.DirEntry, err error) error {
		if err != nil {
			return api.Errorf(api.Invalid, "cannot push: %w", err)
		}
		rel, err := filepath.Rel(root, local)
		if err != nil {
			return err
		}
		return pushEntry(ctx, g, local, target.at(path.Join(top, filepath.ToSlash(rel))))
	})
}

// pushEntry sends one entry of a tree: directory, symlink or regular file.
// Anything else is left out, as it cannot be read like a file.
func pushEntry(ctx context.Context, g *global, local string, to remoteFile) error {
	info, err := os.Lstat(local)
	if err != nil {
		return api.Errorf(api.Invalid, "cannot push: %w", err)
	}
	uid, gid := fileOwner(info)
	mode := info.Mode().Perm()
	put := client.FilePut{UID: &uid, GID: &gid, Mode: &mode}
	switch {
	case info.IsDir():
		put.Type = client.FileDirectory
		err := to.c.PutInstanceFile(ctx, to.instance, to.path, put)
		if err != nil && isDirectory(ctx, to) {
			return nil // it was there already
		}
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := os.Readlink(local)
		if err != nil {
			return err
		}
		put.Type, put.Body, put.Size = client.FileSymlink, strings.NewReader(link), int64(len(link))
		return to.c.PutInstanceFile(ctx, to.instance, to.path, put)
	case info.Mode().IsRegular():
		return pushFile(ctx, g, pushOptions{uid: -1, gid: -1}, local, to)
	}
	return nil
}

func isDirectory(ctx context.Context, f remoteFile) bool {
	file, err := f.open(ctx)
	if err != nil {
		return false
	}
	defer file.Close()
	return file.Type == client.FileDirectory
}
