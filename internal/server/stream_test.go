package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/catalog"
)

// patience bounds waits in tests; it is only reached when something is broken.
const patience = 30 * time.Second

func (w *world) dial(path string, header http.Header) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return websocket.Dial(ctx, "ws://croft"+path, &websocket.DialOptions{HTTPClient: w.client, HTTPHeader: header})
}

func nextEvent(t *testing.T, conn *websocket.Conn) api.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	kind, raw, err := conn.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var ev api.Event
	if err := json.Unmarshal(raw, &ev); err != nil || kind != websocket.MessageText {
		t.Fatalf("event %s of kind %v: %v", raw, kind, err)
	}
	return ev
}

func TestEventStream(t *testing.T) {
	w := newWorld(t)
	conn, _, err := w.dial("/1.0/events?type=operation,%20lifecycle", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	w.hub.Publish("default", api.EventLogging, api.EventLoggingMetadata{Message: "not asked for"})
	resp, _ := w.do(http.MethodPost, "/1.0/instances", nil, strings.NewReader(`{"name":"c3","source":{"type":"none"}}`))
	id := strings.TrimPrefix(resp.Header.Get("Location"), "/1.0/operations/")
	var statuses []string
	for len(statuses) == 0 || statuses[len(statuses)-1] != "Success" {
		ev := nextEvent(t, conn)
		var op api.Operation
		if err := json.Unmarshal(ev.Metadata, &op); err != nil {
			t.Fatal(err)
		}
		if ev.Type != api.EventOperation || ev.Project != "default" || op.ID != id {
			t.Fatalf("got event %+v of operation %s, want one of operation %s", ev, op.ID, id)
		}
		statuses = append(statuses, op.Status)
	}
	if want := []string{"Pending", "Running", "Success"}; !slices.Equal(statuses, want) {
		t.Errorf("got %v, want %v", statuses, want)
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestEventStreamRefused(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		query, origin string
		want          int
	}{{"?type=bogus", "", 400}, {"", "https://evil.example", 403}} {
		h := http.Header{}
		if c.origin != "" {
			h.Set("Origin", c.origin)
		}
		conn, resp, err := w.dial("/1.0/events"+c.query, h)
		if err == nil {
			conn.CloseNow()
			t.Errorf("%v: accepted", c)
		} else if resp.StatusCode != c.want {
			t.Errorf("%v: got %d, want %d", c, resp.StatusCode, c.want)
		}
	}
}

func TestAllowedOrigin(t *testing.T) {
	w := newWorld(t, func(d *Deps) { d.AllowOrigin = func(o string) bool { return o == "https://ui.example" } })
	conn, _, err := w.dial("/1.0/events", http.Header{"Origin": {"https://ui.example"}})
	if err != nil {
		t.Fatal(err)
	}
	conn.CloseNow()
}

// Long polls and event streams end when the server does.
func TestServeEnds(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("unix", w.socket+"2")
	if err != nil {
		t.Fatal(err)
	}
	w.socket += "2"
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, l) }()

	conn, _, err := w.dial("/1.0/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	type answer struct {
		status int
		err    error
	}
	ready := make(chan answer, 1)
	started := make(chan struct{})
	go func() {
		close(started)
		resp, err := w.client.Get("http://croft/internal/ready")
		if err != nil {
			ready <- answer{err: err}
			return
		}
		resp.Body.Close()
		ready <- answer{status: resp.StatusCode}
	}()
	<-started
	cancel()
	select {
	case a := <-ready: // an error if the request had not reached the server yet
		if a.err == nil && a.status != http.StatusServiceUnavailable {
			t.Errorf("ready: got %d, want 503", a.status)
		}
	case <-time.After(patience):
		t.Error("the long poll did not end")
	}
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(patience):
		t.Error("Serve did not end")
	}
	readCtx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	_, _, err = conn.Read(readCtx)
	if websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("event stream: got %v, want status going away", err)
	}
}

func TestReady(t *testing.T) {
	w := newWorld(t)
	close(w.ready)
	if resp, _ := w.do(http.MethodGet, "/internal/ready", nil, nil); resp.StatusCode != 200 {
		t.Errorf("got %d, want 200", resp.StatusCode)
	}
}

func TestShutdown(t *testing.T) {
	w := newWorld(t)
	if resp, _ := w.do(http.MethodPut, "/internal/shutdown?force=true", nil, nil); resp.StatusCode != 200 {
		t.Errorf("got %d, want 200", resp.StatusCode)
	}
	if w.forced == nil || !*w.forced {
		t.Error("Shutdown was not called with force")
	}
}

// The kernel tells who is at the other end of the socket.
func TestPeerIdentity(t *testing.T) {
	var got auth.Identity
	w := newWorld(t, func(d *Deps) {
		d.Environment = func(ctx context.Context) (api.ServerEnvironment, error) {
			got = auth.From(ctx)
			return api.ServerEnvironment{}, nil
		}
	})
	if resp, body := w.do(http.MethodGet, "/1.0", nil, nil); resp.StatusCode != 200 || !bytes.Contains(body, []byte(`"auth":"trusted"`)) {
		t.Fatalf("got %d %s", resp.StatusCode, body)
	}
	if !got.Trusted() || int(got.UID) != os.Getuid() || got.Username == "" {
		t.Errorf("got %+v, want user %d", got, os.Getuid())
	}
}

func TestServerInfo(t *testing.T) {
	w := newWorld(t, func(d *Deps) { d.Product = "Croft/1.2" })
	resp, raw := w.do(http.MethodGet, "/1.0?project=default", nil, nil)
	var answer struct{ Metadata api.Server }
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatal(err)
	}
	m := answer.Metadata
	if m.APIStatus != "stable" || m.APIVersion != "1.0" || m.Public || m.Environment.Project != "default" ||
		m.Environment.Server != "lxd" || m.Config["user.a"] != "1" || !slices.Equal(m.APIExtensions, apiExtensions) {
		t.Errorf("got %+v", m)
	}
	if resp.Header.Get("ETag") != `"7"` || resp.Header.Get("Server") != "Croft/1.2" {
		t.Errorf("headers: got %v", resp.Header)
	}
}

func TestPutFile(t *testing.T) {
	w := newWorld(t)
	h := http.Header{}
	for k, v := range map[string]string{"X-LXD-uid": "1000", "X-LXD-gid": "100", "X-LXD-mode": "04755", "X-LXD-write": "append"} {
		h.Set(k, v)
	}
	if resp, raw := w.do(http.MethodPost, "/1.0/instances/c1/files?path=/x", h, strings.NewReader("content")); resp.StatusCode != 200 {
		t.Fatalf("got %d %s", resp.StatusCode, raw)
	}
	w.mu.Lock()
	got := w.written
	w.mu.Unlock()
	if got.Type != "file" || got.UID != 1000 || got.GID != 100 || got.Mode != 0o4755 || !got.Append || string(w.content) != "content" {
		t.Errorf("got %+v with %q", got, w.content)
	}
	if resp, raw := w.do(http.MethodPost, "/1.0/instances/c1/files?path=/x", nil, strings.NewReader("")); resp.StatusCode != 200 {
		t.Fatalf("got %d %s", resp.StatusCode, raw)
	}
	if got := w.written; got.UID != -1 || got.GID != -1 || got.Mode != -1 || got.Append {
		t.Errorf("without headers: got %+v", got)
	}
	for target, status := range map[string]int{"/etc/hosts": 200, "": 400, "a\x00b": 400, strings.Repeat("x", maxPath): 400} {
		resp, _ := w.do(http.MethodPost, "/1.0/instances/c1/files?path=/l", http.Header{"X-Lxd-Type": {"symlink"}}, strings.NewReader(target))
		if resp.StatusCode != status {
			t.Errorf("symlink to %.20q: got %d, want %d", target, resp.StatusCode, status)
		}
		if status == 200 && w.written.Target != target {
			t.Errorf("symlink: got %+v", w.written)
		}
	}
}

// A file that shrinks while it is sent must not look whole to the client.
func TestShrinkingFile(t *testing.T) {
	w := newWorld(t)
	resp, err := w.client.Get("http://croft/1.0/instances/c1/files?path=/shrinks")
	if err != nil {
		return // nothing had been sent yet
	}
	defer resp.Body.Close()
	if raw, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("got %q without an error", raw)
	}
}

// form gives the body of a multipart upload and its content type.
func form(t *testing.T, parts ...[3]string) (string, string) {
	t.Helper()
	var b bytes.Buffer
	mw := multipart.NewWriter(&b)
	for _, p := range parts {
		f, err := mw.CreateFormFile(p[0], p[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, p[2]); err != nil {
			t.Fatal(err)
		}
	}
	if err := mw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), mw.FormDataContentType()
}

func TestUploads(t *testing.T) {
	w := newWorld(t)
	meta, root := [3]string{"metadata", "meta.tar", "M"}, [3]string{"rootfs", "root.squashfs", "R"}
	for name, c := range map[string]struct {
		parts [][3]string
		want  int
		files []string
	}{
		"metadata first":   {[][3]string{meta, root}, 202, []string{"M", "R"}},
		"rootfs first":     {[][3]string{root, meta}, 202, []string{"M", "R"}},
		"metadata only":    {[][3]string{meta}, 400, nil},
		"rootfs only":      {[][3]string{root}, 400, nil},
		"twice":            {[][3]string{meta, meta}, 400, nil},
		"another":          {[][3]string{meta, root, {"secret", "x", "y"}}, 400, nil},
		"empty":            {[][3]string{meta, {"rootfs", "r", ""}}, 400, nil},
		"virtual machine":  {[][3]string{meta, {"rootfs.img", "r", "x"}}, 400, nil},
		"evil file name":   {[][3]string{meta, {"rootfs", "../../evil", "R"}}, 202, []string{"M", "R"}},
		"no parts at all":  {nil, 400, nil},
		"unnamed rootfs":   {[][3]string{meta, {"rootfs", "", "R"}}, 202, []string{"M", "R"}},
		"control in names": {[][3]string{meta, {"rootfs", "a\x01b", "R"}}, 400, nil},
	} {
		body, kind := form(t, c.parts...)
		w.uploads = nil
		h := http.Header{"Content-Type": {kind}}
		h.Set("X-LXD-filename", "meta.tar")
		resp, raw := w.do(http.MethodPost, "/1.0/images", h, strings.NewReader(body))
		if resp.StatusCode != c.want {
			t.Errorf("%s: got %d %s, want %d", name, resp.StatusCode, raw, c.want)
			continue
		}
		var got []string
		for _, f := range w.files {
			got = append(got, string(f))
		}
		if c.want == 202 && !slices.Equal(got, c.files) {
			t.Errorf("%s: got files %q, want %q", name, got, c.files)
		}
		if c.want == 202 && strings.ContainsAny(w.uploads[0].Filename, "/\x01") {
			t.Errorf("%s: file is called %q", name, w.uploads[0].Filename)
		}
		assertEmpty(t, name, w.dir)
	}
}

func assertEmpty(t *testing.T, name, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%s: left behind: %v %v", name, left, err)
	}
}

func TestUploadHeaders(t *testing.T) {
	w := newWorld(t)
	h := http.Header{}
	for k, v := range map[string]string{
		"X-LXD-filename": "/tmp/up.tar.gz", "X-LXD-public": "1", "X-LXD-properties": "os=Debian&name=a%20b", "X-LXD-fingerprint": "ABC",
	} {
		h.Set(k, v)
	}
	if resp, raw := w.do(http.MethodPost, "/1.0/images", h, strings.NewReader("tar")); resp.StatusCode != 202 {
		t.Fatalf("got %d %s", resp.StatusCode, raw)
	}
	got := w.uploads[0]
	got.Files = nil
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", catalog.Upload{
		Filename: "up.tar.gz", Public: true, Properties: map[string]string{"os": "Debian", "name": "a b"}, Fingerprint: "abc",
	}) {
		t.Errorf("got %+v", got)
	}
}

// 96 MiB go to disk, not to memory.
func TestBigUpload(t *testing.T) {
	w := newWorld(t)
	const size = 48 << 20
	pr, pw := io.Pipe()
	mw := multipart.NewWriter(pw)
	go func() {
		for _, part := range []string{partMetadata, partRootfs} {
			f, err := mw.CreateFormFile(part, part)
			if err == nil {
				_, err = io.Copy(f, &repeat{n: size, b: 'x'})
			}
			if err != nil {
				pw.CloseWithError(err)
				return
			}
		}
		pw.CloseWithError(mw.Close())
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	resp, raw := w.do(http.MethodPost, "/1.0/images", http.Header{"Content-Type": {mw.FormDataContentType()}}, pr)
	runtime.ReadMemStats(&after)
	if resp.StatusCode != 202 {
		t.Fatalf("got %d %s", resp.StatusCode, raw)
	}
	if grown := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && grown > 32<<20 {
		t.Errorf("heap grew by %d MiB", grown>>20)
	}
	assertEmpty(t, "upload", w.dir)
}

// A client that hangs up in the middle leaves no file.
func TestAbortedUpload(t *testing.T) {
	w := newWorld(t)
	conn, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /1.0/images HTTP/1.1\r\nHost: croft\r\nContent-Length: 1000000\r\n\r\nbegin"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the upload to begin", func() bool {
		left, _ := os.ReadDir(w.dir)
		return len(left) == 1
	})
	conn.Close()
	waitFor(t, "the upload to be removed", func() bool {
		left, _ := os.ReadDir(w.dir)
		return len(left) == 0
	})
	if len(w.uploads) > 0 {
		t.Errorf("imported: %+v", w.uploads)
	}
}

// waitFor polls a condition that another process or connection brings about.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-end:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func TestSplitExport(t *testing.T) {
	w := newWorld(t)
	w.split = true
	resp, raw := w.do(http.MethodGet, "/1.0/images/b58/export", nil, nil)
	if resp.ContentLength != int64(len(raw)) {
		t.Errorf("Content-Length is %d for %d bytes", resp.ContentLength, len(raw))
	}
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		t.Fatalf("content type %q: %v", kind, err)
	}
	mr := multipart.NewReader(bytes.NewReader(raw), params["boundary"])
	for _, want := range [][3]string{
		{"metadata", "meta-" + testFingerprint + ".tar.gz", "the metadata"},
		{"rootfs", testFingerprint + ".squashfs", strings.Repeat("root", 100)},
	} {
		p, err := mr.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(p)
		if got := [3]string{p.FormName(), p.FileName(), string(content)}; err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if _, err := mr.NextPart(); !errors.Is(err, io.EOF) {
		t.Errorf("after the parts: %v", err)
	}
}

// Requests that are not even HTTP do no harm.
func TestRawRequests(t *testing.T) {
	w := newWorld(t)
	for _, raw := range []string{
		"GET /1.0/profiles/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://other/1.0 HTTP/1.1\r\nHost: x\r\n\r\n",
		"nonsense\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		conn, err := net.Dial("unix", w.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, raw); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
		conn.Close()
	}
	if resp, _ := w.do(http.MethodGet, "/", nil, nil); resp.StatusCode != 200 {
		t.Errorf("afterwards: got %d", resp.StatusCode)
	}
}
