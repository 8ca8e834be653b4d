package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the answers in testdata/golden")

// TestGolden replays the requests of testdata/golden/*.http and compares the
// answers with those in the file. A request is
//
//	> METHOD PATH
//	>H Header: value
//	>B body
//
// and what follows up to the next request is the answer: status, the headers
// that matter, the body. OP in a path stands for the operation that the last
// answer named. Lines that begin with # are comments.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			w.split = strings.Contains(file, "split")
			got := replay(w, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compareLines(t, string(want), got)
		})
	}
}

func compareLines(t *testing.T, want, got string) {
	t.Helper()
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	request := ""
	for i := range max(len(a), len(b)) {
		x, y := "<end>", "<end>"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if strings.HasPrefix(x, "> ") {
			request = x
		}
		if x != y {
			t.Errorf("line %d, %s\nwant %s\n got %s", i+1, request, x, y)
			return
		}
	}
}

// replay sends the requests of script and gives the script with fresh answers.
func replay(w *world, script string) string {
	var out strings.Builder
	var method, path, body string
	header := http.Header{}
	lastOp := ""
	flush := func() {
		if method == "" {
			return
		}
		resp, raw := w.do(method, strings.ReplaceAll(path, "OP", lastOp), header, strings.NewReader(body))
		if op := resp.Header.Get("Location"); strings.HasPrefix(op, "/1.0/operations/") {
			lastOp = op
			awaitOp(w, op)
		}
		out.WriteString(showAnswer(resp, raw))
		method, body, header = "", "", http.Header{}
	}
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "> "):
			flush()
			method, path, _ = strings.Cut(line[2:], " ")
		case strings.HasPrefix(line, ">H "):
			k, v, _ := strings.Cut(line[3:], ": ")
			header.Add(k, v)
		case strings.HasPrefix(line, ">B "):
			body += line[3:]
		case strings.HasPrefix(line, "#"):
			flush()
		default:
			continue // an old answer
		}
		out.WriteString(line + "\n")
	}
	flush()
	return out.String()
}

// awaitOp waits for the end of an operation that ends by itself, so that later
// answers do not depend on how fast it is.
func awaitOp(w *world, path string) {
	op, err := w.ops.Get(strings.TrimPrefix(path, "/1.0/operations/"))
	if err == nil && op.API().Class == "task" {
		<-op.Done()
	}
}

var (
	uuidText     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	boundaryText = regexp.MustCompile(`[0-9a-f]{60}`)
	runningText  = regexp.MustCompile(`"status":"(Running|Success)","status_code":(103|200),"resources"`)
)

func showAnswer(resp *http.Response, raw []byte) string {
	var out strings.Builder
	fmt.Fprintln(&out, resp.StatusCode)
	var names []string
	for k := range resp.Header {
		if k != "Date" && k != "Content-Length" && k != "Last-Modified" {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names {
		fmt.Fprintf(&out, "%s: %s\n", k, strings.Join(resp.Header[k], "|"))
	}
	text := string(raw)
	if resp.Header.Get("Content-Type") == "application/json" && len(raw) > 0 {
		if !json.Valid(raw) || !bytes.HasSuffix(raw, []byte("}\n")) {
			text += "<not one line of JSON>\n"
		}
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "<no newline>\n"
	}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		out.WriteString("  " + strings.TrimSuffix(line, "\r") + "\n")
	}
	s := uuidText.ReplaceAllString(out.String(), "UUID")
	s = boundaryText.ReplaceAllString(s, "BOUNDARY")
	return runningText.ReplaceAllString(s, `"status":"STATUS","status_code":0,"resources"`)
}
