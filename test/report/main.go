// Report reads the output of `go test -json` on standard input, shows the
// failures in full, and ends with the counts of all tests. It exits with 1 when
// something failed or nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64

	ImportPath string // of a build failure
}

type report struct {
	out                     io.Writer
	passed, failed, skipped int
	brokenPackages          int
	output                  map[string][]string // by package and test
}

func main() {
	r := &report{out: os.Stdout, output: map[string][]string{}}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed+r.brokenPackages, r.skipped)
	if r.failed+r.brokenPackages > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, lines.Text()) // a message of the go command itself
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e, key)
		}
		delete(r.output, key)
	}
}

func (r *report) endTest(e event, key string) {
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped++
		fmt.Fprintf(r.out, "SKIP %s\n%s", key, strings.Join(r.output[key], ""))
	case "fail":
		r.failed++
		fmt.Fprintf(r.out, "FAIL %s\n%s", key, strings.Join(r.output[key], ""))
	}
}

func (r *report) endPackage(e event) {
	if e.Action == "fail" {
		// Either its tests have been shown, or it did not build, panicked or timed
		// out; then this is all there is to see.
		r.brokenPackages++
		fmt.Fprintf(r.out, "FAIL %s (%.1f s)\n%s", e.Package, e.Elapsed, strings.Join(r.output[e.Package+" "], ""))
		return
	}
	if e.Action == "pass" {
		fmt.Fprintf(r.out, "ok   %s (%.1f s)\n", e.Package, e.Elapsed)
	}
}
