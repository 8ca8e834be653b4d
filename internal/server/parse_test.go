package server

import (
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
)

func testLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestFilter(t *testing.T) {
	type item struct {
		Name    string            `json:"name"`
		Count   int               `json:"count"`
		Live    bool              `json:"live"`
		Tags    []string          `json:"tags"`
		Config  map[string]string `json:"config"`
		Aliases []api.ImageAlias  `json:"aliases"`
	}
	items := []item{
		{Name: "web1", Count: 1, Tags: []string{"a", "b"}, Config: map[string]string{"user.role": "web", "user": "x"}},
		{Name: "web2", Count: 1000000000000000001, Live: true, Config: map[string]string{"user.role": "data base"}},
		{Name: "db1", Config: map[string]string{}, Aliases: []api.ImageAlias{{Name: "d"}, {Name: "debian/12"}}},
	}
	for _, c := range []struct{ expr, want string }{
		{"name eq web1", "web1"},
		{"name eq WEB1", "web1"},
		{"name EQ web1", "web1"},
		{"name eq web", ""},
		{"name eq web.*", "web1 web2"},
		{"name eq ^web", "web1 web2"},
		{"name eq (", ""},
		{"name ne web1", "web2 db1"},
		{"not name eq web1", "web2 db1"},
		{"not name ne web1", "web1"},
		{"name eq web1 or name eq db1", "web1 db1"},
		{"name eq web1 and not live eq true", "web1"},
		{"name eq db1 or name eq web1 and live eq true", ""}, // from left to right
		{"config.user.role eq web", "web1"},
		{`config.user.role eq "data base"`, "web2"},
		{"config.user eq x", "web1"},
		{"config eq x", ""},
		{"live eq true", "web2"},
		{"count eq 1000000000000000001", "web2"},
		{"tags eq b", "web1"},
		{"aliases.name eq debian/12", "db1"},
		{"nothing eq x", ""},
		{"  name   eq\tweb1 ", "web1"},
	} {
		m, err := parseFilter(strings.TrimSpace(c.expr))
		if err != nil {
			t.Errorf("%q: %v", c.expr, err)
			continue
		}
		got, err := filtered(items, m)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, it := range got {
			names = append(names, it.Name)
		}
		if strings.Join(names, " ") != c.want {
			t.Errorf("%q: got %q, want %q", c.expr, names, c.want)
		}
	}
}

func TestBadFilter(t *testing.T) {
	for _, expr := range []string{
		"nonsense", "name eq", "eq", "not", "and", "name like x", "name eq x y", "name eq x xor name eq y", "name eq x and",
		"not not name eq x", `name eq "x`, strings.Repeat("x", maxFilter+1),
	} {
		if _, err := parseFilter(expr); !errors.Is(err, api.Invalid) {
			t.Errorf("%.40q: got %v, want Invalid", expr, err)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"name eq x", `not a.b.c ne "x y" or d eq (`, "a eq [[:x:]]", "\"", "and and and"} {
		f.Add(seed)
	}
	object := map[string]any{"name": "x", "a": map[string]any{"b.c": []any{"d", true, nil}}, "d": []any{map[string]any{"e": "f"}}}
	f.Fuzz(func(t *testing.T, expr string) {
		m, err := parseFilter(expr)
		if err == nil {
			m(object)
		} else if !errors.Is(err, api.Invalid) {
			t.Fatalf("%q: %v", expr, err)
		}
	})
}

func FuzzFileHeaders(f *testing.F) {
	f.Add("file", "append", "0", "0", "0644")
	f.Add("symlink", "", "-1", "4294967295", "0o777")
	f.Add("directory", "overwrite", "", " 1", "77777")
	f.Fuzz(func(t *testing.T, kind, write, uid, gid, mode string) {
		h := http.Header{}
		for k, v := range map[string]string{"X-LXD-type": kind, "X-LXD-write": write, "X-LXD-uid": uid, "X-LXD-gid": gid, "X-LXD-mode": mode} {
			h.Set(k, v)
		}
		put, err := filePut(h)
		if err != nil {
			if !errors.Is(err, api.Invalid) || !strings.Contains(err.Error(), "X-LXD-") {
				t.Fatalf("%v: %v", h, err)
			}
			return
		}
		if !slices.Contains([]string{"file", "directory", "symlink"}, put.Type) || put.Mode < -1 || put.Mode > 0o7777 ||
			put.UID < -1 || put.UID >= 1<<32-1 || put.GID < -1 || put.GID >= 1<<32-1 {
			t.Fatalf("%v: %+v", h, put)
		}
	})
}

func FuzzUploadHeaders(f *testing.F) {
	f.Add("up.tar.gz", "a=1&b=2", "1", "ABC")
	f.Add("../../etc/passwd", "%zz", "", "")
	f.Add("a\nb", ";", "yes", "\x00")
	f.Fuzz(func(t *testing.T, name, properties, public, fingerprint string) {
		h := http.Header{}
		h.Set("X-LXD-filename", name)
		h.Set("X-LXD-properties", properties)
		h.Set("X-LXD-public", public)
		h.Set("X-LXD-fingerprint", fingerprint)
		up, err := uploadHeaders(h)
		if err != nil {
			if !errors.Is(err, api.Invalid) {
				t.Fatalf("%v: %v", h, err)
			}
			return
		}
		if up.Filename != "/" && strings.Contains(up.Filename, "/") {
			t.Fatalf("%q became %q", name, up.Filename)
		}
	})
}

// A name in Content-Disposition can neither end the header nor be lost.
func FuzzDisposition(f *testing.F) {
	for _, seed := range []string{"hostname", `a"b`, "a;b", "ü", "x\r\ny: z", "", " "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		d := disposition(name)
		if strings.ContainsAny(d, "\r\n\x00") {
			t.Fatalf("%q: %q", name, d)
		}
		if d == "inline" {
			return
		}
		_, params, err := mime.ParseMediaType(d)
		if err != nil || params["filename"] != name {
			t.Fatalf("%q: %q is read as %q, %v", name, d, params["filename"], err)
		}
	})
}

func TestWaitTimeout(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"": -1, "-1": -1, "-5": -1, "0": 0, "3": 3 * time.Second, "9223372036854775807": maxWait,
	} {
		if got, err := waitTimeout(v); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", v, got, err, want)
		}
	}
	for _, v := range []string{"x", "1.5", "9223372036854775808", " 1"} {
		if _, err := waitTimeout(v); !errors.Is(err, api.Invalid) {
			t.Errorf("%q: got %v, want Invalid", v, err)
		}
	}
}

func TestExtensions(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range extensions() {
		if seen[e] {
			t.Errorf("%s is listed twice", e)
		}
		seen[e] = true
	}
	extensions()[0] = "changed"
	if extensions()[0] == "changed" {
		t.Error("callers can change the list")
	}
}
