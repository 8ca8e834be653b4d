package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

func TestParseBuild(t *testing.T) {
	good := map[string]BuildRequest{
		"debian/12":          {Distribution: "debian", Release: "12"},
		"debian/trixie":      {Distribution: "debian", Release: "trixie"},
		"ubuntu/24.04/arm64": {Distribution: "ubuntu", Release: "24.04", Arch: "arm64"},
		"busybox":            {Distribution: "busybox"},
		"busybox/amd64":      {Distribution: "busybox", Arch: "amd64"},
	}
	for name, want := range good {
		if got, err := ParseBuild(name); got != want || err != nil {
			t.Errorf("ParseBuild(%q) = %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "debian", "debian/", "debian/9", "debian/12/pdp11", "debian/12/amd64/x", "alpine/3.20", "busybox/1/2",
		"debian/12;id", "debian/--help", "ubuntu/12", "../debian/12"} {
		_, err := ParseBuild(name)
		if !errors.Is(err, api.Invalid) || !strings.Contains(err.Error(), "known are") {
			t.Errorf("ParseBuild(%q): %v", name, err)
		}
	}
	for _, name := range Buildable() {
		if _, err := ParseBuild(name); err != nil {
			t.Errorf("Buildable %q: %v", name, err)
		}
	}
}

func TestCheckMirror(t *testing.T) {
	for _, ok := range []string{"", "http://deb.debian.org/debian", "https://[::1]:8080/x~y/", "file:///srv/mirror", "http://localhost"} {
		if err := checkMirror(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"deb.debian.org", "http://", "http://x y", "http://x/\ndeb http://evil", "http://x/[trusted=yes]", "ftp://x",
		"copy:/etc", "http://x/;id", "--help", "http://user:pw@x/", "http://x/$(id)"} {
		if err := checkMirror(bad); !errors.Is(err, api.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// hostTree writes a small host file tree.
func hostTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const debKeys, ubuntuKeys = "usr/share/keyrings/debian-archive-keyring.gpg", "usr/share/keyrings/ubuntu-archive-keyring.gpg"

func TestSources(t *testing.T) {
	bookworm := "ID=debian\nVERSION_CODENAME=bookworm\n"
	signed := "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
	tests := []struct {
		name, build, mirror string
		host                map[string]string
		want                []string
	}{
		{"no host sources", "debian/12", "", map[string]string{debKeys: ""}, []string{
			signed + "http://deb.debian.org/debian bookworm main", signed + "http://deb.debian.org/debian bookworm-updates main",
			signed + "http://deb.debian.org/debian-security bookworm-security main"}},
		{"one-line sources, another release", "debian/13", "", map[string]string{debKeys: "", "etc/os-release": bookworm,
			"etc/apt/sources.list": "# deb http://old/debian bookworm main\ndeb-src http://src/debian bookworm main\n" +
				"deb [arch=amd64 signed-by=/x] https://mirror.example/debian/ bookworm main contrib # mine\n" +
				"deb http://sec.example/debian-security bookworm-security main\n"}, []string{
			signed + "https://mirror.example/debian trixie main", signed + "https://mirror.example/debian trixie-updates main",
			signed + "http://sec.example/debian-security trixie-security main"}},
		{"deb822 sources", "debian/12", "", map[string]string{debKeys: "", "etc/os-release": bookworm,
			"etc/apt/sources.list.d/a.sources": "Types: deb\nEnabled: no\nURIs: http://off\nSuites: bookworm\n\n" +
				"Types: deb deb-src\n# comment\nURIs: http://m.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\n",
			"etc/apt/sources.list.d/b.list": "deb https://other.example/repo stable main\n"}, []string{
			signed + "http://m.example/debian bookworm main", signed + "http://m.example/debian bookworm-updates main",
			signed + "http://deb.debian.org/debian-security bookworm-security main"}},
		{"strange host source", "debian/12", "", map[string]string{debKeys: "", "etc/os-release": bookworm,
			"etc/apt/sources.list": "deb mirror+file:/etc/apt/mirrors bookworm main\n"}, []string{
			signed + "http://deb.debian.org/debian bookworm main", signed + "http://deb.debian.org/debian bookworm-updates main",
			signed + "http://deb.debian.org/debian-security bookworm-security main"}},
		{"given mirror", "debian/12", "file:///srv/m", map[string]string{debKeys: ""}, []string{
			signed + "file:///srv/m bookworm main", signed + "file:///srv/m bookworm-updates main",
			signed + "http://deb.debian.org/debian-security bookworm-security main"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := ParseBuild(tt.build)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := findRelease(req.Distribution, req.Release)
			if err != nil {
				t.Fatal(err)
			}
			b := Builder{Root: hostTree(t, tt.host)}
			got, err := b.sources(rel, "amd64", tt.mirror)
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func TestSourcesOfUbuntu(t *testing.T) {
	rel, err := findRelease("ubuntu", "24.04")
	if err != nil {
		t.Fatal(err)
	}
	b := Builder{Root: hostTree(t, nil)}
	if _, err := b.sources(rel, "amd64", ""); !errors.Is(err, api.Unsupported) || !strings.Contains(api.HintOf(err), "ubuntu-keyring") {
		t.Errorf("without keys: %v, hint %q", err, api.HintOf(err))
	}
	b.Root = hostTree(t, map[string]string{ubuntuKeys: ""})
	for arch, host := range map[string]string{"amd64": "//archive.ubuntu.com/ubuntu ", "arm64": "//ports.ubuntu.com/ubuntu-ports "} {
		got, err := b.sources(rel, arch, "")
		if err != nil || !strings.Contains(got[0], host) {
			t.Errorf("%s: %v, %v", arch, got, err)
		}
	}
}

func TestPackedMetadataParsesAndIsReproducible(t *testing.T) {
	rel, err := findRelease("debian", "12")
	if err != nil {
		t.Fatal(err)
	}
	b := Builder{Now: func() time.Time { return time.Date(2026, 3, 1, 23, 0, 0, 0, time.UTC) }}
	md, err := b.debianMetadata(rel, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	one, err := packMetadata(md, nameTemplates)
	if err != nil {
		t.Fatal(err)
	}
	two, err := packMetadata(md, nameTemplates)
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("two packings differ, %v", err)
	}
	info, err := inspectBytes(t, one, append([]byte("hsqs"), make([]byte, 100)...), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(md, info.Metadata); diff != "" {
		t.Error(diff)
	}
	if got := info.Metadata.Properties["description"]; got != "Debian 12 amd64 (20260301)" {
		t.Errorf("description %q", got)
	}
	for name, tpl := range info.Templates {
		if !IsPlainTemplate(tpl) {
			t.Errorf("%s is not plain: it would cost a helper at every launch", name)
		}
	}
}

func TestBuildChecksItsRequest(t *testing.T) {
	dir := t.TempDir()
	for _, req := range []BuildRequest{{}, {Distribution: "debian"}, {Distribution: "debian", Release: "12", Arch: "x;y"},
		{Distribution: "debian", Release: "12", Mirror: "x"}, {Distribution: "busybox", Release: "1"}} {
		if _, err := (&Builder{}).Build(t.Context(), req, dir); !errors.Is(err, api.Invalid) {
			t.Errorf("%+v: %v", req, err)
		}
	}
	t.Setenv("PATH", dir)
	for _, name := range []string{"busybox", "debian/12"} {
		req, err := ParseBuild(name)
		if err != nil {
			t.Fatal(err)
		}
		b := Builder{Root: hostTree(t, map[string]string{debKeys: ""})}
		if _, err := b.Build(t.Context(), req, dir); !errors.Is(err, api.Unsupported) || !strings.HasPrefix(api.HintOf(err), "apt-get install ") {
			t.Errorf("%s without programs: %v, hint %q", name, err, api.HintOf(err))
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestLineWriter(t *testing.T) {
	var got []string
	w := &lineWriter{onLine: func(s string) { got = append(got, s) }}
	for _, part := range []string{"a", "b\n\n c \nd", strings.Repeat("x", 5000), "\n"} {
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 4 || got[0] != "ab" || got[1] != "c" || len(got[2]) != 4095 {
		t.Errorf("got %d lines: %.60q", len(got), got)
	}
	for range 100 {
		_, _ = w.Write([]byte("y\n"))
	}
	if len(w.last) != outputTail {
		t.Errorf("keeps %d lines", len(w.last))
	}
}
