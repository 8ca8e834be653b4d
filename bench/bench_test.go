//go:build linux

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

func TestMedianAndPercentile(t *testing.T) {
	for _, tc := range []struct {
		name        string
		samples     []float64
		median, p95 float64
	}{
		{"none", nil, 0, 0},
		{"one", []float64{7}, 7, 7},
		{"odd, unsorted", []float64{9, 1, 5}, 5, 9},
		{"even", []float64{4, 1, 3, 2}, 2.5, 4},
		{"twenty", []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, 10.5, 19},
	} {
		before := slices.Clone(tc.samples)
		if got := median(tc.samples); got != tc.median {
			t.Errorf("%s: median = %v, want %v", tc.name, got, tc.median)
		}
		if got := percentile(tc.samples, 95); got != tc.p95 {
			t.Errorf("%s: p95 = %v, want %v", tc.name, got, tc.p95)
		}
		if !slices.Equal(before, tc.samples) {
			t.Errorf("%s: the samples were reordered", tc.name)
		}
	}
}

func TestRotate(t *testing.T) {
	for by, want := range []string{"abc", "bca", "cab", "abc"} {
		if got := strings.Join(rotate([]string{"a", "b", "c"}, by), ""); got != want {
			t.Errorf("rotate by %d = %s, want %s", by, got, want)
		}
	}
	if got := rotate([]int(nil), 3); got != nil {
		t.Errorf("rotate of nothing = %v", got)
	}
}

func TestParseStat(t *testing.T) {
	for _, tc := range []struct {
		line      string
		pid, ppid int
		ok        bool
	}{
		{"42 (lxd) S 7 42 42 0 -1", 42, 7, true},
		{"42 (a ) S 9 (b) S 7 42", 42, 7, true}, // a name chosen to mislead
		{"42 lxd S 7", 0, 0, false},
		{"", 0, 0, false},
		{"42 (lxd)", 0, 0, false},
	} {
		pid, ppid, ok := parseStat([]byte(tc.line))
		if ok != tc.ok || ok && (pid != tc.pid || ppid != tc.ppid) {
			t.Errorf("parseStat(%q) = %d, %d, %v", tc.line, pid, ppid, ok)
		}
	}
}

func TestTopMounts(t *testing.T) {
	info := `22 1 0:21 / /sys rw - sysfs sysfs rw
23 22 0:7 / /sys/kernel/security rw - securityfs securityfs rw
24 22 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw
26 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
27 1 0:30 / /system rw - tmpfs tmpfs rw
broken
`
	want := []string{"/sys/kernel/security", "/sys/fs/cgroup"}
	if got := topMounts(info, "/sys"); !slices.Equal(got, want) {
		t.Errorf("topMounts = %v, want %v", got, want)
	}
}

func TestCheckList(t *testing.T) {
	const a = `{"name":"p-a","status":"Running","state":{"pid":7,"network":{"lo":{}}}}`
	for _, tc := range []struct {
		name, list string
		state      bool
		want       string // part of the error, "" for none
	}{
		{"complete", a + `,{"name":"p-b","status":"Running","state":{"pid":8,"network":{"eth0":{}}}}`, true, ""},
		{"others do not count", a + `,{"name":"x","status":"Running"}`, false, "1 running"},
		{"stopped", a + `,{"name":"p-b","status":"Stopped"}`, false, "1 running"},
		{"no state asked for", a + `,{"name":"p-b","status":"Running"}`, false, ""},
		{"no state", a + `,{"name":"p-b","status":"Running"}`, true, "p-b has no state"},
		{"no pid", a + `,{"name":"p-b","status":"Running","state":{"network":{"lo":{}}}}`, true, "p-b has no state"},
	} {
		err := checkList([]byte(`{"metadata":[`+tc.list+`]}`), "p-", 2, tc.state)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	if checkList([]byte("{"), "p-", 0, false) == nil {
		t.Error("broken JSON was accepted")
	}
}

func TestSelectRows(t *testing.T) {
	if got := len(selectRows(options{})); got != len(allRows()) {
		t.Errorf("without --only %d rows instead of %d", got, len(allRows()))
	}
	rows := selectRows(options{only: "^(start|memory)$"})
	if len(rows) != 2 || rows[0].id != "start" || rows[1].id != "memory" {
		t.Errorf("--only selected %v", rows)
	}
}

func TestRowsHaveGroupsAndBudgets(t *testing.T) {
	known := map[string]bool{}
	for _, g := range groups() {
		known[g.name] = true
	}
	seen := map[string]bool{}
	for _, r := range allRows() {
		if !known[r.group] {
			t.Errorf("row %s: no group %s", r.id, r.group)
		}
		if seen[r.id] {
			t.Errorf("row %s appears twice", r.id)
		}
		seen[r.id] = true
		if r.aim <= 0 || r.aim >= r.budget {
			t.Errorf("row %s: aim %v, budget %v", r.id, r.aim, r.budget)
		}
	}
}

func TestVerdicts(t *testing.T) {
	b := &bench{
		targets: []*target{
			{kind: kind{name: "lxd"}, label: "LXD"}, {kind: kind{name: "incus"}, label: "Incus"},
			{kind: kind{name: "croft"}, label: "Croft"}, {kind: kind{name: "croft"}, label: "Croft dir"},
		},
		samples: map[string]map[string][]float64{
			"start":      {"LXD": {200}, "Incus": {100, 100}, "Croft": {30}, "Croft dir": {1}},
			"exec-true":  {"LXD": {40}, "Croft": {40}},
			"stop-force": {"LXD": {700}, "Croft": {20}},
			"memory":     {"LXD": {11}, "Croft": {0.7}},
			"delete":     {"Croft": {5}},
			"copy":       {"LXD": {50}},
		},
		na: map[string]map[string]string{"snapshot": {"Croft": "not implemented"}},
	}
	want := map[string]string{"start": "met", "exec-true": "missed", "stop-force": "met, aim too", "memory": "met",
		"delete": "–", "copy": "–", "snapshot": "n/a"}
	for _, r := range allRows() {
		w, ok := want[r.id]
		if !ok {
			continue
		}
		res := b.result(r)
		if res.Verdict != w {
			t.Errorf("%s: verdict %q, want %q", r.id, res.Verdict, w)
		}
		if r.id == "start" && (res.Best != 100 || res.Ratio != 0.3) {
			t.Errorf("start: best %v, ratio %v", res.Best, res.Ratio)
		}
	}
}

func TestReportTexts(t *testing.T) {
	r := &report{
		Date: "2026-01-02T03:04:05Z", Options: map[string]string{"n": "15", "rounds": "3", "count": "100"},
		Daemons: []daemonInfo{{"LXD", "5.0.2", "btrfs"}, {"Croft", "0.1", "overlay"}},
		Rows: []rowResult{
			{Title: "start", Unit: "ms", Budget: 0.4, Aim: 0.25, Ratio: 0.0512, Verdict: "met, aim too",
				Values: map[string]*summary{"LXD": {Median: 171.4, P95: 194}, "Croft": {Median: 8.78, P95: 12.34}}},
			{Title: "snapshot", Unit: "ms", Budget: 0.7, Aim: 0.5, Verdict: "n/a",
				Values: map[string]*summary{"LXD": {Median: 43}, "Croft": {Unavailable: "not yet"}}},
			{Title: "memory", Unit: "MiB", Budget: 1, Aim: 0.5, Absolute: true, Verdict: "–", Values: map[string]*summary{}},
		},
		Notes: []string{"a note"}, Failures: []string{"a failure"},
	}
	for _, want := range []string{"LXD 5.0.2", "171 ms", "8.78 ms", "0.051", "≤ 0.40", "n/a", "≤ 1 MiB", "note: a note", "FAILED: a failure"} {
		if !strings.Contains(r.text(), want) {
			t.Errorf("the text lacks %q:\n%s", want, r.text())
		}
	}
	md := r.markdown()
	if !strings.Contains(md, "| start | 171 (194) ms | 8.78 (12.3) ms | 0.051 | ≤ 0.40 | 0.25 | met, aim too |\n") {
		t.Errorf("markdown row differs:\n%s", md)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"latest.json", "latest.md"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Size() == 0 {
			t.Errorf("%s was not written: %v", f, err)
		}
	}
}

func TestEach(t *testing.T) {
	var now, most, done atomic.Int32
	err := each(t.Context(), 4, 50, func(context.Context, int) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		done.Add(1)
		now.Add(-1)
		return nil
	})
	if err != nil || done.Load() != 50 || most.Load() > 4 {
		t.Errorf("each: %v, %d done, %d at once", err, done.Load(), most.Load())
	}
	boom := errors.New("boom")
	if err := each(t.Context(), 2, 50, func(_ context.Context, i int) error {
		if i == 3 {
			return boom
		}
		return nil
	}); !errors.Is(err, boom) {
		t.Errorf("each: got %v", err)
	}
}

func TestTarballIsReproducible(t *testing.T) {
	build := func(path string) []byte {
		w := newTarball()
		w.metadata("Test")
		w.dir("rootfs")
		w.link("rootfs/sh", "busybox")
		if err := w.write(path); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	dir := t.TempDir()
	if a, b := build(filepath.Join(dir, "a")), build(filepath.Join(dir, "b")); !slices.Equal(a, b) {
		t.Error("the same content gave different bytes")
	}
	f, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	want := []string{"metadata.yaml", "templates/", "templates/hostname.tpl", "rootfs/", "rootfs/sh"}
	if !slices.Equal(names, want) {
		t.Errorf("entries %v, want %v", names, want)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"--n", "0"}, {"--only", "("}, {"extra"}, {"--debian-meta", "x"}, {"--nonsense"}} {
		if _, err := parseFlags(args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	o, err := parseFlags(nil)
	if err != nil || o.n != 15 || o.count != 100 || o.drivers != "btrfs" {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	if _, _, err := chooseTargets(options{daemons: "docker"}, &host{}); err == nil {
		t.Error("an unknown daemon was accepted")
	}
}
