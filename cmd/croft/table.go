package main

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"sort"
	"strings"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
)

// The formats of lists.
const (
	formatTable   = "table"
	formatCompact = "compact"
	formatCSV     = "csv"
	formatJSON    = "json"
	formatYAML    = "yaml"
)

// formatFlag adds --format to a command that prints a list.
func formatFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "format", "f", formatTable, "format: csv, json, table, yaml or compact")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(
		[]string{formatTable, formatCompact, formatCSV, formatJSON, formatYAML}, cobra.ShellCompDirectiveNoFileComp))
}

// checkFormat refuses an unknown format before anything is asked of the server.
func checkFormat(format string) error {
	switch format {
	case formatTable, formatCompact, formatCSV, formatJSON, formatYAML:
		return nil
	}
	return api.Errorf(api.Invalid, "unknown format %q: csv, json, table, yaml and compact are possible", format)
}

// table is a list in all its formats: rows for people and csv, data for
// programs.
type table struct {
	header []string
	rows   [][]string
	data   any // what json and yaml show
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// render prints t, its rows in natural order.
func (g *global) render(format string, t table) error {
	if err := checkFormat(format); err != nil {
		return err
	}
	sort.SliceStable(t.rows, func(i, j int) bool { return lessRow(t.rows[i], t.rows[j]) })
	switch format {
	case formatCSV:
		return csv.NewWriter(g.stdout).WriteAll(t.rows)
	case formatJSON:
		return json.NewEncoder(g.stdout).Encode(t.data)
	case formatYAML:
		return g.printYAML(t.data)
	case formatCompact:
		_, err := io.WriteString(g.stdout, t.compact())
		return err
	}
	_, err := io.WriteString(g.stdout, t.bordered())
	return err
}

// printYAML prints v as LXD's client does.
func (g *global) printYAML(v any) error {
	raw, err := yamlBytes(v)
	if err != nil {
		return err
	}
	_, err = g.stdout.Write(raw)
	return err
}

// yamlBytes encodes v with two columns of indent and lists that are not set in.
func yamlBytes(v any) ([]byte, error) {
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	if err := enc.Encode(v); err != nil {
		return nil, api.Errorf(api.Internal, "cannot print as YAML: %w", err)
	}
	return []byte(b.String()), enc.Close()
}

// widths is the width of each column in terminal cells.
func (t *table) widths() []int {
	w := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			for _, line := range strings.Split(cell, "\n") {
				w[i] = max(w[i], runewidth.StringWidth(line))
			}
		}
	}
	return w
}

func (t *table) bordered() string {
	var b strings.Builder
	w := t.widths()
	rule := "+"
	for _, n := range w {
		rule += strings.Repeat("-", n+2) + "+"
	}
	b.WriteString(rule + "\n|")
	for i, h := range t.header {
		b.WriteString(" " + center(h, w[i]) + " |")
	}
	b.WriteString("\n" + rule + "\n")
	for _, row := range t.rows {
		for _, line := range rowLines(row) {
			b.WriteString("|")
			for i, cell := range line {
				b.WriteString(" " + pad(cell, w[i]) + " |")
			}
			b.WriteString("\n")
		}
		b.WriteString(rule + "\n")
	}
	return b.String()
}

func (t *table) compact() string {
	var b strings.Builder
	w := t.widths()
	b.WriteString("  ")
	for i, h := range t.header {
		b.WriteString(center(h, w[i]) + "  ")
	}
	b.WriteString("\n")
	for _, row := range t.rows {
		for _, line := range rowLines(row) {
			b.WriteString("  ")
			for i, cell := range line {
				b.WriteString(pad(cell, w[i]) + "  ")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// rowLines spreads a row whose cells have several lines.
func rowLines(row []string) [][]string {
	n := 1
	for _, cell := range row {
		n = max(n, 1+strings.Count(cell, "\n"))
	}
	lines := make([][]string, n)
	for i := range lines {
		lines[i] = make([]string, len(row))
	}
	for c, cell := range row {
		for i, part := range strings.Split(cell, "\n") {
			lines[i][c] = part
		}
	}
	return lines
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-runewidth.StringWidth(s)))
}

func center(s string, width int) string {
	left := max(0, width-runewidth.StringWidth(s)) / 2
	return pad(strings.Repeat(" ", left)+s, width)
}

// lessRow compares rows cell by cell; an empty cell comes last.
func lessRow(a, b []string) bool {
	for i := range a {
		if i >= len(b) || a[i] == b[i] {
			continue
		}
		if a[i] == "" || b[i] == "" {
			return b[i] == ""
		}
		return naturalLess(a[i], b[i])
	}
	return false
}

// naturalLess orders strings as people count: c2 before c10.
func naturalLess(a, b string) bool {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if len(x) != len(y) {
				return len(x) < len(y)
			}
			if x != y {
				return x < y
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return a[0] < b[0]
		}
		a, b = a[1:], b[1:]
	}
	return a == "" && b != ""
}

// digits is the length of the number that s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
