package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// inRoot resolves paths as the container would, absolute symbolic links and all,
// and never outside of its tree. Source: openat2(2).
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// ApplyTemplates renders the templates that ask for trigger and writes them
// below root, the open top of the instance's file tree, mounted without id
// mapping (container root is uid 0). sources are the files of the templates
// folder by name. c.Trigger, c.Path and c.Properties are set for each template.
//
// A file that is there keeps its owner and mode; a new one is 0644 and root's,
// missing folders 0755. Everything is rendered before anything is written.
//
// Errors: NotFound for a source that is missing; Invalid for a bad template or
// a target that is no file; all name the target.
func (t *Tools) ApplyTemplates(ctx context.Context, root *os.File, md *api.ImageMetadata, sources map[string][]byte,
	trigger string, c TemplateContext) error {
	defer runtime.KeepAlive(root) // its descriptor is used by number
	type output struct {
		target string
		data   []byte
	}
	var outputs []output
	for _, target := range sortedTargets(md.Templates) {
		tpl := md.Templates[target]
		if tpl == nil || !slices.Contains(tpl.When, trigger) {
			continue
		}
		if err := CheckTemplate(target, tpl); err != nil {
			return err
		}
		if tpl.CreateOnly {
			exists, err := existsInRoot(root, target)
			if err != nil {
				return templateError(target, err)
			}
			if exists {
				continue
			}
		}
		data, err := t.renderOne(ctx, target, tpl, sources, trigger, c)
		if err != nil {
			return templateError(target, err)
		}
		outputs = append(outputs, output{target, data})
	}
	for _, o := range outputs {
		if err := t.writeInRoot(root, o.target, o.data); err != nil {
			return templateError(o.target, err)
		}
	}
	return nil
}

func (t *Tools) renderOne(ctx context.Context, target string, tpl *api.ImageMetadataTemplate, sources map[string][]byte,
	trigger string, c TemplateContext) ([]byte, error) {
	source, ok := sources[tpl.Template]
	if !ok {
		return nil, api.Errorf(api.NotFound, "the image has no template %q", tpl.Template)
	}
	c.Trigger, c.Path, c.Properties = trigger, target, tpl.Properties
	return t.Render(ctx, source, c)
}

func rootRelative(target string) string { return strings.TrimLeft(target, "/") }

func existsInRoot(root *os.File, target string) (bool, error) {
	fd, err := openat2(int(root.Fd()), rootRelative(target), unix.O_PATH|unix.O_CLOEXEC, 0, inRoot)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up: %w", err)
	}
	unix.Close(fd)
	return true, nil
}

// writeInRoot writes a file in place, so that its owner, mode and attributes
// stay.
func (t *Tools) writeInRoot(root *os.File, target string, data []byte) error {
	f, created, err := openForWriting(root, rootRelative(target))
	if err != nil {
		return err
	}
	defer f.Close()
	if created {
		if err := f.Chmod(0o644); err != nil { // whatever the umask
			return fmt.Errorf("set mode: %w", err)
		}
		if !t.Unprivileged {
			if err := f.Chown(0, 0); err != nil { // whatever the folder's set-gid bit
				return fmt.Errorf("set owner: %w", err)
			}
		}
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// openForWriting opens target, emptied. What is there is looked at first
// without opening it: a device or pipe must not be touched.
func openForWriting(root *os.File, target string) (f *os.File, created bool, err error) {
	fd, err := openat2(int(root.Fd()), target, unix.O_PATH|unix.O_CLOEXEC, 0, inRoot)
	if errors.Is(err, unix.ENOENT) {
		f, err := createInRoot(root, target)
		return f, true, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, false, fmt.Errorf("open: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, false, api.Errorf(api.Invalid, "the target exists and is no regular file")
	}
	f, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return nil, false, fmt.Errorf("open: %w", err)
	}
	return f, false, nil
}

func createInRoot(root *os.File, target string) (*os.File, error) {
	if err := mkdirAllInRoot(root, path.Dir(target)); err != nil {
		return nil, err
	}
	// O_NONBLOCK in case a pipe appears meanwhile.
	fd, err := openat2(int(root.Fd()), target, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o644, inRoot)
	if err != nil {
		return nil, fmt.Errorf("make file: %w", err)
	}
	return os.NewFile(uintptr(fd), target), nil
}

func mkdirAllInRoot(root *os.File, dir string) error {
	if dir == "." {
		return nil
	}
	parts := strings.Split(dir, "/")
	parent := "."
	for i := range parts {
		part := strings.Join(parts[:i+1], "/")
		fd, err := openat2(int(root.Fd()), part, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, inRoot)
		if errors.Is(err, unix.ENOENT) {
			fd, err = mkdirInRoot(root, parent, parts[i])
		}
		if err != nil {
			return fmt.Errorf("make folder /%s: %w", part, err)
		}
		unix.Close(fd)
		parent = part
	}
	return nil
}

func mkdirInRoot(root *os.File, parent, base string) (int, error) {
	dir, err := openat2(int(root.Fd()), parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, inRoot)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, base, 0o755); err != nil {
		return -1, err
	}
	fd, err := openat2(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0, inRoot)
	if err != nil {
		return -1, err
	}
	if err := unix.Fchmod(fd, 0o755); err != nil { // whatever the umask
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// sortedTargets gives templates in a fixed order, so that two that write one
// file always end the same.
func sortedTargets(m map[string]*api.ImageMetadataTemplate) []string {
	targets := make([]string, 0, len(m))
	for target := range m {
		targets = append(targets, target)
	}
	slices.Sort(targets)
	return targets
}

func templateError(target string, err error) error {
	return api.Errorf(api.KindOf(err), "%w", fmt.Errorf("template for %s: %w", target, err))
}
