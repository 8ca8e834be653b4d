package main

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// addressInterval is how often addresses are looked up: no event tells of them.
const addressInterval = 250 * time.Millisecond

type waitOptions struct {
	state      string
	ipv4, ipv6 bool
	timeout    int
}

func newWait(g *global) *cobra.Command {
	var o waitOptions
	cmd := &cobra.Command{
		Use: "wait [REMOTE:]INSTANCE", Short: "Wait until an instance is running and has an address", Args: args(1, 1),
		Example:           "  croft wait web1 --ipv4 --timeout 30\n  croft wait web1 --state stopped",
		ValidArgsFunction: g.complete(false, instanceNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return runWait(cmd.Context(), g, o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.state, "state", "running", "state to wait for: running, stopped or frozen")
	f.BoolVar(&o.ipv4, "ipv4", false, "wait for a global IPv4 address too, and print it")
	f.BoolVar(&o.ipv6, "ipv6", false, "wait for a global IPv6 address too, and print it")
	f.IntVar(&o.timeout, "timeout", 0, "give up after this many `seconds`; 0 waits for ever")
	return cmd
}

func (o *waitOptions) check() error {
	o.state = strings.ToLower(o.state)
	switch o.state {
	case "running", "stopped", "frozen":
	default:
		return api.Errorf(api.Invalid, "--state %s: running, stopped and frozen are possible", o.state)
	}
	if o.timeout < 0 {
		return api.Errorf(api.Invalid, "--timeout %d: want seconds, or 0", o.timeout)
	}
	if (o.ipv4 || o.ipv6) && o.state != "running" {
		return api.Errorf(api.Invalid, "only a running instance has addresses, not a %s one", o.state)
	}
	return nil
}

func runWait(ctx context.Context, g *global, o waitOptions, arg string) error {
	if err := o.check(); err != nil {
		return err
	}
	c, name, err := g.object(ctx, "instance", arg)
	if err != nil {
		return err
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.timeout)*time.Second)
		defer cancel()
	}
	found, err := waitInstance(ctx, c, o, name)
	if api.KindOf(err) == api.Timeout {
		return api.Errorf(api.Timeout, "instance %s was not %s within %d seconds", name, o.wanted(), o.timeout)
	}
	for _, a := range found {
		g.printf("%s\n", a)
	}
	return err
}

// wanted says in words what is waited for.
func (o *waitOptions) wanted() string {
	s := o.state
	if o.ipv4 {
		s += " with an IPv4 address"
	}
	if o.ipv6 {
		s += " with an IPv6 address"
	}
	return s
}

// waitInstance looks at the instance now and after each event about it; while
// only an address is missing it looks again now and then. It subscribes before
// the first look, so that no change falls in between.
func waitInstance(ctx context.Context, c *client.Client, o waitOptions, name string) ([]string, error) {
	events, err := c.Events(ctx, client.EventFilter{Types: []string{api.EventLifecycle}})
	if err != nil {
		return nil, err
	}
	defer events.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	changed := make(chan struct{}, 1)
	go watchInstance(ctx, events, name, changed, stop)
	tick := time.NewTicker(addressInterval)
	defer tick.Stop()
	for {
		st, err := c.InstanceState(ctx, name)
		if err != nil {
			return nil, err
		}
		right := strings.EqualFold(st.Status, o.state)
		if found, all := o.addresses(st); right && all {
			return found, nil
		}
		var again <-chan time.Time
		if right {
			again = tick.C
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil, waitError(ctx)
		}
	}
}

func waitError(ctx context.Context) error {
	switch cause := context.Cause(ctx); cause {
	case context.DeadlineExceeded:
		return api.Errorf(api.Timeout, "gave up waiting")
	case context.Canceled:
		return api.Errorf(api.Canceled, "interrupted: %w", cause)
	default:
		return cause
	}
}

// watchInstance reports each event about an instance until the stream ends.
func watchInstance(ctx context.Context, events *client.EventStream, name string, changed chan<- struct{}, stop context.CancelCauseFunc) {
	for {
		ev, err := events.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				stop(err)
			}
			return
		}
		var l api.EventLifecycleMetadata
		if json.Unmarshal(ev.Metadata, &l) != nil {
			continue
		}
		source, _, _ := strings.Cut(l.Source, "?")
		if strings.HasSuffix(source, "/"+name) || strings.Contains(source, "/"+name+"/") {
			select {
			case changed <- struct{}{}:
			default: // a look is due already
			}
		}
	}
}

// addresses are the global addresses that were asked for; all tells whether
// none is missing.
func (o *waitOptions) addresses(st api.InstanceState) (found []string, all bool) {
	full := api.InstanceFull{State: &st}
	all = true
	for family, wanted := range map[string]bool{"inet": o.ipv4, "inet6": o.ipv6} {
		if !wanted {
			continue
		}
		list := addresses(&full, family)
		all = all && len(list) > 0
		for _, a := range list {
			found = append(found, a.address)
		}
	}
	return found, all
}
