package main

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// progress is one line on a terminal that is written over and over. On
// anything but a terminal, and with --quiet, it shows nothing.
type progress struct {
	w     io.Writer // nil when disabled
	width int       // cells of the line that is shown
}

func (g *global) newProgress() *progress {
	if g.quiet || !isTerminal(g.stderr) {
		return &progress{}
	}
	return &progress{w: g.stderr}
}

func (p *progress) enabled() bool { return p.w != nil }

// show replaces the line.
func (p *progress) show(text string) {
	if p.w == nil {
		return
	}
	text = printable(text)
	n := runewidth.StringWidth(text)
	fmt.Fprintf(p.w, "\r%s%s", text, strings.Repeat(" ", max(0, p.width-n)))
	p.width = n
}

// clear takes the line away.
func (p *progress) clear() {
	if p.w != nil && p.width > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
}

// printable drops control characters, so that a server's text cannot steer the
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// wait waits for an operation and shows its progress under a label.
func (g *global) wait(ctx context.Context, op *client.Operation, label string) (api.Operation, error) {
	p := g.newProgress()
	if !p.enabled() {
		return op.Wait(ctx)
	}
	defer p.clear()
	return op.WaitProgress(ctx, func(op api.Operation) {
		if text := progressText(op.Metadata); text != "" {
			p.show(label + ": " + text)
		}
	})
}

// progressText is what the metadata of an operation say about its progress:
// the values of the keys that end with "progress".
func progressText(meta map[string]any) string {
	var parts []string
	for k, v := range meta {
		if s, ok := v.(string); ok && strings.HasSuffix(k, "progress") {
			parts = append(parts, s)
		}
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}

// meter counts the bytes of a transfer and shows them.
type meter struct {
	io.Reader
	p     *progress
	label string
	total int64 // 0 if not known
	done  int64
	shown int64
}

// metered wraps r so that reading it shows progress; without a terminal it is
// r itself.
func (g *global) metered(r io.Reader, p *progress, label string, total int64) io.Reader {
	if !p.enabled() {
		return r
	}
	return &meter{Reader: r, p: p, label: label, total: total}
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.done += int64(n)
	if step := max(m.total/100, 1<<20); m.done-m.shown >= step {
		m.shown = m.done
		if m.total > 0 {
			m.p.show(fmt.Sprintf("%s: %d%% (%s)", m.label, 100*m.done/m.total, siSize(m.done)))
		} else {
			m.p.show(fmt.Sprintf("%s: %s", m.label, siSize(m.done)))
		}
	}
	return n, err
}
