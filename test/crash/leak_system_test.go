//go:build system

package crash

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	warmUp     = 5
	leakCycles = 100
	soakCycles = 500
)

// 100 containers come, run a command and go, each under a name of its own:
// nothing of them is left.
func TestNothingLeft(t *testing.T) {
	d := newDaemon(t)
	cycle := func(i int) {
		name := fmt.Sprintf("leak%d", i)
		d.create(name)
		d.setState(name, "start")
		d.exec(name, 3, "sh", "-c", "cat /proc/net/dev | grep -q eth0 && exit 3")
		d.setState(name, "stop")
		d.delete(name)
	}
	for i := range warmUp {
		cycle(i)
	}
	fewGoroutines := d.goroutines()
	for i := range warmUp {
		cycle(i)
	}
	before := d.settled(nil)
	rss, threads := d.memory()
	for i := range leakCycles {
		cycle(100 + i)
	}
	left := d.settled(before).more(before)
	rssAfter, threadsAfter := d.memory()
	t.Logf("daemon after %d cycles: resident %d kB (before: %d), %d threads (%d)", leakCycles, rssAfter, rss, threadsAfter, threads)
	if len(left) > 0 {
		t.Errorf("%d things are left after %d cycles:\n%s", len(left), leakCycles, strings.Join(left, "\n"))
	}
	if rssAfter-rss > 10<<10 {
		t.Errorf("the daemon grew by %d kB", rssAfter-rss)
	}
	if many := d.goroutines(); many.total() > fewGoroutines.total()+2 {
		t.Errorf("%d goroutines after %d cycles, %d after %d; by function:\n%v", many.total(), warmUp+leakCycles, fewGoroutines.total(), warmUp, many)
	}
}

// One container goes through its life 500 times: the daemon does not grow.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	d := newDaemon(t)
	cycle := func() {
		d.create("soak")
		d.setState("soak", "start")
		d.setState("soak", "stop")
		d.delete("soak")
	}
	for range 20 {
		cycle()
	}
	before := d.settled(nil)
	first, _ := d.memory()
	last := first
	for i := range soakCycles {
		cycle()
		if (i+1)%100 == 0 {
			last, _ = d.memory()
			t.Logf("after %d cycles: resident %d kB (%+d)", i+1, last, last-first)
		}
	}
	if last-first >= 10<<10 {
		t.Errorf("the daemon grew by %d kB in %d cycles", last-first, soakCycles)
	}
	if left := d.settled(before).more(before); len(left) > 0 {
		t.Errorf("%d things are left after %d cycles:\n%s", len(left), soakCycles, strings.Join(left, "\n"))
	}
}

// settled takes the facts when what goes on in the background has come to rest:
// when nothing more than before is there, or at the end of patience.
func (d *croftDaemon) settled(before facts) facts {
	d.t.Helper()
	d.c.Close()
	d.connect() // one connection, whatever was open
	last, same := d.facts(), 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		now := d.facts()
		if before != nil && len(now.more(before)) == 0 {
			return now
		}
		if len(now.more(last)) == 0 && len(last.more(now)) == 0 {
			same++
		} else {
			same = 0
		}
		if last = now; same >= 20 && before == nil {
			break
		}
	}
	return last
}

// goroutineDump counts goroutines by the function that they were started with.
type goroutineDump map[string]int

func (g goroutineDump) total() int {
	n := 0
	for _, c := range g {
		n += c
	}
	return n
}

func (g goroutineDump) String() string {
	var lines []string
	for f, n := range g {
		lines = append(lines, fmt.Sprintf("%4d %s", n, f))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

var createdBy = regexp.MustCompile(`(?m)^created by (\S+)`)

// goroutines makes the daemon dump its goroutines, which ends it, and starts it
// again.
func (d *croftDaemon) goroutines() goroutineDump {
	d.t.Helper()
	d.settled(nil)
	d.c.Close()
	d.c = nil
	before, err := os.Stat(d.log)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(unix.SIGABRT); err != nil {
		d.t.Fatal(err)
	}
	_ = d.cmd.Wait()
	data, err := os.ReadFile(d.log)
	if err != nil {
		d.t.Fatal(err)
	}
	out := goroutineDump{}
	for _, m := range createdBy.FindAllStringSubmatch(string(data[before.Size():]), -1) {
		if !strings.HasPrefix(m[1], "runtime.") && !strings.HasPrefix(m[1], "net/http.") {
			out[m[1]]++
		}
	}
	if len(out) == 0 {
		d.t.Fatalf("the daemon did not dump its goroutines:\n%s", d.logTail())
	}
	if err := os.Truncate(d.log, before.Size()); err != nil {
		d.t.Fatal(err)
	}
	d.start()
	return out
}
