//go:build system

package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

const (
	kills    = 100
	maxWait  = 60 * time.Millisecond
	recovery = "recovery" // the attempt that every start of a daemon is
	subject  = "subject"  // the container that is worked on when the daemon dies
)

// attempt is a piece of work that the daemon is killed in.
type attempt struct {
	name    string
	prepare func(d *croftDaemon)
	request func(ctx context.Context, c *client.Client) error
	// settle checks what has become of it, under the same daemon's successor, and
	// leaves the host as it was before prepare.
	settle func(d *croftDaemon)
}

// lifeCycle are the attempts of the life of a container.
func lifeCycle() []attempt {
	return []attempt{
		{"create", func(*croftDaemon) {}, func(ctx context.Context, c *client.Client) error {
			op, err := c.CreateInstance(ctx, fromImage(subject))
			return wait(ctx, op, err)
		}, func(d *croftDaemon) { d.settleSubject(subject, api.Stopped) }},
		{"start", func(d *croftDaemon) { d.create(subject) }, changeState("start"),
			func(d *croftDaemon) { d.mustExist(subject); d.settleSubject(subject, api.Stopped, api.Running) }},
		{"stop", func(d *croftDaemon) { d.create(subject); d.setState(subject, "start") }, changeState("stop"),
			func(d *croftDaemon) { d.mustExist(subject); d.settleSubject(subject, api.Stopped, api.Running) }},
		{"delete", func(d *croftDaemon) { d.create(subject) }, func(ctx context.Context, c *client.Client) error {
			op, err := c.DeleteInstance(ctx, subject)
			return wait(ctx, op, err)
		}, func(d *croftDaemon) { d.settleSubject(subject, api.Stopped) }},
	}
}

func changeState(action string) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		op, err := c.SetInstanceState(ctx, subject, statePut(action), "")
		return wait(ctx, op, err)
	}
}

func wait(ctx context.Context, op *client.Operation, err error) error {
	if err != nil {
		return err
	}
	_, err = op.Wait(ctx)
	return err
}

// The daemon is killed 100 times while it creates, starts, stops and deletes a
// container. Whatever the moment, what it finds when it comes back is whole, and
// what ran beside runs on.
func TestKill(t *testing.T) {
	newKiller(t).run(lifeCycle(), kills)
}

// killer kills a daemon at moments from a seeded source.
type killer struct {
	*croftDaemon
	random *rand.Rand
	phases map[string]map[string]int // by attempt
	took   map[string]time.Duration  // how long each attempt takes undisturbed
	inits  map[string]int64          // pids of the containers that run beside
	// maxWait is the longest time between a request and a kill.
	maxWait time.Duration
}

func newKiller(t *testing.T) *killer {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CROFT_TEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("CROFT_TEST_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("seed: CROFT_TEST_SEED=%d", seed)
	k := &killer{
		croftDaemon: newDaemon(t), random: rand.New(rand.NewPCG(seed, 0)),
		phases: map[string]map[string]int{}, took: map[string]time.Duration{}, inits: map[string]int64{}, maxWait: maxWait,
	}
	for _, name := range []string{"beside1", "beside2"} {
		k.create(name)
		k.setState(name, "start")
		st, err := k.c.InstanceState(k.ctx(), name)
		if err != nil {
			t.Fatal(err)
		}
		k.inits[name] = st.Pid
	}
	k.create("resting")
	return k
}

func (k *killer) run(attempts []attempt, n int) {
	for _, a := range attempts {
		k.phases[a.name] = map[string]int{}
		a.prepare(k.croftDaemon)
		begin := time.Now()
		if err := a.request(k.ctx(), k.c); err != nil {
			k.t.Fatalf("%s, undisturbed: %v\n%s", a.name, err, k.logTail())
		}
		k.took[a.name] = time.Since(begin)
		a.settle(k.croftDaemon)
	}
	k.endSession(-1, k.beginSession(-1)) // what a session leaves in beside1 is its own
	before := k.settled(nil)
	k.kill()
	begin := time.Now()
	k.start()
	k.took[recovery], k.phases[recovery] = time.Since(begin), map[string]int{}
	for i := range n {
		k.once(i, attempts[i%len(attempts)])
		if k.t.Failed() {
			break
		}
	}
	k.table(attempts)
	left := k.settled(before).more(before)
	left = slices.DeleteFunc(left, k.changes)
	if len(left) > 0 {
		k.t.Errorf("%d things are left after %d kills:\n%s", len(left), n, strings.Join(left, "\n"))
	}
}

// changes tells what differs after a restart without being left behind: the
// daemon's own process and descriptors, and the last few copies of the database.
func (k *killer) changes(thing string) bool {
	kind, what, _ := strings.Cut(thing, ": ")
	return kind == "descriptors" || kind == "processes" && strings.HasPrefix(what, strconv.Itoa(k.cmd.Process.Pid)+" ") ||
		kind == "files" && strings.Contains(what, "/croft.db.bak-") && len(dirNames(k.dir, "db")) < 10
}

// once is one kill.
func (k *killer) once(i int, a attempt) {
	a.prepare(k.croftDaemon)
	session := k.beginSession(i)
	// The moments are spread over the time that the work takes, and a bit more.
	limit := min(k.took[a.name]*5/4, k.maxWait)
	delay := time.Duration(k.random.Int64N(int64(limit)))
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() { done <- a.request(ctx, k.c) }()
	timer := time.NewTimer(delay)
	<-timer.C
	k.kill()
	finished := "answered"
	if err := <-done; err != nil {
		finished = "unanswered"
	}
	phase := k.phase(a.name) + ", " + finished
	k.phases[a.name][phase]++
	k.t.Logf("kill %d: %s after %v: %s", i, a.name, delay.Round(10*time.Microsecond), phase)
	k.killSuccessors()
	k.start()
	k.agree()
	k.endSession(i, session)
	a.settle(k.croftDaemon)
	k.whole()
	if k.t.Failed() {
		k.t.Log(k.logTail())
	}
}

// killSuccessors now and then kills the next daemon too, or the next two, while
// it finishes or undoes what the one before has left.
func (k *killer) killSuccessors() {
	for k.random.IntN(3) == 0 {
		begin := time.Now()
		delay := time.Duration(k.random.Int64N(int64(k.took[recovery] * 5 / 4)))
		k.launch()
		timer := time.NewTimer(delay - time.Since(begin))
		<-timer.C
		k.kill()
		k.phases[recovery]["killed in its course"]++
	}
}

func (k *killer) table(attempts []attempt) {
	var b strings.Builder
	for _, a := range append(attempts, attempt{name: recovery}) {
		var phases []string
		for p := range k.phases[a.name] {
			phases = append(phases, p)
		}
		slices.Sort(phases)
		fmt.Fprintf(&b, "%s (takes %v)\n", a.name, k.took[a.name].Round(time.Millisecond))
		for _, p := range phases {
			fmt.Fprintf(&b, "  %4d  %s\n", k.phases[a.name][p], p)
		}
	}
	k.t.Logf("killed in\n%s", b.String())
}

// beginSession runs a command beside that ends when it is told to. It returns
// the operation.
func (k *killer) beginSession(i int) string {
	k.t.Helper()
	script := fmt.Sprintf("while [ ! -e /tmp/end%d ]; do usleep 10000; done; exit 42", i)
	resp, err := k.c.Raw(k.ctx(), "POST", "/1.0/instances/beside1/exec", strings.NewReader(
		fmt.Sprintf(`{"command": ["sh", "-c", %q]}`, script)))
	if err != nil {
		k.t.Fatalf("exec: %v\n%s", err, k.logTail())
	}
	id := resp.Operation[strings.LastIndexByte(resp.Operation, '/')+1:]
	// It counts as begun when it is on record, like everything that is to
	// survive.
	k.await("the session to begin", func() error {
		if len(grep(k.processes(), fmt.Sprintf("/tmp/end%d ", i))) == 0 {
			return fmt.Errorf("no process of session %s", id)
		}
		return nil
	})
	return id
}

// endSession finds the command running under the new daemon, ends it, and gets
// its exit code.
func (k *killer) endSession(i int, id string) {
	k.t.Helper()
	op, err := k.c.AttachOperation(k.ctx(), id)
	if err != nil {
		k.t.Errorf("the exec session is lost: %v", err)
		return
	}
	if s := op.Last().StatusCode; s != api.Running {
		k.t.Errorf("the exec session is %v, want running", s)
	}
	k.exec("beside1", 0, "touch", fmt.Sprintf("/tmp/end%d", i))
	last, err := op.Wait(k.ctx())
	if code := last.Metadata["return"]; err != nil || fmt.Sprint(code) != "42" {
		k.t.Errorf("the exec session ended with code %v, error %v; want 42", code, err)
	}
	k.exec("beside1", 0, "rm", fmt.Sprintf("/tmp/end%d", i))
}

func (d *croftDaemon) mustExist(name string) {
	d.t.Helper()
	if !slices.Contains(d.names(), name) {
		d.t.Errorf("instance %s is lost", name)
	}
}

// settleSubject checks that an instance, if it is there, is in one of the given
// states, works, and can be deleted; and that its name is free then.
func (d *croftDaemon) settleSubject(name string, allowed ...api.StatusCode) {
	d.t.Helper()
	if slices.Contains(d.names(), name) {
		i, _, err := d.c.Instance(d.ctx(), name)
		if err != nil {
			d.t.Fatal(err)
		}
		if !slices.Contains(allowed, i.StatusCode) {
			d.t.Errorf("instance %s is %s, allowed are %v", name, i.Status, allowed)
		}
		if i.StatusCode == api.Stopped {
			d.setState(name, "start")
		}
		d.exec(name, 0, "grep", "-q", "eth0", "/proc/net/dev")
		d.setState(name, "stop")
		d.delete(name)
	}
	d.create(name)
	d.delete(name)
}
