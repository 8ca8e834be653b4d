package network

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// supervisor watches one dnsmasq: it starts another when it dies, and tells it
// of reservations that are gone.
type supervisor struct {
	cancel context.CancelFunc
	done   chan struct{}
	again  chan struct{} // holds at most one wish to be re-read
}

const (
	reloadDelay = 200 * time.Millisecond // so many changes cost one re-read
	backoffMin  = 100 * time.Millisecond
	backoffMax  = 30 * time.Second
	backoffOver = time.Minute // having run for so long, the next failure counts as the first
)

// superviseLocked brings up the plan's dnsmasq and its supervisor, in place of
// those that are there.
func (m *Manager) superviseLocked(ctx context.Context, n *managed) error {
	n.stopSupervisor()
	d := n.plan.DNSMasq
	switch {
	case d == nil:
		return m.killDNSMasq(ctx, m.env.runDir(n.name))
	case m.dnsmasq == "":
		return api.Errorf(api.Unsupported, "the program dnsmasq was not found").WithHint("apt-get install dnsmasq-base")
	}
	p, failed := m.ensureDNSMasq(ctx, d)
	if failed != nil && ctx.Err() != nil {
		return failed
	}
	// After a failure the supervisor goes on trying: what has the ports may go.
	sctx, cancel := context.WithCancel(m.ctx)
	s := &supervisor{cancel: cancel, done: make(chan struct{}), again: make(chan struct{}, 1)}
	n.super = s
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		defer close(s.done)
		m.supervise(sctx, s, n.name, d, p)
	}()
	return failed
}

// stopSupervisor ends the supervision, not the process.
func (n *managed) stopSupervisor() {
	if n.super != nil {
		n.super.cancel()
		<-n.super.done
		n.super = nil
	}
}

// reload asks dnsmasq, a little later, to read its reservations again.
func (n *managed) reload() {
	if n.super == nil {
		return // it will be started, or adopted, after this
	}
	select {
	case n.super.again <- struct{}{}:
	default:
	}
}

// supervise runs until ctx ends. p is nil when dnsmasq is still to be started.
func (m *Manager) supervise(ctx context.Context, s *supervisor, name string, d *DNSMasqPlan, p *process) {
	delay := time.Duration(0)
	for {
		if p == nil {
			if p, delay = m.restart(ctx, name, d, delay); p == nil {
				return
			}
		}
		begun := time.Now()
		if !m.watch(ctx, s, name, p) {
			return
		}
		if time.Since(begun) > backoffOver {
			delay = 0
		}
		m.log.Warn("dnsmasq died and is started again", "network", name, "pid", p.pid, "delay", delay)
		p = nil
	}
}

// restart tries until dnsmasq runs or ctx ends; then it returns nil. delay is
// the pause before the first try; the pause before the next one is returned.
func (m *Manager) restart(ctx context.Context, name string, d *DNSMasqPlan, delay time.Duration) (*process, time.Duration) {
	for sleep(ctx, delay) {
		delay = min(max(2*delay, backoffMin), backoffMax)
		p, err := m.ensureDNSMasq(ctx, d)
		if err == nil {
			return p, delay
		}
		m.log.Error("dnsmasq could not be started", "network", name, "error", err, "retry", delay)
	}
	return nil, delay
}

// watch returns true when the process has died, false when ctx has ended. It
// lets go of the process.
func (m *Manager) watch(ctx context.Context, s *supervisor, name string, p *process) bool {
	defer p.close()
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			if due != nil {
				m.hangUp(name, p)
			}
			return false
		case <-p.exited:
			return true
		case <-s.again:
			if due == nil {
				t := time.NewTimer(reloadDelay)
				defer t.Stop()
				due = t.C
			}
		case <-due:
			due = nil
			m.hangUp(name, p)
		}
	}
}

func (m *Manager) hangUp(name string, p *process) {
	if err := p.signal(unix.SIGHUP); err != nil {
		m.log.Warn("dnsmasq could not be told to read its reservations again", "network", name, "error", err)
	}
}

// sleep waits for d and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
