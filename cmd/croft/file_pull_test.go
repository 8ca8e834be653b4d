package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/croft-project/croft/client"
)

// TestPullHostile pulls from servers that try to write outside of the target.
func TestPullHostile(t *testing.T) {
	type entry struct{ kind, body string } // body: JSON list of a directory, target of a symlink, content
	for _, tt := range []struct {
		name  string
		files map[string]entry
	}{
		{"name with dots", map[string]entry{"/d": {"directory", `["../evil"]`}}},
		{"name with slash", map[string]entry{"/d": {"directory", `["a/b"]`}}},
		{"backslash", map[string]entry{"/d": {"directory", `["..\\evil"]`}}},
		{"through a symlink", map[string]entry{
			"/d":      {"directory", `["l","l"]`},
			"/d/l":    {"symlink", "OUTSIDE/file"},
			"/d/l #2": {"file", "overwritten"},
		}},
		{"through a directory symlink", map[string]entry{
			"/d":        {"directory", `["l","l"]`},
			"/d/l":      {"symlink", "OUTSIDE"},
			"/d/l #2":   {"directory", `["file"]`},
			"/d/l/file": {"file", "overwritten"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			outside := filepath.Join(dir, "outside")
			if err := os.Mkdir(outside, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(outside, "file"), []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
			asked := map[string]int{}
			g := testGlobal(t)
			connectTo(t, g, func(w http.ResponseWriter, r *http.Request) {
				p := r.URL.Query().Get("path")
				asked[p]++
				e := tt.files[p]
				if again, ok := tt.files[p+" #2"]; ok && asked[p] > 1 {
					e = again
				}
				w.Header().Set("X-LXD-type", e.kind)
				w.Header().Set("X-LXD-mode", "0755")
				if e.kind == "directory" {
					_ = json.NewEncoder(w).Encode(doc{"type": "sync", "metadata": json.RawMessage(e.body)})
					return
				}
				io.WriteString(w, strings.ReplaceAll(e.body, "OUTSIDE", outside))
			})
			target := filepath.Join(dir, "target")
			err := runPull(t.Context(), g, pullOptions{recursive: true}, []string{"c1/d"}, target)
			if err == nil {
				t.Error("the pull has no error")
			}
			if raw, _ := os.ReadFile(filepath.Join(outside, "file")); string(raw) != "mine" {
				t.Errorf("a file outside of the target was written: %q", raw)
			}
			if list, _ := os.ReadDir(dir); len(list) != 2 {
				t.Errorf("beside target and outside there is something else: %v", list)
			}
		})
	}
}

// connectTo gives g a server of its own.
func connectTo(t *testing.T, g *global, h http.HandlerFunc) {
	t.Helper()
	dir, err := os.MkdirTemp("", "croft") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	if g.conn, err = client.Dial(t.Context(), client.Options{Socket: filepath.Join(dir, "s")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.conn.Close)
}
