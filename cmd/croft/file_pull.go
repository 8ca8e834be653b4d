package main

import (
	"context"
	"errors"
	"fmt"
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

type pullOptions struct {
	createDirs bool
	recursive  bool
}

func newFilePull(g *global) *cobra.Command {
	var o pullOptions
	cmd := &cobra.Command{
		Use: "pull [REMOTE:]INSTANCE/PATH... TARGET", Short: "Pull files from instances", Args: args(2, -1),
		Long: `Pull files from instances

A target of - is standard output. Symlinks come as symlinks, unless they go
to standard output.`,
		Example: "  croft file pull web1/etc/hosts .\n  croft file pull -r web1/var/log logs",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPull(cmd.Context(), g, o, args[:len(args)-1], args[len(args)-1])
		},
	}
	cmd.Flags().BoolVarP(&o.createDirs, "create-dirs", "p", false, "create missing directories")
	cmd.Flags().BoolVarP(&o.recursive, "recursive", "r", false, "pull directories with what is in them")
	return cmd
}

func runPull(ctx context.Context, g *global, o pullOptions, sources []string, target string) error {
	intoDir := strings.HasSuffix(target, "/")
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		intoDir = true
	}
	if len(sources) > 1 && !intoDir && target != "-" && !o.recursive {
		return api.Errorf(api.Invalid, "several sources need a directory as target: %q is none", target)
	}
	if o.createDirs && target != "-" {
		dir := filepath.Dir(target)
		if intoDir {
			dir = target
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return api.Errorf(api.Invalid, "cannot create the target directory: %w", err)
		}
	}
	for _, arg := range sources {
		src, err := g.remoteFile(ctx, arg)
		if err != nil {
			return err
		}
		if target == "-" {
			err = pullToStdout(ctx, g, src)
		} else {
			err = pull(ctx, g, o, src, target, intoDir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func pullToStdout(ctx context.Context, g *global, src remoteFile) error {
	f, err := src.openFollow(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Type == client.FileDirectory {
		return api.Errorf(api.Invalid, "%s is a directory and cannot be printed", src.path)
	}
	_, err = io.Copy(g.stdout, f.Body)
	return err
}

// pull fetches one source. What an instance offers is not trusted: names that
// it chose are created below one directory, and symlinks there, such as one that
// was just pulled, are not followed out of it. A file name that the user chose is
// taken as it is.
func pull(ctx context.Context, g *global, o pullOptions, src remoteFile, target string, intoDir bool) error {
	f, err := src.open(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Type == client.FileDirectory {
		if !o.recursive {
			return api.Errorf(api.Invalid, "%s is a directory", src.path).WithHint("use --recursive")
		}
		intoDir = true
		if err := os.MkdirAll(target, 0o755); err != nil {
			return api.Errorf(api.Invalid, "cannot create the target directory: %w", err)
		}
	}
	if f.Type == client.FileRegular && !intoDir {
		p := &puller{g: g, p: g.newProgress()}
		defer p.p.clear()
		return p.saveFile(src, f, target, os.OpenFile)
	}
	dir, name := filepath.Dir(target), filepath.Base(target)
	if intoDir {
		dir, name = target, path.Base(src.path)
		if name == "/" {
			name = "."
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return api.Errorf(api.Invalid, "cannot open the target directory: %w", err)
	}
	defer root.Close()
	p := &puller{g: g, root: root, p: g.newProgress()}
	defer p.p.clear()
	return p.save(ctx, src, f, name)
}

// puller writes below one local directory, root.
type puller struct {
	g    *global
	root *os.Root
	p    *progress
}

func (p *puller) save(ctx context.Context, src remoteFile, f *client.File, name string) error {
	switch f.Type {
	case client.FileDirectory:
		return p.saveDir(ctx, src, f, name)
	case client.FileSymlink:
		return p.saveLink(src, f, name)
	}
	return p.saveFile(src, f, name, p.root.OpenFile)
}

func (p *puller) saveFile(src remoteFile, f *client.File, name string,
	open func(string, int, fs.FileMode) (*os.File, error)) error {
	out, err := open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return api.Errorf(api.Invalid, "cannot write %s: %w", name, err)
	}
	body := p.g.metered(f.Body, p.p, "Pulling "+src.path, max(f.Size, 0))
	_, err = io.Copy(out, body)
	if err == nil {
		if info, serr := out.Stat(); serr == nil && info.Mode().IsRegular() { // /dev/null keeps its mode
			err = out.Chmod(f.Mode.Perm())
		}
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("pull %s: %w", src.path, err)
	}
	return nil
}

func (p *puller) saveLink(src remoteFile, f *client.File, name string) error {
	raw, err := io.ReadAll(io.LimitReader(f.Body, 1<<16))
	if err != nil {
		return fmt.Errorf("pull %s: %w", src.path, err)
	}
	if err := p.root.Symlink(strings.TrimRight(string(raw), "\n"), name); err != nil {
		return api.Errorf(api.Invalid, "cannot make symlink %s: %w", name, err)
	}
	return nil
}

func (p *puller) saveDir(ctx context.Context, src remoteFile, f *client.File, name string) error {
	if name != "." {
		if err := p.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return api.Errorf(api.Invalid, "cannot create directory %s: %w", name, err)
		}
	}
	for _, entry := range f.Entries {
		if entry == "" || entry == "." || entry == ".." || strings.ContainsAny(entry, "/\\\x00") {
			return api.Errorf(api.Invalid, "the server lists a file with the impossible name %q in %s", entry, src.path)
		}
		if err := p.saveEntry(ctx, src.at(path.Join(src.path, entry)), path.Join(name, entry)); err != nil {
			return err
		}
	}
	if name == "." {
		return nil
	}
	return p.root.Chmod(name, f.Mode.Perm())
}

func (p *puller) saveEntry(ctx context.Context, src remoteFile, name string) error {
	f, err := src.open(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.save(ctx, src, f, name)
}
