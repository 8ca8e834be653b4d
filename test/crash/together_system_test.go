//go:build system

package crash

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// work is what goes on with one of several containers when the daemon dies.
type work struct {
	name    string
	prepare []func(d *croftDaemon, name string)
	request func(ctx context.Context, c *client.Client, name string) error
}

func together() []work {
	create := func(d *croftDaemon, name string) { d.create(name) }
	start := func(d *croftDaemon, name string) { d.setState(name, "start") }
	setState := func(action string) func(context.Context, *client.Client, string) error {
		return func(ctx context.Context, c *client.Client, name string) error {
			op, err := c.SetInstanceState(ctx, name, statePut(action), "")
			return wait(ctx, op, err)
		}
	}
	launch := func(ctx context.Context, c *client.Client, name string) error {
		op, err := c.CreateInstance(ctx, fromImage(name))
		return errors.Join(wait(ctx, op, err), setState("start")(ctx, c, name))
	}
	remove := func(ctx context.Context, c *client.Client, name string) error {
		op, err := c.DeleteInstance(ctx, name)
		return wait(ctx, op, err)
	}
	return []work{
		{"s0", nil, launch}, {"s1", nil, launch},
		{"s2", []func(*croftDaemon, string){create}, setState("start")},
		{"s3", []func(*croftDaemon, string){create}, remove},
		{"s4", []func(*croftDaemon, string){create, start}, setState("stop")},
		{"s5", []func(*croftDaemon, string){create, start}, setState("restart")},
		{"s6", []func(*croftDaemon, string){create, start}, func(ctx context.Context, c *client.Client, name string) error {
			return errors.Join(setState("stop")(ctx, c, name), remove(ctx, c, name))
		}},
	}
}

// The daemon is killed with much going on at the same time, and its successors
// as well.
func TestKillTogether(t *testing.T) {
	k := newKiller(t)
	all := together()
	k.took[recovery], k.phases[recovery] = 100*time.Millisecond, map[string]int{}
	k.endSession(-1, k.beginSession(-1))
	before := k.settled(nil)
	for i := range 15 {
		k.onceTogether(i, all)
		if t.Failed() {
			t.Log(k.logTail())
			break
		}
	}
	left := slices.DeleteFunc(k.settled(before).more(before), k.changes)
	if len(left) > 0 {
		t.Errorf("%d things are left:\n%v", len(left), left)
	}
}

func (k *killer) onceTogether(i int, all []work) {
	for _, w := range all {
		for _, p := range w.prepare {
			p(k.croftDaemon, w.name)
		}
	}
	session := k.beginSession(i)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	g := errgroup.Group{}
	for _, w := range all {
		g.Go(func() error { return w.request(ctx, k.c, w.name) })
	}
	delay := time.Duration(k.random.Int64N(int64(2 * maxWait)))
	timer := time.NewTimer(delay)
	<-timer.C
	k.kill()
	_ = g.Wait()
	k.t.Logf("kill %d: after %v", i, delay.Round(10*time.Microsecond))
	k.killSuccessors()
	k.start()
	k.agree()
	k.endSession(i, session)
	for _, w := range all {
		k.settleSubject(w.name, api.Stopped, api.Running)
	}
	k.whole()
}
