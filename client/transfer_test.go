package client

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

func TestFiles(t *testing.T) {
	var put http.Header
	var body string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0/instances/x/files", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-LXD-uid", "1000")
		w.Header().Set("X-LXD-gid", "1001")
		w.Header().Set("X-LXD-mode", "0640")
		switch r.URL.Query().Get("path") {
		case "/etc":
			w.Header().Set("X-LXD-type", "directory")
			syncReply(w, []string{"hosts", "passwd"})
		case "/etc/a b":
			w.Header().Set("X-LXD-type", "file")
			io.WriteString(w, "content")
		default:
			reply(w, 404, map[string]any{"type": "error", "error": "no such file", "error_code": 404})
		}
	})
	mux.HandleFunc("POST /1.0/instances/x/files", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		put, body = r.Header, r.URL.Query().Get("path")+" "+string(raw)
		syncReply(w, nil)
	})
	c := serve(t, Options{}, mux)

	f, err := c.InstanceFile(t.Context(), "x", "/etc/a b")
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := io.ReadAll(f.Body)
	f.Close()
	if string(raw) != "content" || f.UID != 1000 || f.GID != 1001 || f.Mode != 0o640 || f.Type != FileRegular || f.Size != 7 {
		t.Errorf("got %q, %+v", raw, f)
	}
	dir, err := c.InstanceFile(t.Context(), "x", "/etc")
	if err != nil || dir.Type != FileDirectory || !cmp.Equal(dir.Entries, []string{"hosts", "passwd"}) {
		t.Errorf("got %+v, %v", dir, err)
	}
	if _, err := c.InstanceFile(t.Context(), "x", "/none"); !errors.Is(err, api.NotFound) {
		t.Errorf("got %v, want NotFound", err)
	}
	uid, mode := int64(5), fs.FileMode(0o755)
	err = c.PutInstanceFile(t.Context(), "x", "/n", FilePut{UID: &uid, Mode: &mode, Append: true, Body: strings.NewReader("new")})
	if err != nil || body != "/n new" {
		t.Errorf("got %q, %v", body, err)
	}
	for k, want := range map[string]string{
		"X-LXD-uid": "5", "X-LXD-gid": "", "X-LXD-mode": "0755", "X-LXD-type": "file", "X-LXD-write": "append",
	} {
		if got := put.Get(k); got != want {
			t.Errorf("%s: got %q, want %q", k, got, want)
		}
	}
}

func TestUploadImage(t *testing.T) {
	var got []string
	c := serve(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = []string{r.Header.Get("X-LXD-filename"), r.Header.Get("X-LXD-public"), r.Header.Get("X-LXD-properties")}
		mr, err := r.MultipartReader()
		if err != nil {
			raw, _ := io.ReadAll(r.Body)
			got = append(got, string(raw))
			syncReply(w, nil)
			return
		}
		for {
			part, err := mr.NextPart()
			if err != nil {
				break
			}
			raw, _ := io.ReadAll(part)
			got = append(got, part.FormName()+":"+part.FileName()+":"+string(raw))
		}
		syncReply(w, nil)
	}))
	up := ImageUpload{Meta: strings.NewReader("M"), MetaName: "m.tar", Public: true, Properties: map[string]string{"os": "a b"}}
	if _, err := c.UploadImage(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"m.tar", "true", "os=a+b", "M"}, got); diff != "" {
		t.Error(diff)
	}
	up.Meta, up.Rootfs, up.RootfsName = strings.NewReader("M"), bytes.NewReader([]byte("R")), "r.squashfs"
	if _, err := c.UploadImage(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"r.squashfs", "true", "os=a+b", "metadata:m.tar:M", "rootfs:r.squashfs:R"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestUploadRefused checks that an upload ends when the server answers before
// it has read everything.
func TestUploadRefused(t *testing.T) {
	c := serve(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 413, map[string]any{"type": "error", "error": "too large", "error_code": 413})
	}))
	up := ImageUpload{Meta: zeros(1 << 30), MetaName: "m", Rootfs: zeros(1 << 30), RootfsName: "r"}
	if _, err := c.UploadImage(t.Context(), up); err == nil {
		t.Error("an upload that was refused has no error")
	}
}

func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestExportImage(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0/images/split/export", func(w http.ResponseWriter, _ *http.Request) {
		mw := multipart.NewWriter(w)
		w.Header().Set("Content-Type", mw.FormDataContentType())
		a, _ := mw.CreateFormFile("metadata", "meta.tar.xz")
		io.WriteString(a, "M")
		b, _ := mw.CreateFormFile("rootfs", "../../evil.squashfs")
		io.WriteString(b, "R")
		mw.Close()
	})
	mux.HandleFunc("GET /1.0/images/one/export", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", "inline;filename=a.tar.gz")
		io.WriteString(w, "U")
	})
	c := serve(t, Options{}, mux)
	for fp, want := range map[string][]string{
		"split": {"metadata meta.tar.xz M", "rootfs evil.squashfs R"},
		"one":   {" a.tar.gz U"},
	} {
		var got []string
		err := c.ExportImage(t.Context(), fp, func(p ImagePart) error {
			raw, err := io.ReadAll(p.Body)
			got = append(got, p.Field+" "+p.Name+" "+string(raw))
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", fp, diff)
		}
	}
}

func TestBaseName(t *testing.T) {
	for in, want := range map[string]string{"a.tar": "a.tar", "/x/a": "a", `..\b`: "b", "..": "fp", "": "fp", "x/": "fp", "x/..": "fp"} {
		if got := baseName(in, "fp"); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
