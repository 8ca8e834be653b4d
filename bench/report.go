//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report is the result of a run; its JSON form is latest.json.
type report struct {
	Date     string            `json:"date"`
	Host     hostInfo          `json:"host"`
	Options  map[string]string `json:"options"`
	Daemons  []daemonInfo      `json:"daemons"`
	Images   map[string]string `json:"images"` // alias to SHA-256
	Rows     []rowResult       `json:"rows"`
	Notes    []string          `json:"notes,omitempty"`
	Failures []string          `json:"failures,omitempty"`
}

type hostInfo struct {
	OS        string  `json:"os"`
	Kernel    string  `json:"kernel"`
	CPU       string  `json:"cpu"`
	CPUs      int     `json:"cpus"`
	MemoryGiB float64 `json:"memory_gib"`
	LoadAvg   string  `json:"load_average_at_end"`
}

type daemonInfo struct {
	Label   string `json:"label"`
	Version string `json:"version"`
	Driver  string `json:"driver"`
}

type rowResult struct {
	ID       string              `json:"id"`
	Title    string              `json:"title"`
	Unit     string              `json:"unit"`
	Budget   float64             `json:"budget"`
	Aim      float64             `json:"aim"`
	Absolute bool                `json:"absolute,omitempty"`
	Values   map[string]*summary `json:"values"` // by daemon label
	Best     float64             `json:"best_reference,omitempty"`
	Ratio    float64             `json:"ratio,omitempty"` // Croft's median over the better reference's
	Verdict  string              `json:"verdict"`
}

type summary struct {
	Median      float64   `json:"median"`
	P95         float64   `json:"p95"`
	Samples     []float64 `json:"samples,omitempty"`
	Unavailable string    `json:"unavailable,omitempty"`
}

func (b *bench) report() *report {
	r := &report{
		Date: time.Now().UTC().Format(time.RFC3339), Host: describeHost(), Images: map[string]string{},
		Options: map[string]string{
			"n": fmt.Sprint(b.o.n), "rounds": fmt.Sprint(b.o.rounds), "count": fmt.Sprint(b.o.count),
			"parallel": fmt.Sprint(b.o.parallel), "gets": fmt.Sprint(b.o.gets), "only": b.o.only,
		},
		Notes: b.notes, Failures: b.failures,
	}
	if b.o.count != 100 || b.o.parallel != 4 {
		r.Notes = append(r.Notes, fmt.Sprintf("the rows for 100 containers were measured with %d, %d at a time", b.o.count, b.o.parallel))
	}
	for _, t := range b.targets {
		r.Daemons = append(r.Daemons, daemonInfo{t.label, t.version, t.driver})
	}
	for _, i := range b.images {
		sum, err := i.fingerprint()
		if err != nil {
			sum = err.Error()
		}
		r.Images[i.alias] = sum
	}
	for _, row := range b.rows {
		r.Rows = append(r.Rows, b.result(row))
	}
	return r
}

// result summarises one row. The ratio is that of the first Croft target to the better of all the others.
func (b *bench) result(row row) rowResult {
	res := rowResult{ID: row.id, Title: row.title, Unit: row.unit, Budget: row.budget, Aim: row.aim,
		Absolute: row.absolute, Values: map[string]*summary{}, Verdict: "–"}
	best, croft := math.Inf(1), math.NaN()
	for _, t := range b.targets {
		samples := b.samples[row.id][t.label]
		if len(samples) == 0 {
			if why := b.na[row.id][t.label]; why != "" {
				res.Values[t.label] = &summary{Unavailable: why}
				if t.label == "Croft" {
					res.Verdict = "n/a"
				}
			}
			continue
		}
		s := &summary{Median: median(samples), P95: percentile(samples, 95), Samples: samples}
		res.Values[t.label] = s
		switch {
		case t.label == "Croft":
			croft = s.Median
		case t.name != "croft":
			best = min(best, s.Median)
		}
	}
	if !math.IsInf(best, 1) {
		res.Best = best
	}
	if math.IsNaN(croft) {
		return res
	}
	compared := croft
	if res.Best > 0 {
		res.Ratio = croft / best
	}
	if !row.absolute {
		if res.Best == 0 {
			return res
		}
		compared = res.Ratio
	}
	res.Verdict = verdict(compared, row.budget, row.aim)
	return res
}

func verdict(value, budget, aim float64) string {
	switch {
	case value <= aim:
		return "met, aim too"
	case value <= budget:
		return "met"
	default:
		return "missed"
	}
}

// cells is the table: a heading and one line per row, as text.
func (r *report) cells(p95 bool) [][]string {
	head := []string{"operation"}
	for _, d := range r.Daemons {
		head = append(head, strings.TrimSpace(d.Label+" "+d.Version))
	}
	table := [][]string{append(head, "ratio", "budget", "aim", "verdict")}
	for _, row := range r.Rows {
		line := []string{row.Title}
		for _, d := range r.Daemons {
			line = append(line, cell(row.Values[d.Label], row.Unit, p95))
		}
		ratio, budget, aim := "–", fmt.Sprintf("≤ %.2f", row.Budget), fmt.Sprintf("%.2f", row.Aim)
		if row.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", row.Ratio)
			if row.Ratio < 0.1 {
				ratio = fmt.Sprintf("%.3f", row.Ratio)
			}
		}
		if row.Absolute {
			budget, aim = fmt.Sprintf("≤ %g %s", row.Budget, row.Unit), fmt.Sprintf("%g %s", row.Aim, row.Unit)
		}
		table = append(table, append(line, ratio, budget, aim, row.Verdict))
	}
	return table
}

func cell(s *summary, unit string, p95 bool) string {
	switch {
	case s == nil:
		return "–"
	case s.Unavailable != "":
		return "n/a"
	case p95:
		return fmt.Sprintf("%s (%s) %s", number(s.Median), number(s.P95), unit)
	default:
		return number(s.Median) + " " + unit
	}
}

// number prints three significant digits, and whole numbers from 100 on.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func (r *report) text() string {
	var sb strings.Builder
	w := tabwriter.NewWriter(&sb, 0, 0, 2, ' ', 0)
	for _, line := range r.cells(false) {
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	_ = w.Flush() // a strings.Builder does not fail
	fmt.Fprintln(&sb)
	for _, n := range r.Notes {
		fmt.Fprintln(&sb, "note:", n)
	}
	for _, f := range r.Failures {
		fmt.Fprintln(&sb, "FAILED:", f)
	}
	return sb.String()
}

func (r *report) markdown() string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "# Side by side, %s\n\nMedian (95th percentile). %s, kernel %s, %d × %s, %.0f GiB; load average at the end %s.\n",
		r.Date[:10], r.Host.OS, r.Host.Kernel, r.Host.CPUs, r.Host.CPU, r.Host.MemoryGiB, r.Host.LoadAvg)
	fmt.Fprintf(&sb, "Single operations %s times, rows with %s containers %s times. The ratio is Croft's median over the better of the others.\n\n",
		r.Options["n"], r.Options["count"], r.Options["rounds"])
	for i, line := range r.cells(true) {
		fmt.Fprintf(&sb, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(&sb, "|%s\n", strings.Repeat("---|", len(line)))
		}
	}
	fmt.Fprintln(&sb)
	for _, d := range r.Daemons {
		fmt.Fprintf(&sb, "- %s on %s\n", strings.TrimSpace(d.Label+" "+d.Version), d.Driver)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&sb, "- %s\n", n)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&sb, "- failed: %s\n", f)
	}
	return sb.String()
}

// write puts latest.json and latest.md into the directory, if there is one.
func (r *report) write(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "latest.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "latest.md"), []byte(r.markdown()), 0o644)
}

// describeHost says what the numbers were measured on. What cannot be read stays empty.
func describeHost() hostInfo {
	h := hostInfo{CPUs: runtime.NumCPU(), OS: fileValue("/etc/os-release", "PRETTY_NAME="), CPU: fileValue("/proc/cpuinfo", "model name")}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if kib, err := procField("/proc/meminfo", "MemTotal:"); err == nil {
		h.MemoryGiB = math.Round(kib/1024/1024*10) / 10
	}
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		h.LoadAvg = strings.Join(strings.Fields(string(data))[:3], " ")
	}
	return h
}

// fileValue returns what follows a label at the beginning of a line, without quotes, colons and spaces around it.
func fileValue(path, label string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, label); ok {
			return strings.Trim(rest, " \t:\"\n")
		}
	}
	return ""
}
