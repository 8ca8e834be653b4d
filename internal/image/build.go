package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ulikunitz/xz"
	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
)

// BuildRequest says which image to build. [ParseBuild] makes one from a name.
type BuildRequest struct {
	Distribution string // "debian", "ubuntu" or "busybox"
	Release      string // "12" or "bookworm"; empty for busybox
	Arch         string // any name of an architecture; empty means the host's
	// Mirror is the URL of the package archive; empty means the one this host
	// uses for the same distribution, or else the distribution's own.
	Mirror string
}

// Built is a split image in two files.
type Built struct {
	Metadata string // path of metadata.tar.xz
	RootFS   string // path of rootfs.squashfs
}

// Builder builds images. The zero value works.
type Builder struct {
	// Progress is called with one line per step; nil means nobody listens.
	// It is called from one goroutine at a time.
	Progress func(line string)
	// Now is the clock; nil means time.Now. The image is dated to the day, so
	// that one day's builds of the same packages are the same.
	Now func() time.Time
	// Root is the host's file tree, for its package sources; empty means "/".
	Root string
}

// Buildable names the images that can be built, as [ParseBuild] takes them.
func Buildable() []string {
	names := make([]string, 0, len(releases)+1)
	for _, r := range releases {
		names = append(names, r.distribution+"/"+r.version)
	}
	return append(names, busyboxName)
}

const busyboxName = "busybox"

// ParseBuild reads a name such as "debian/12", "debian/bookworm",
// "ubuntu/24.04/arm64" or "busybox".
//
// Errors: Invalid, naming what can be built.
func ParseBuild(name string) (BuildRequest, error) {
	parts := strings.Split(name, "/")
	req := BuildRequest{Distribution: parts[0]}
	rest := parts[1:]
	if req.Distribution != busyboxName && len(rest) > 0 {
		req.Release, rest = rest[0], rest[1:]
	}
	if len(rest) > 0 {
		req.Arch, rest = rest[0], rest[1:]
	}
	if len(rest) > 0 {
		return BuildRequest{}, unknownBuild(name)
	}
	return req, req.check(name)
}

func unknownBuild(name string) error {
	return api.Errorf(api.Invalid, "image %q can't be built; known are %s", name, strings.Join(Buildable(), ", "))
}

func (r BuildRequest) check(name string) error {
	if r.Distribution != busyboxName {
		if _, err := findRelease(r.Distribution, r.Release); err != nil {
			return unknownBuild(name)
		}
	} else if r.Release != "" {
		return unknownBuild(name)
	}
	if r.Arch != "" {
		if _, err := NormalizeArchitecture(r.Arch); err != nil {
			return err
		}
	}
	return checkMirror(r.Mirror)
}

// Build builds the image into the existing folder dir, in which it leaves
// nothing but the two files; on failure, nothing. It takes from a second
// (busybox) to a minute (Debian) and needs root for all but busybox.
//
// Errors: Invalid for a bad request; Unsupported, with the command that
// installs it, for a missing program; Canceled; Internal with the end of a
// program's output when it fails.
func (b *Builder) Build(ctx context.Context, req BuildRequest, dir string) (Built, error) {
	if err := req.check(req.Distribution + "/" + req.Release); err != nil {
		return Built{}, err
	}
	if req.Distribution == busyboxName {
		return b.BuildBusybox(ctx, req, dir)
	}
	return b.BuildDebian(ctx, req, dir)
}

func (b *Builder) progress(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf(format, args...))
	}
}

// day is today's midnight in UTC.
func (b *Builder) day() time.Time {
	now := time.Now
	if b.Now != nil {
		now = b.Now
	}
	return now().UTC().Truncate(24 * time.Hour)
}

// workspace is a temporary folder beside the results; remove takes it away with
// all that is in it.
func workspace(dir string) (tmp string, remove func() error, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, fmt.Errorf("build image: %w", err)
	}
	if tmp, err = os.MkdirTemp(dir, ".build-"); err != nil {
		return "", nil, fmt.Errorf("build image: %w", err)
	}
	return tmp, func() error { return os.RemoveAll(tmp) }, nil
}

// finish makes the two files of the image from a file tree and moves them to
// dir.
func (b *Builder) finish(ctx context.Context, tmp, tree, dir string, md *api.ImageMetadata, templates map[string]string) (Built, error) {
	b.progress("packing the image")
	root, meta := filepath.Join(tmp, "rootfs.squashfs"), filepath.Join(tmp, "metadata.tar.xz")
	if err := squash(ctx, tree, root, b.day(), tmp); err != nil {
		return Built{}, err
	}
	data, err := packMetadata(md, templates)
	if err != nil {
		return Built{}, api.Errorf(api.Internal, "build image: pack metadata: %w", err)
	}
	if err := os.WriteFile(meta, data, 0o644); err != nil {
		return Built{}, fmt.Errorf("build image: %w", err)
	}
	out := Built{Metadata: filepath.Join(dir, "metadata.tar.xz"), RootFS: filepath.Join(dir, "rootfs.squashfs")}
	if err := os.Rename(root, out.RootFS); err != nil {
		return Built{}, fmt.Errorf("build image: %w", err)
	}
	if err := os.Rename(meta, out.Metadata); err != nil {
		return Built{}, errors.Join(fmt.Errorf("build image: %w", err), os.Remove(out.RootFS))
	}
	return out, nil
}

// squash packs tree. Level 9 of zstd costs a third of the default's time for
// three per cent more bytes.
func squash(ctx context.Context, tree, out string, day time.Time, tmp string) error {
	return runProgram(ctx, program{
		name: "mksquashfs", pkg: "squashfs-tools", tmp: tmp, epoch: day,
		args: []string{tree, out, "-comp", "zstd", "-Xcompression-level", "9", "-noappend", "-no-progress", "-quiet"},
	})
}

// packMetadata makes a metadata.tar.xz. The same input gives the same bytes.
func packMetadata(md *api.ImageMetadata, templates map[string]string) ([]byte, error) {
	doc, err := yaml.Marshal(md)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	zw, err := xz.NewWriter(&buf)
	if err != nil {
		return nil, err
	}
	tw := tar.NewWriter(zw)
	when := time.Unix(md.CreationDate, 0)
	file := func(name string, data []byte) error {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: when}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(data)
		return err
	}
	if err := file("metadata.yaml", doc); err != nil {
		return nil, err
	}
	if err := tw.WriteHeader(&tar.Header{Name: "templates/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: when}); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(templates))
	for name := range templates {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := file("templates/"+name, []byte(templates[name])); err != nil {
			return nil, err
		}
	}
	err = errors.Join(tw.Close(), zw.Close())
	return buf.Bytes(), err
}

// nameTemplates are the files that carry the instance's name in every image
// built here.
var nameTemplates = map[string]string{
	"hostname.tpl": "{{ container.name }}\n",
	"hosts.tpl": "127.0.0.1\tlocalhost\n127.0.1.1\t{{ container.name }}\n\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
}

func nameTargets() map[string]*api.ImageMetadataTemplate {
	when := []string{OnCreate, OnCopy, OnRename}
	return map[string]*api.ImageMetadataTemplate{
		"/etc/hostname": {When: when, Template: "hostname.tpl", Properties: map[string]string{}},
		"/etc/hosts":    {When: when, Template: "hosts.tpl", Properties: map[string]string{}},
	}
}

func hostArchitecture() string {
	// GOARCH names that differ from Debian's are not build hosts of ours.
	return runtime.GOARCH
}

// program is a program of the host's that builds a part of an image.
type program struct {
	name, pkg string // pkg is Debian's package that has it
	args      []string
	tmp       string    // its TMPDIR
	epoch     time.Time // its SOURCE_DATE_EPOCH
	env       []string
	onLine    func(string) // gets each line of its output
	isolate   bool         // own mount and PID namespaces: nothing of it stays when it ends
}

// outputTail is how much of a failed program's output its error shows, in lines.
const outputTail = 12

func runProgram(ctx context.Context, p program) error {
	path, err := exec.LookPath(p.name)
	if err != nil {
		return api.Errorf(api.Unsupported, "building an image needs the program %s: %w", p.name, err).
			WithHint("apt-get install %s", p.pkg)
	}
	lines := &lineWriter{onLine: p.onLine}
	cmd := exec.CommandContext(ctx, path, p.args...)
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root",
		"TMPDIR=" + p.tmp, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", p.epoch.Unix()), "DEBIAN_FRONTEND=noninteractive",
	}, p.env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.isolate {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return badArchive(ctx.Err())
	case err != nil:
		return api.Errorf(api.Internal, "%s failed: %w: %s", p.name, err, strings.Join(lines.last, "; "))
	}
	return nil
}

// lineWriter splits a program's output and keeps the last lines. exec.Cmd uses
// one goroutine when output and errors are the same writer.
type lineWriter struct {
	onLine  func(string)
	partial []byte
	last    []string
}

func (w *lineWriter) Write(p []byte) (int, error) {
	const longest = 4096
	w.partial = append(w.partial, p...)
	for {
		i := bytes.IndexByte(w.partial, '\n')
		if i < 0 && len(w.partial) < longest {
			return len(p), nil
		}
		if i < 0 {
			i = longest - 1
		}
		line := strings.TrimSpace(string(w.partial[:i]))
		w.partial = w.partial[i+1:]
		if line == "" {
			continue
		}
		if w.last = append(w.last, line); len(w.last) > outputTail {
			w.last = w.last[1:]
		}
		if w.onLine != nil {
			w.onLine(line)
		}
	}
}
