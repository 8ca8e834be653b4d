package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// maxLinks bounds the symlinks that are followed one after the other.
const maxLinks = 40

func newFile(g *global) *cobra.Command {
	return group("file", "Manage files in instances", newFileDelete(g), newFileEdit(g), newFilePull(g), newFilePush(g))
}

// remoteFile is a file of an instance.
type remoteFile struct {
	c        *client.Client
	instance string
	path     string // absolute and clean
	dir      bool   // written with a slash at the end
}

// remoteFile parses [REMOTE:]INSTANCE/PATH.
func (g *global) remoteFile(ctx context.Context, arg string) (remoteFile, error) {
	name, file, ok := strings.Cut(arg, "/")
	if !ok || name == "" {
		return remoteFile{}, api.Errorf(api.Invalid, "%q does not name a file: want [REMOTE:]INSTANCE/PATH", arg)
	}
	c, instance, err := g.object(ctx, "instance", name)
	if err != nil {
		return remoteFile{}, err
	}
	return remoteFile{
		c: c, instance: instance,
		path: path.Clean("/" + file),
		dir:  file == "" || strings.HasSuffix(file, "/"),
	}, nil
}

// at is another file of the same instance.
func (f remoteFile) at(p string) remoteFile {
	f.path, f.dir = path.Clean("/"+p), false
	return f
}

func (f remoteFile) open(ctx context.Context) (*client.File, error) {
	return f.c.InstanceFile(ctx, f.instance, f.path)
}

// target is the path that a symlink leads to.
func (f remoteFile) target(link *client.File) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(link.Body, 1<<16))
	if err != nil {
		return "", err
	}
	to := strings.TrimRight(string(raw), "\n")
	if !path.IsAbs(to) {
		to = path.Join(path.Dir(f.path), to)
	}
	return path.Clean(to), nil
}

// openFollow opens a file, or the file that a symlink leads to.
func (f remoteFile) openFollow(ctx context.Context) (*client.File, error) {
	at := f
	for range maxLinks {
		file, err := at.open(ctx)
		if err != nil || file.Type != client.FileSymlink {
			return file, err
		}
		to, err := at.target(file)
		file.Close()
		if err != nil {
			return nil, err
		}
		at = at.at(to)
	}
	return nil, api.Errorf(api.Invalid, "%s leads through too many symlinks", f.path)
}

func newFileDelete(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "delete [REMOTE:]INSTANCE/PATH...", Aliases: []string{"rm"}, Short: "Delete files in instances", Args: args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				f, err := g.remoteFile(cmd.Context(), arg)
				if err != nil {
					return err
				}
				if err := f.c.DeleteInstanceFile(cmd.Context(), f.instance, f.path); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newFileEdit(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "edit [REMOTE:]INSTANCE/PATH", Short: "Edit a file in an instance", Args: args(1, 1),
		Long: "Edit a file in an instance\n\nWithout a terminal, standard input becomes the new content.",
		RunE: func(cmd *cobra.Command, args []string) error { return runFileEdit(cmd.Context(), g, args[0]) },
	}
}

// runFileEdit replaces the content; owner and mode stay. A file that does not
// exist is created.
func runFileEdit(ctx context.Context, g *global, arg string) error {
	f, err := g.remoteFile(ctx, arg)
	if err != nil {
		return err
	}
	var put client.FilePut
	file, err := f.openFollow(ctx)
	switch {
	case errors.Is(err, api.NotFound):
		file = &client.File{Body: io.NopCloser(strings.NewReader(""))}
	case err != nil:
		return err
	case file.Type != client.FileRegular:
		file.Close()
		return api.Errorf(api.Invalid, "%s is a %s, not a file", arg, file.Type)
	default:
		put = client.FilePut{UID: &file.UID, GID: &file.GID, Mode: &file.Mode}
	}
	defer file.Close()
	if !g.stdinTerminal() {
		put.Body = g.stdin
		return f.c.PutInstanceFile(ctx, f.instance, f.path, put)
	}
	old, err := io.ReadAll(file.Body)
	if err != nil {
		return err
	}
	edited, err := g.editText(ctx, old, path.Ext(f.path))
	if err != nil || bytes.Equal(old, edited) {
		return err
	}
	put.Body, put.Size = bytes.NewReader(edited), int64(len(edited))
	return f.c.PutInstanceFile(ctx, f.instance, f.path, put)
}

// parseMode reads octal permission bits.
func parseMode(s string) (*fs.FileMode, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > 0o7777 {
		return nil, api.Errorf(api.Invalid, "--mode %s: want permissions as octal digits such as 0644", s)
	}
	m := fs.FileMode(n)
	return &m, nil
}
