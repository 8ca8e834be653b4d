package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

func TestToolsDoTheSameAsTheFunctions(t *testing.T) {
	tools := &Tools{Unprivileged: true}
	path := saveFile(t, compressed(t, archiveOf(t, unified()...))[XZ])
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := Inspect(t.Context(), f, nil, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := tools.Inspect(t.Context(), path, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	dest := t.TempDir()
	stats, err := tools.Unpack(t.Context(), path, RootFS, dest)
	if err != nil || stats.Entries != 2 || stats.Bytes != 4 {
		t.Errorf("Unpack: %+v, %v", stats, err)
	}
	if data, err := os.ReadFile(filepath.Join(dest, "f")); string(data) != "data" {
		t.Errorf("f: %q, %v", data, err)
	}
	tpl := []byte("{% for k, v in devices %}{{ k }}={{ v.type }}{% endfor %}")
	out, err := tools.Render(t.Context(), tpl, testContext())
	if string(out) != "eth0=nic" || err != nil {
		t.Errorf("Render: %q, %v", out, err)
	}
}

func TestToolsRefuse(t *testing.T) {
	tools := &Tools{Unprivileged: true}
	dest := t.TempDir()
	image := saveFile(t, archiveOf(t, unified()...))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(image, link); err != nil {
		t.Fatal(err)
	}
	if _, err := tools.Inspect(t.Context(), link, ""); err == nil {
		t.Error("Inspect follows a link")
	}
	if _, err := tools.Inspect(t.Context(), "/dev/zero", ""); err == nil {
		t.Error("Inspect reads a device")
	}
	if _, err := tools.Inspect(t.Context(), filepath.Join(dest, "absent"), ""); !errors.Is(err, api.NotFound) {
		t.Errorf("absent: %v", err)
	}
	if _, err := tools.Unpack(t.Context(), image, RootFS, filepath.Join(dest, "absent")); !errors.Is(err, api.NotFound) {
		t.Errorf("absent destination: %v", err)
	}
	if _, err := tools.Unpack(t.Context(), image, RootFS, image); !errors.Is(err, api.Invalid) {
		t.Errorf("destination is a file: %v", err)
	}
	if _, err := tools.Unpack(t.Context(), image, "absent", dest); !errors.Is(err, api.Invalid) {
		t.Errorf("absent part: %v", err)
	}
	squash := saveFile(t, append([]byte("hsqs"), make([]byte, 200)...))
	if _, err := tools.Unpack(t.Context(), squash, Everything, dest); !errors.Is(err, api.Unsupported) {
		t.Errorf("squashfs version 0: %v", err)
	}
	bad := saveFile(t, archiveOf(t, unified(file("rootfs/../../x", ""))...))
	if _, err := tools.Unpack(t.Context(), bad, RootFS, dest); !errors.Is(err, api.Invalid) || !strings.Contains(err.Error(), "rootfs/../../x") {
		t.Errorf("escape: %v", err)
	}
	if _, err := tools.Render(t.Context(), []byte("{% include \"/etc/passwd\" %}"), testContext()); !errors.Is(err, api.Invalid) {
		t.Errorf("include: %v", err)
	}
}
