//go:build linux

package main

import "regexp"

// row is one line of the result. Budgets are those of the project's performance table: a ratio against the better of
// the reference daemons, or, when absolute, a value in the row's unit.
type row struct {
	id       string
	title    string
	unit     string // "ms", "s" or "MiB"
	budget   float64
	aim      float64
	absolute bool
	group    string // the sequence of steps that measures it, see groups
	optional bool   // a daemon that cannot do it yet gets "n/a" instead of a failed run
}

// allRows lists the rows in the order of the report.
func allRows() []row {
	return []row{
		{id: "launch-debian", title: "launch Debian (systemd), cached image", unit: "ms", budget: 0.40, aim: 0.25, group: "launch-debian"},
		{id: "launch-busybox", title: "launch busybox", unit: "ms", budget: 0.40, aim: 0.25, group: "launch-busybox"},
		{id: "init-debian", title: "init Debian", unit: "ms", budget: 0.60, aim: 0.40, group: "init-debian"},
		{id: "init-busybox", title: "init busybox", unit: "ms", budget: 0.60, aim: 0.40, group: "cycle"},
		{id: "start", title: "start", unit: "ms", budget: 0.40, aim: 0.25, group: "cycle"},
		{id: "stop-force", title: "stop --force", unit: "ms", budget: 0.10, aim: 0.05, group: "cycle"},
		{id: "exec-true", title: "exec true", unit: "ms", budget: 0.80, aim: 0.60, group: "cycle"},
		{id: "snapshot", title: "snapshot", unit: "ms", budget: 0.70, aim: 0.50, group: "cycle", optional: true},
		{id: "restore", title: "restore", unit: "ms", budget: 0.70, aim: 0.50, group: "cycle", optional: true},
		{id: "copy", title: "copy", unit: "ms", budget: 0.70, aim: 0.50, group: "cycle", optional: true},
		{id: "delete", title: "delete", unit: "ms", budget: 0.80, aim: 0.60, group: "cycle"},
		{id: "file-push", title: "file push, 64 MiB", unit: "ms", budget: 0.60, aim: 0.30, group: "file"},
		{id: "file-pull", title: "file pull, 64 MiB", unit: "ms", budget: 0.60, aim: 0.30, group: "file"},
		{id: "bulk-init", title: "100 init, 4 at a time", unit: "s", budget: 0.50, aim: 0.30, group: "bulk"},
		{id: "bulk-start", title: "100 start, 4 at a time", unit: "s", budget: 0.30, aim: 0.20, group: "bulk"},
		{id: "bulk-delete", title: "100 delete -f, 4 at a time", unit: "s", budget: 0.15, aim: 0.10, group: "bulk"},
		{id: "list-recursion2", title: "GET instances?recursion=2, 100 running", unit: "ms", budget: 0.03, aim: 0.01, group: "bulk"},
		{id: "list-recursion1", title: "GET instances?recursion=1, 100 running", unit: "ms", budget: 0.25, aim: 0.10, group: "bulk"},
		{id: "memory", title: "memory outside the guest, per running container (PSS)", unit: "MiB", budget: 1, aim: 0.5, absolute: true, group: "bulk"},
		{id: "daemon-rss", title: "daemon RSS after 100 containers", unit: "MiB", budget: 60, aim: 40, absolute: true, group: "bulk"},
	}
}

func rowIDs() []string {
	var ids []string
	for _, r := range allRows() {
		ids = append(ids, r.id)
	}
	return ids
}

// selectRows applies --only. The expression was compiled once in options.check.
func selectRows(o options) []row {
	re := regexp.MustCompile(o.only)
	var rows []row
	for _, r := range allRows() {
		if re.MatchString(r.id) {
			rows = append(rows, r)
		}
	}
	return rows
}

// wants reports whether a selected row's id matches the expression.
func (b *bench) wants(expr string) bool {
	re := regexp.MustCompile(expr)
	for _, r := range b.rows {
		if re.MatchString(r.id) {
			return true
		}
	}
	return false
}
