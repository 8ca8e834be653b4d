package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

var when = time.Unix(1_600_000_000, 123_000_000)

// entry is one entry of a test archive; data makes it a regular file unless
// another type is given.
type entry struct {
	name, link string
	typ        byte
	mode       int64
	data       string
	uid, gid   int
	major      int64
	minor      int64
	pax        map[string]string
}

func archiveOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.typ, Mode: e.mode, Uid: e.uid, Gid: e.gid,
			Size: int64(len(e.data)), ModTime: when, Devmajor: e.major, Devminor: e.minor, PAXRecords: e.pax, Format: tar.FormatPAX}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func dir(name string) entry             { return entry{name: name, typ: tar.TypeDir} }
func file(name, data string) entry      { return entry{name: name, data: data} }
func symlink(name, target string) entry { return entry{name: name, typ: tar.TypeSymlink, link: target} }
func hardlink(name, target string) entry {
	return entry{name: name, typ: tar.TypeLink, link: target}
}

// sandbox is a folder with a destination beside things that must not change.
type sandbox struct{ top, dest, canary string }

func newSandbox(t testing.TB) sandbox {
	t.Helper()
	top := t.TempDir()
	s := sandbox{top, filepath.Join(top, "dest"), filepath.Join(top, "canary")}
	for _, d := range []string{s.dest, s.canary} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.canary, "secret"), []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// check fails when anything outside of dest changed.
func (s sandbox) check(t testing.TB) {
	t.Helper()
	var seen []string
	err := filepath.WalkDir(s.top, func(p string, d fs.DirEntry, err error) error {
		if p == s.dest {
			return fs.SkipDir
		}
		seen = append(seen, strings.TrimPrefix(p, s.top))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(seen, " "); got != " /canary /canary/secret" {
		t.Errorf("outside of the destination: %s", got)
	}
	name := filepath.Join(s.canary, "secret")
	data, err := os.ReadFile(name)
	st, serr := os.Lstat(name)
	if err != nil || serr != nil || string(data) != "untouched" || st.Mode() != 0o600 {
		t.Errorf("canary: %q, %v, %v", data, err, st.Mode())
	}
}

func (s sandbox) extract(t testing.TB, raw []byte, opts ExtractOptions) (Stats, error) {
	t.Helper()
	d, err := os.Open(s.dest)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	opts.Unprivileged = true
	return Extract(t.Context(), bytes.NewReader(raw), d, opts)
}

// The classes of attack that container managers have fallen to: CVE-2026-48749,
// CVE-2026-48750, CVE-2026-48752, CVE-2026-63343, CVE-2026-63125.
func TestExtractRefusesEscapes(t *testing.T) {
	s0 := newSandbox(t)
	tests := map[string][]entry{
		"dot dot":                      {file("../x", "")},
		"dot dot inside":               {dir("a"), file("a/../../x", "")},
		"dot dot that stays":           {dir("a"), file("a/../x", "")},
		"dot dot only":                 {dir("..")},
		"absolute":                     {file("/x", "")},
		"absolute folder":              {dir("/")},
		"symlink as folder, up":        {symlink("a", ".."), file("a/x", "")},
		"symlink as folder, absolute":  {symlink("a", s0.canary), file("a/secret", "")},
		"symlink as folder, inside":    {dir("b"), symlink("a", "b"), file("a/x", "")},
		"symlink as folder, deep":      {dir("b"), symlink("b/a", "../.."), file("b/a/canary/x", "")},
		"symlink chain":                {symlink("a", "b"), symlink("b", ".."), file("a/x", "")},
		"symlink to proc":              {symlink("a", "/proc/self/cwd"), file("a/x", "")},
		"folder below symlink":         {symlink("a", ".."), dir("a/new")},
		"missing folders on symlink":   {symlink("a", ".."), file("a/b/c/x", "")},
		"symlink below symlink":        {symlink("a", ".."), symlink("a/x", "y")},
		"hard link up":                 {hardlink("x", "../canary/secret")},
		"hard link absolute":           {hardlink("x", s0.canary+"/secret")},
		"hard link through symlink":    {symlink("a", s0.canary), hardlink("x", "a/secret")},
		"hard link to nothing":         {hardlink("x", "absent")},
		"hard link to a folder":        {dir("a"), hardlink("x", "a")},
		"hard link to the top":         {hardlink("x", ".")},
		"file through a file":          {file("a", ""), file("a/x", "")},
		"pipe as folder":               {{name: "a", typ: tar.TypeFifo}, file("a/x", "")},
		"file in place of full folder": {file("a/b", ""), file("a", "")},
		"top is a file":                {file("./.", "x")},
		"top is a symlink":             {symlink(".", "/")},
		"component too long":           {file(strings.Repeat("x", 256), "")},
		"path too long":                {file(strings.Repeat("x/", 2100)+"x", "")},
		"unknown type":                 {{name: "x", typ: 'M'}},
		"owner -1":                     {{name: "x", uid: 1<<32 - 1}},
		"device number":                {{name: "x", typ: tar.TypeChar, major: 1 << 13}},
	}
	for name, entries := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			last := entries[len(entries)-1]
			for i := range entries { // the same attack with this sandbox's paths
				entries[i].link = strings.ReplaceAll(entries[i].link, s0.canary, s.canary)
			}
			_, err := s.extract(t, archiveOf(t, entries...), ExtractOptions{})
			if !errors.Is(err, api.Invalid) || !strings.Contains(err.Error(), "entry ") {
				t.Errorf("got %v (%v), want invalid, naming the entry %.40q", err, api.KindOf(err), last.name)
			}
			s.check(t)
		})
	}
}

// Links may point anywhere as long as nothing follows them here, and writing to
// a name that is a link replaces the link.
func TestExtractNeverFollowsLinks(t *testing.T) {
	s := newSandbox(t)
	secret := filepath.Join(s.canary, "secret")
	raw := archiveOf(t,
		symlink("a", secret), file("a", "mine"),
		symlink("b", secret), hardlink("c", "b"), // a link to the link
		symlink("d", s.canary), dir("d"), file("d/x", "inside"),
		symlink("e", "/etc/passwd"),
	)
	if _, err := s.extract(t, raw, ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
	s.check(t)
	if got, err := os.ReadFile(filepath.Join(s.dest, "a")); string(got) != "mine" || err != nil {
		t.Errorf("a: %q, %v", got, err)
	}
	if got, err := os.Readlink(filepath.Join(s.dest, "c")); got != secret || err != nil {
		t.Errorf("c: %q, %v", got, err)
	}
	if st, err := os.Lstat(filepath.Join(s.dest, "d")); err != nil || !st.IsDir() {
		t.Errorf("d: %v", err)
	}
}

func TestExtractKeepsWhatItShould(t *testing.T) {
	s := newSandbox(t)
	big := strings.Repeat("\x00", 3<<20) + "end" + strings.Repeat("\x00", 1<<20)
	raw := archiveOf(t,
		entry{name: "./", typ: tar.TypeDir, mode: 0o711},
		entry{name: "ro", typ: tar.TypeDir, mode: 0o555},
		file("ro/inside", "x"),
		entry{name: "suid", data: "s", mode: 0o4755},
		entry{name: "sticky", typ: tar.TypeDir, mode: 0o1777},
		file("missing/parents/f", "deep"),
		entry{name: "xattr", data: "x", pax: map[string]string{"SCHILY.xattr.user.k": "v\x00w",
			"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.security.x": "y"}},
		file("sparse", big), file("zero", ""), file("twice", "1"), file("twice", "2"),
		hardlink("again", "twice"), hardlink("again", "twice"),
		entry{name: "pipe", typ: tar.TypeFifo, mode: 0o600},
		symlink("link", "suid"),
		entry{name: "ro", typ: tar.TypeDir, mode: 0o500}, // the last entry counts
	)
	stats, err := s.extract(t, raw, ExtractOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Entries != 16 || len(stats.Skipped) != 0 {
		t.Errorf("stats %+v", stats)
	}
	at := func(name string) string { return filepath.Join(s.dest, name) }
	t.Cleanup(func() { _ = os.Chmod(at("ro"), 0o700) }) // so that it can be removed
	modes := map[string]fs.FileMode{
		"": 0o711 | fs.ModeDir, "ro": 0o500 | fs.ModeDir, "suid": 0o755 | fs.ModeSetuid,
		"sticky": 0o777 | fs.ModeDir | fs.ModeSticky, "pipe": 0o600 | fs.ModeNamedPipe, "missing/parents": 0o755 | fs.ModeDir,
	}
	for name, want := range modes {
		st, err := os.Lstat(at(name))
		if err != nil || st.Mode() != want {
			t.Errorf("%q: mode %v, want %v, %v", name, st.Mode(), want, err)
		}
	}
	for _, name := range []string{"", "ro", "suid", "link", "pipe"} {
		if st, err := os.Lstat(at(name)); err != nil || !st.ModTime().Equal(when) {
			t.Errorf("%q: time %v, %v", name, st.ModTime(), err)
		}
	}
	if got, err := os.ReadFile(at("sparse")); string(got) != big || err != nil {
		t.Errorf("sparse: %d bytes, %v", len(got), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(at("sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("sparse takes %d blocks, %v", st.Blocks, err)
	}
	if err := unix.Stat(at("again"), &st); err != nil || st.Nlink != 2 {
		t.Errorf("again has %d links, %v", st.Nlink, err)
	}
	if got, err := os.ReadFile(at("again")); string(got) != "2" || err != nil {
		t.Errorf("again: %q, %v", got, err)
	}
	list := make([]byte, 1024)
	n, err := unix.Listxattr(at("xattr"), list)
	if err != nil || !strings.Contains("\x00"+string(list[:n]), "\x00user.k\x00") || strings.Contains(string(list[:n]), "overlay") {
		t.Errorf("xattrs: %q, %v", list[:max(n, 0)], err)
	}
}

func TestExtractPrefix(t *testing.T) {
	s := newSandbox(t)
	raw := archiveOf(t, file("metadata.yaml", "m"), dir("./rootfs/"), file("rootfs/a", "a"), hardlink("rootfs/b", "rootfs/a"),
		hardlink("./rootfs/c", "./rootfs/b"), file("rootfsx", "no"), file("templates/t", "no"))
	if _, err := s.extract(t, raw, ExtractOptions{Prefix: "rootfs"}); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(s.dest + "/*")
	if err != nil || len(names) != 3 {
		t.Errorf("got %v, %v", names, err)
	}
	raw = archiveOf(t, file("metadata.yaml", "m"), hardlink("rootfs/b", "metadata.yaml"))
	if _, err := newSandbox(t).extract(t, raw, ExtractOptions{Prefix: "rootfs"}); !errors.Is(err, api.Invalid) {
		t.Errorf("hard link out of the prefix: %v", err)
	}
}

func TestExtractLimits(t *testing.T) {
	tests := []struct {
		name    string
		limits  Limits
		entries []entry
	}{
		{"entries", Limits{Entries: 2}, []entry{file("a", ""), file("b", ""), file("c", "")}},
		{"bytes", Limits{Bytes: 10}, []entry{file("a", "123456"), file("b", "123456")}},
		{"file size", Limits{FileSize: 5}, []entry{file("a", "123456")}},
	}
	for _, tt := range tests {
		_, err := newSandbox(t).extract(t, archiveOf(t, tt.entries...), ExtractOptions{Limits: tt.limits})
		if !errors.Is(err, api.TooLarge) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestExtractDamage(t *testing.T) {
	whole := archiveOf(t, file("a", strings.Repeat("x", 5000)), file("b", "y"))
	// Not between entries: that is also how archives without an end mark end.
	for _, cut := range []int{100, 511, 1100, 1600, 5000} {
		if _, err := newSandbox(t).extract(t, whole[:cut], ExtractOptions{}); !errors.Is(err, api.Invalid) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := Extract(ctx, bytes.NewReader(whole), d, ExtractOptions{Unprivileged: true}); !errors.Is(err, api.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// FuzzExtract feeds raw bytes: whatever they do, nothing outside changes.
func FuzzExtract(f *testing.F) {
	f.Add(archiveOf(f, symlink("a", ".."), file("a/x", "1")))
	f.Add(archiveOf(f, dir("d"), file("d/f", "data"), hardlink("h", "d/f"), hardlink("x", "../canary/secret")))
	f.Add(archiveOf(f, file("/abs", ""), file("../up", "")))
	f.Add(archiveOf(f, entry{name: "x", data: "x", pax: map[string]string{"SCHILY.xattr.user.k": "v"}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := newSandbox(t)
		_, err := s.extract(t, raw, ExtractOptions{Limits: Limits{Entries: 100, Bytes: 1 << 20, FileSize: 1 << 24}})
		s.check(t)
		if err != nil && api.KindOf(err) == api.Internal {
			t.Logf("internal: %v", err)
		}
	})
}

// FuzzExtractNames spends its time on names and links instead of headers.
func FuzzExtractNames(f *testing.F) {
	f.Add("a", "..", "a/x", "a", byte(2), byte(0), byte(1))
	f.Add("a", "/", "a/b/c", "../canary/secret", byte(2), byte(5), byte(1))
	f.Add("./a/./b//c", "x", "a/b", "a/b/c", byte(0), byte(2), byte(1))
	f.Fuzz(func(t *testing.T, n1, l1, n2, l2 string, t1, t2, t3 byte) {
		types := []byte{tar.TypeReg, tar.TypeLink, tar.TypeSymlink, tar.TypeFifo, tar.TypeDir}
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for i, e := range []entry{{name: n1, link: l1, typ: types[int(t1)%5]}, {name: n2, link: l2, typ: types[int(t2)%5]},
			{name: n1 + "/" + n2, link: l1 + "/" + l2, typ: types[int(t3)%5]}} {
			h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.typ, Mode: 0o755, ModTime: when}
			if err := w.WriteHeader(h); err != nil {
				t.Skip(i, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Skip(err)
		}
		s := newSandbox(t)
		_, err := s.extract(t, buf.Bytes(), ExtractOptions{})
		s.check(t)
		if err != nil && api.KindOf(err) == api.Internal {
			t.Errorf("internal: %v", err)
		}
	})
}
