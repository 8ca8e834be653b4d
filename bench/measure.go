//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// How long a guest gets to finish its own start before the next thing is timed.
const settle = 150 * time.Millisecond

// bench is one run.
type bench struct {
	o        options
	host     *host
	rows     []row
	images   []image
	targets  []*target
	samples  map[string]map[string][]float64 // row id, target label
	na       map[string]map[string]string    // row id, target label: why there is no value
	notes    []string
	failures []string
}

// record stores a sample; during the warm-up it forgets it.
type record func(rowID string, value float64)

// group is a sequence of steps on one daemon that yields samples for one or more rows.
type group struct {
	name string
	bulk bool // repeated --rounds times instead of --n times
	run  func(b *bench, ctx context.Context, t *target, rec record) error
}

func groups() []group {
	return []group{
		{name: "launch-debian", run: launch("deb", "launch-debian")},
		{name: "launch-busybox", run: launch("bb", "launch-busybox")},
		{name: "init-debian", run: initDebian},
		{name: "cycle", run: cycle},
		{name: "file", run: files},
		{name: "bulk", bulk: true, run: bulk},
	}
}

// measure runs every selected group: one warm-up and then the repetitions, the daemons taking turns in each.
func (b *bench) measure(ctx context.Context) {
	deadline := time.Now().Add(b.o.timeLimit)
	for _, g := range groups() {
		if !b.needs(g.name) {
			continue
		}
		repetitions := b.o.n
		if g.bulk {
			repetitions = b.o.rounds
		}
		progress("%s: %d repetitions", g.name, repetitions)
		broken := map[*target]bool{}
		for rep := -1; rep < repetitions; rep++ {
			if rep == -1 && g.bulk {
				continue // the groups before it have warmed everything up, and it is long
			}
			if time.Now().After(deadline) {
				b.notes = append(b.notes, fmt.Sprintf("--time-limit reached: %s has %d of %d repetitions", g.name, max(rep, 0), repetitions))
				break
			}
			for _, t := range rotate(b.targets, rep+1) {
				if ctx.Err() != nil {
					return
				}
				if !broken[t] {
					broken[t] = !b.step(ctx, g, t, rep)
				}
			}
		}
	}
}

// step runs a group once on one daemon. After a failure the daemon's containers are removed and the group is over for it.
func (b *bench) step(ctx context.Context, g group, t *target, rep int) bool {
	rec := func(id string, v float64) {
		if rep < 0 {
			return
		}
		if b.samples[id] == nil {
			b.samples[id] = map[string][]float64{}
		}
		b.samples[id][t.label] = append(b.samples[id][t.label], v)
	}
	err := g.run(b, ctx, t, rec)
	if err == nil {
		return true
	}
	if ctx.Err() == nil {
		f := fmt.Sprintf("%s: %s, repetition %d: %v", t.label, g.name, rep+1, err)
		progress("FAILED %s\n%s", f, t.logTail())
		b.failures = append(b.failures, f)
		b.removeAll(ctx, t)
	}
	return false
}

func (b *bench) removeAll(ctx context.Context, t *target) {
	var list []struct{ Name string }
	if err := t.call(ctx, "GET", "/1.0/instances?recursion=1", nil, &list); err != nil {
		return
	}
	_ = each(ctx, b.o.parallel, len(list), func(ctx context.Context, i int) error {
		return t.lxc(ctx, "delete", "-f", list[i].Name)
	})
}

func (b *bench) needs(groupName string) bool {
	for _, r := range b.rows {
		if r.group == groupName {
			return true
		}
	}
	return false
}

func (b *bench) selected(id string) bool {
	for _, r := range b.rows {
		if r.id == id {
			return true
		}
	}
	return false
}

// launch times lxc launch and removes the container at once, so that its boot does not disturb the next daemon.
func launch(alias, rowID string) func(*bench, context.Context, *target, record) error {
	return func(_ *bench, ctx context.Context, t *target, rec record) error {
		name := t.prefix + "launch"
		ms, err := t.timed(ctx, "launch", alias, name)
		if err != nil {
			return err
		}
		rec(rowID, ms)
		return t.lxc(ctx, "delete", "-f", name)
	}
}

func initDebian(_ *bench, ctx context.Context, t *target, rec record) error {
	name := t.prefix + "init"
	ms, err := t.timed(ctx, "init", "deb", name)
	if err != nil {
		return err
	}
	rec("init-debian", ms)
	return t.lxc(ctx, "delete", name)
}

// cycle is the life of one busybox container.
func cycle(b *bench, ctx context.Context, t *target, rec record) error {
	c := t.prefix + "cycle"
	timed := func(id string, args ...string) error {
		ms, err := t.timed(ctx, args...)
		if err == nil {
			rec(id, ms)
		}
		return err
	}
	if err := timed("init-busybox", "init", "bb", c); err != nil {
		return err
	}
	if err := timed("start", "start", c); err != nil {
		return err
	}
	time.Sleep(settle)
	for range 3 {
		if err := timed("exec-true", "exec", c, "--", "true"); err != nil {
			return err
		}
	}
	if err := timed("stop-force", "stop", "--force", c); err != nil {
		return err
	}
	if err := snapshots(b, ctx, t, c, timed); err != nil {
		return err
	}
	return timed("delete", "delete", c)
}

// snapshots times snapshot, restore and copy of the stopped container. Croft may not have them yet: the first
// failure takes the rows out of its column.
func snapshots(b *bench, ctx context.Context, t *target, c string, timed func(string, ...string) error) error {
	steps := []struct {
		id   string
		args []string
		undo []string
	}{
		{"snapshot", []string{"snapshot", c, "s0"}, nil},
		{"restore", []string{"restore", c, "s0"}, []string{"delete", c + "/s0"}},
		{"copy", []string{"copy", c, c + "2"}, []string{"delete", c + "2"}},
	}
	for _, s := range steps {
		if b.na[s.id][t.label] != "" {
			continue
		}
		// restore needs the snapshot even when only restore was asked for
		if !b.selected(s.id) && !(s.id == "snapshot" && b.selected("restore")) && !(s.id == "restore" && b.selected("snapshot")) {
			continue
		}
		if err := timed(s.id, s.args...); err != nil {
			if t.name != "croft" || len(b.samples[s.id][t.label]) > 0 {
				return err
			}
			b.unavailable(s.id, t, err)
			if s.id == "snapshot" {
				b.unavailable("restore", t, err)
			}
			continue
		}
		if s.undo == nil {
			continue
		}
		if err := t.lxc(ctx, s.undo...); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) unavailable(id string, t *target, err error) {
	if b.na[id] == nil {
		b.na[id] = map[string]string{}
	}
	b.na[id][t.label] = err.Error()
	b.notes = append(b.notes, fmt.Sprintf("%s: %s is not available: %v", t.label, id, err))
}

// files pushes 64 MiB into a running busybox container and pulls it out again.
func files(b *bench, ctx context.Context, t *target, rec record) error {
	big, err := b.bigFile()
	if err != nil {
		return err
	}
	c := t.prefix + "file"
	if err := t.lxc(ctx, "launch", "bb", c); err != nil {
		return err
	}
	time.Sleep(settle)
	ms, err := t.timed(ctx, "file", "push", big, c+"/root/big")
	if err != nil {
		return err
	}
	rec("file-push", ms)
	back := big + ".back"
	defer os.Remove(back)
	if ms, err = t.timed(ctx, "file", "pull", c+"/root/big", back); err != nil {
		return err
	}
	rec("file-pull", ms)
	if st, err := os.Stat(back); err != nil || st.Size() != bigSize {
		return fmt.Errorf("file pull brought back something else than the %d bytes pushed", bigSize)
	}
	return t.lxc(ctx, "delete", "-f", c)
}

const bigSize = 64 << 20

func (b *bench) bigFile() (string, error) {
	path := filepath.Join(b.host.dir, "big")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	data := make([]byte, bigSize)
	if _, err := rand.Read(data); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, 0o600)
}

// bulk makes, starts, lists and deletes many busybox containers.
func bulk(b *bench, ctx context.Context, t *target, rec record) error {
	before, err := helperMemory(t.supervisor.Process.Pid, t.pid)
	if err != nil {
		return err
	}
	clients := func(id string, args ...string) error {
		begin := time.Now()
		err := each(ctx, b.o.parallel, b.o.count, func(ctx context.Context, i int) error {
			return t.lxc(ctx, append(args, fmt.Sprintf("%sb%d", t.prefix, i))...)
		})
		if err == nil {
			rec(id, time.Since(begin).Seconds())
		}
		return err
	}
	if err := clients("bulk-init", "init", "bb"); err != nil {
		return err
	}
	if err := clients("bulk-start", "start"); err != nil {
		return err
	}
	time.Sleep(10 * settle)
	if err := b.lists(ctx, t, rec); err != nil {
		return err
	}
	after, err := helperMemory(t.supervisor.Process.Pid, t.pid)
	if err != nil {
		return err
	}
	rec("memory", max(0, after-before)/float64(b.o.count))
	full, err := residentMemory(t.pid)
	if err != nil {
		return err
	}
	if err := clients("bulk-delete", "delete", "-f"); err != nil {
		return err
	}
	empty, err := residentMemory(t.pid)
	if err != nil {
		return err
	}
	rec("daemon-rss", max(full, empty))
	return nil
}

// lists times the two list requests while all containers run, after checking that the answers are complete.
func (b *bench) lists(ctx context.Context, t *target, rec record) error {
	for _, l := range []struct{ id, path string }{
		{"list-recursion2", "/1.0/instances?recursion=2"},
		{"list-recursion1", "/1.0/instances?recursion=1"},
	} {
		if !b.selected(l.id) {
			continue
		}
		body, _, err := t.get(ctx, l.path)
		if err != nil {
			return err
		}
		if err := checkList(body, t.prefix, b.o.count, l.id == "list-recursion2"); err != nil {
			return fmt.Errorf("GET %s: %w", l.path, err)
		}
		for range b.o.gets {
			_, ms, err := t.get(ctx, l.path)
			if err != nil {
				return err
			}
			rec(l.id, ms)
		}
	}
	return nil
}

// checkList keeps a quick but empty answer from winning: count running containers, with their state when asked for.
func checkList(body []byte, prefix string, count int, state bool) error {
	var answer struct {
		Metadata []struct {
			Name, Status string
			State        *struct {
				Pid     int
				Network map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	running := 0
	for _, c := range answer.Metadata {
		if !strings.HasPrefix(c.Name, prefix) || c.Status != "Running" {
			continue
		}
		if state && (c.State == nil || c.State.Pid <= 0 || len(c.State.Network) == 0) {
			return fmt.Errorf("%s has no state with pid and network", c.Name)
		}
		running++
	}
	if running != count {
		return fmt.Errorf("%d running containers of ours instead of %d", running, count)
	}
	return nil
}

// each calls do for 0..count-1, at most parallel at a time, as xargs -P does; the first error ends it.
func each(ctx context.Context, parallel, count int, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range count {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}
