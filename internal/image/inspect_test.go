package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/croft-project/croft/api"
)

const metadataText = "architecture: x86_64\ncreation_date: 5\nproperties: {os: test}\n"

func unified(extra ...entry) []entry {
	return append([]entry{file("metadata.yaml", metadataText), dir("rootfs"), file("rootfs/f", "data"), dir("templates"),
		file("templates/a.tpl", "A")}, extra...)
}

func saveFile(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func inspectBytes(t testing.TB, meta, root []byte, limits Limits) (*Info, error) {
	t.Helper()
	open := func(data []byte) *os.File {
		f, err := os.Open(saveFile(t, data))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	if root == nil {
		return Inspect(t.Context(), open(meta), nil, limits)
	}
	return Inspect(t.Context(), open(meta), open(root), limits)
}

// compressed gives raw in each format; those without a Go encoder are made by
// the program of the same name, if the host has it.
func compressed(t *testing.T, raw []byte) map[Format][]byte {
	t.Helper()
	all := map[Format][]byte{Plain: raw}
	add := func(f Format, make func(w io.Writer) (io.WriteCloser, error)) {
		var buf bytes.Buffer
		w, err := make(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(raw); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		all[f] = buf.Bytes()
	}
	add(Gzip, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	add(Zstd, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
	add(XZ, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
	add(LZMA, func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) })
	if path, err := exec.LookPath("bzip2"); err == nil {
		cmd := exec.Command(path, "-c")
		cmd.Stdin = bytes.NewReader(raw)
		if all[Bzip2], err = cmd.Output(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestInspectEveryCompression(t *testing.T) {
	raw := archiveOf(t, unified()...)
	for format, data := range compressed(t, raw) {
		t.Run(string(format), func(t *testing.T) {
			info, err := inspectBytes(t, data, nil, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(data)
			if info.Format != format || info.RootFormat != format || info.Split || info.Squashfs() || info.Type != "container" ||
				info.Size != int64(len(data)) || info.Fingerprint != hex.EncodeToString(sum[:]) {
				t.Errorf("info %+v", info)
			}
			if info.Metadata.Properties["os"] != "test" || string(info.Templates["a.tpl"]) != "A" || len(info.Templates) != 1 {
				t.Errorf("contents %+v", info)
			}
			if format == Plain {
				return
			}
			if _, err := inspectBytes(t, data[:len(data)/2], nil, Limits{}); !errors.Is(err, api.Invalid) {
				t.Errorf("cut off: %v", err)
			}
		})
	}
}

// Without the xz program the Go package does the same.
func TestXZWithoutTheProgram(t *testing.T) {
	raw := archiveOf(t, unified()...)
	all := compressed(t, raw)
	t.Setenv("PATH", t.TempDir())
	for _, format := range []Format{XZ, LZMA} {
		if _, err := inspectBytes(t, all[format], nil, Limits{}); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestInspectSplit(t *testing.T) {
	meta := archiveOf(t, file("./metadata.yaml", metadataText))
	squash := append([]byte("hsqs"), make([]byte, 1000)...)
	info, err := inspectBytes(t, meta, squash, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(append(append([]byte{}, meta...), squash...))
	if !info.Split || !info.Squashfs() || info.Fingerprint != hex.EncodeToString(sum[:]) || info.Size != int64(len(meta)+len(squash)) {
		t.Errorf("info %+v", info)
	}
	if info, err = inspectBytes(t, meta, archiveOf(t, file("f", "")), Limits{}); err != nil || info.Squashfs() || info.RootFormat != Plain {
		t.Errorf("tarball root: %+v, %v", info, err)
	}
}

func TestInspectRefuses(t *testing.T) {
	meta := file("metadata.yaml", metadataText)
	squash := append([]byte("hsqs"), make([]byte, 1000)...)
	qcow := append([]byte("QFI\xfb"), make([]byte, 1000)...)
	big := strings.Repeat("#", MaxMetadataSize+1)
	tests := []struct {
		name       string
		meta, root []byte
		kind       api.Kind
		text       string
	}{
		{"empty file", nil, nil, api.Invalid, "no image"},
		{"text", []byte(strings.Repeat("hello", 200)), nil, api.Invalid, "no image"},
		{"virtual machine", archiveOf(t, meta), qcow, api.Unsupported, "virtual machine"},
		{"virtual machine alone", qcow, nil, api.Unsupported, "virtual machine"},
		{"root is text", archiveOf(t, meta), []byte(strings.Repeat("x", 600)), api.Invalid, "no image"},
		{"squashfs as metadata", squash, nil, api.Invalid, "must be a tarball"},
		{"no metadata", archiveOf(t, dir("rootfs")), nil, api.Invalid, "no metadata.yaml"},
		{"metadata further down", archiveOf(t, dir("rootfs"), file("x/metadata.yaml", metadataText)), nil, api.Invalid, "no metadata.yaml"},
		{"no rootfs", archiveOf(t, meta), nil, api.Invalid, "no rootfs"},
		{"rootfs twice", archiveOf(t, unified()...), squash, api.Invalid, "rootfs folder"},
		{"metadata twice", archiveOf(t, unified(meta)...), nil, api.Invalid, "twice"},
		{"metadata too large", archiveOf(t, file("metadata.yaml", big)), nil, api.TooLarge, "metadata.yaml"},
		{"metadata broken", archiveOf(t, file("metadata.yaml", "a: [")), squash, api.Invalid, "metadata.yaml"},
		{"metadata is a symlink", archiveOf(t, symlink("metadata.yaml", "/etc/passwd")), squash, api.Invalid, "symbolic link"},
		{"metadata is a hard link", archiveOf(t, hardlink("metadata.yaml", "/etc/passwd")), squash, api.Invalid, "hard link"},
		{"metadata is a device", archiveOf(t, entry{name: "metadata.yaml", typ: tar.TypeChar, major: 1, minor: 5}), squash, api.Invalid, "device"},
		{"metadata is a pipe", archiveOf(t, entry{name: "metadata.yaml", typ: tar.TypeFifo}), squash, api.Invalid, "named pipe"},
		{"metadata is a folder", archiveOf(t, file("metadata.yaml/x", "")), squash, api.Invalid, "must be a file"},
		{"rootfs is a symlink", archiveOf(t, meta, symlink("rootfs", "/")), nil, api.Invalid, "must be a folder"},
		{"templates is a symlink", archiveOf(t, unified(symlink("templates", "/etc"))...), nil, api.Invalid, "must be a folder"},
		{"template is a symlink", archiveOf(t, unified(symlink("templates/x", "/etc/shadow"))...), nil, api.Invalid, "regular file"},
		{"template is a hard link", archiveOf(t, unified(hardlink("templates/x", "metadata.yaml"))...), nil, api.Invalid, "regular file"},
		{"template too large", archiveOf(t, unified(file("templates/x", strings.Repeat("x", maxTemplateSize+1)))...), nil, api.TooLarge, "templates/x"},
		{"too many templates", archiveOf(t, unified(file("templates/x", ""))...), nil, api.TooLarge, "templates"},
		{"name with dot dot", archiveOf(t, unified(file("rootfs/../../x", ""))...), nil, api.Invalid, `".."`},
		{"absolute name", archiveOf(t, unified(file("/x", ""))...), nil, api.Invalid, "absolute"},
		{"too many entries", archiveOf(t, unified(file("1", ""), file("2", ""), file("3", ""))...), nil, api.TooLarge, "entries"},
		{"endless padding", append(archiveOf(t, unified()...), make([]byte, maxPadding+1024)...), nil, api.Invalid, "follow the end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := inspectBytes(t, tt.meta, tt.root, Limits{Entries: 7, Templates: 1})
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (%v), want %v with %q", err, api.KindOf(err), tt.kind, tt.text)
			}
		})
	}
}

func TestInspectStopsWithItsContext(t *testing.T) {
	f, err := os.Open(saveFile(t, archiveOf(t, unified()...)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Inspect(ctx, f, nil, Limits{}); !errors.Is(err, api.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(archiveOf(f, unified()...))
	f.Add([]byte("hsqs"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := inspectBytes(t, data, nil, Limits{Entries: 100})
		if err == nil && (info.Metadata == nil || info.Metadata.Properties == nil || CheckFingerprint(info.Fingerprint) != nil) {
			t.Errorf("incomplete: %+v", info)
		}
	})
}

func TestMatchFingerprint(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("a", 63)+"b"
	all := []string{a, b, strings.Repeat("c", 64), a}
	tests := []struct {
		prefix, want string
		kind         api.Kind
	}{
		{"c", all[2], ""}, {a, a, ""}, {b, b, ""}, {"aa", "", api.Invalid}, {"d", "", api.NotFound},
		{"", "", api.NotFound}, {"C", "", api.NotFound}, {"%", "", api.NotFound}, {"c%", "", api.NotFound}, {"_", "", api.NotFound},
		{"c*", "", api.NotFound}, {"../c", "", api.NotFound}, {a + "a", "", api.NotFound},
	}
	for _, tt := range tests {
		got, err := MatchFingerprint(tt.prefix, all)
		if got != tt.want || (err == nil) != (tt.kind == "") || err != nil && !errors.Is(err, tt.kind) {
			t.Errorf("MatchFingerprint(%q) = %q, %v", tt.prefix, got, err)
		}
	}
	_, err := MatchFingerprint("a", all)
	if err == nil || !strings.Contains(err.Error(), a+", "+b) {
		t.Errorf("ambiguous: %v", err)
	}
	for _, bad := range []string{"", "../../x", a[:63], a + "a", strings.ToUpper(a), a[:63] + "/"} {
		if err := CheckFingerprint(bad); !errors.Is(err, api.Invalid) {
			t.Errorf("CheckFingerprint(%q) = %v", bad, err)
		}
	}
}
