//go:build system

package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/croft-project/croft/api"
)

// keep copies the files of a built image to $CROFT_KEEP_IMAGES/NAME, if that is
// set, for trying them out by hand.
func keep(t *testing.T, name string, b Built) {
	dir := os.Getenv("CROFT_KEEP_IMAGES")
	if dir == "" {
		return
	}
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{b.Metadata, b.RootFS} {
		if out, err := exec.Command("cp", "--remove-destination", f, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// buildAndUnpack builds an image, checks that only its files are left, that it
// inspects well, and unpacks it.
func buildAndUnpack(t *testing.T, name string) (*Info, string) {
	t.Helper()
	req, err := ParseBuild(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := Builder{Progress: func(line string) { t.Log(line) }}
	built, err := b.Build(t.Context(), req, dir)
	if err != nil {
		t.Fatal(err)
	}
	if names := listDir(t, dir); strings.Join(names, " ") != "metadata.tar.xz rootfs.squashfs" {
		t.Errorf("left behind: %v", names)
	}
	keep(t, strings.ReplaceAll(name, "/", ""), built)
	tools := &Tools{}
	info, err := tools.Inspect(t.Context(), built.Metadata, built.RootFS)
	if err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dest, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := tools.Unpack(t.Context(), built.RootFS, Everything, dest); err != nil {
		t.Fatal(err)
	}
	return info, dest
}

func listDir(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestBuildBusyboxForReal(t *testing.T) {
	info, root := buildAndUnpack(t, "busybox")
	if info.Metadata.Properties["os"] != "Busybox" || !info.Split || !info.Squashfs() || len(info.Templates) != 2 {
		t.Errorf("info: %+v", info)
	}
	out, err := exec.Command("chroot", root, "/bin/sh", "-c", "ip -V 2>&1; echo ok; exit 0").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ok") {
		t.Errorf("the shell does not run: %v %s", err, out)
	}
	if target, err := os.Readlink(filepath.Join(root, "sbin/init")); err != nil || target != "/bin/busybox" {
		t.Errorf("init is %q, %v", target, err)
	}
}

func TestBuildDebianForReal(t *testing.T) {
	info, root := buildAndUnpack(t, "debian/12")
	p := info.Metadata.Properties
	if p["os"] != "Debian" || p["release"] != "bookworm" || info.Metadata.Architecture == "" {
		t.Errorf("properties: %v", p)
	}
	for name, want := range map[string]string{"etc/machine-id": "", "etc/systemd/network/80-eth0.network": networkUnit} {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(root, "usr/lib/systemd/systemd")); err != nil {
		t.Error(err)
	}
	if names := listDir(t, filepath.Join(root, "dev")); len(names) != 0 {
		t.Errorf("dev has %v", names)
	}
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	before := mountTable(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := Builder{Progress: func(line string) {
		if strings.HasPrefix(line, "extracting") || strings.HasPrefix(line, "installing") {
			cancel()
		}
	}}
	req, err := ParseBuild("debian/12")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Build(ctx, req, dir); !errors.Is(err, api.Canceled) {
		t.Errorf("Build = %v, want canceled", err)
	}
	err = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if p != dir {
			t.Errorf("left behind: %s", p)
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if after := mountTable(t); after != before {
		t.Errorf("mounts changed:\n%s", after)
	}
}

func mountTable(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
