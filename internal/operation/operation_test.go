package operation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

// recorder is a Publisher that keeps what it gets.
type recorder struct {
	mu  sync.Mutex
	ops []api.Operation
	all []string
}

func (r *recorder) Publish(project, eventType string, metadata any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m := metadata.(type) {
	case api.Operation:
		r.ops = append(r.ops, m)
		r.all = append(r.all, project+" "+eventType+" "+m.Status)
	case api.EventLifecycleMetadata:
		r.all = append(r.all, project+" "+eventType+" "+m.Action)
	}
}

func (r *recorder) events() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func (r *recorder) last() api.Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ops[len(r.ops)-1]
}

func start(t *testing.T, m *Manager, s Spec) *Op {
	t.Helper()
	o, err := m.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func task(fn func(ctx context.Context, op *Op) error) Spec {
	return Spec{Project: "default", Description: "Testing", Cancel: true, Run: fn}
}

func untilCancelled(ctx context.Context, _ *Op) error {
	<-ctx.Done()
	return ctx.Err()
}

func wantKind(t *testing.T, err error, kind api.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got error %v, want one of kind %s", err, kind)
	}
}

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name   string
		run    func(context.Context, *Op) error
		cancel bool
		events []string
		code   api.StatusCode
		kind   api.Kind
	}{
		{"success", func(context.Context, *Op) error { return nil }, false, []string{"Pending", "Running", "Success"}, api.Success, ""},
		{"failure", func(context.Context, *Op) error { return api.Errorf(api.InUse, "x").WithHint("h") }, false, []string{"Pending", "Running", "Failure"}, api.Failure, api.InUse},
		{"plain error", func(context.Context, *Op) error { return errors.New("x") }, false, []string{"Pending", "Running", "Failure"}, api.Failure, api.Internal},
		{"panic", func(context.Context, *Op) error { panic("boom") }, false, []string{"Pending", "Running", "Failure"}, api.Failure, api.Internal},
		{"goexit", func(context.Context, *Op) error { runtime.Goexit(); return nil }, false, []string{"Pending", "Running", "Failure"}, api.Failure, api.Internal},
		{"cancelled", untilCancelled, true, []string{"Pending", "Running", "Cancelling", "Cancelled"}, api.Cancelled, api.Canceled},
		{"cancelled with its own error", func(ctx context.Context, o *Op) error { <-ctx.Done(); return api.Errorf(api.BadState, "x") }, true, []string{"Pending", "Running", "Cancelling", "Cancelled"}, api.Cancelled, api.BadState},
		{"done in spite of being cancelled", func(ctx context.Context, o *Op) error { <-ctx.Done(); return nil }, true, []string{"Pending", "Running", "Cancelling", "Success"}, api.Success, ""},
		{"someone else's cancellation", func(context.Context, *Op) error { return context.Canceled }, false, []string{"Pending", "Running", "Failure"}, api.Failure, api.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := &recorder{}
			m := New(Deps{Events: rec})
			o := start(t, m, task(c.run))
			if c.cancel {
				if err := o.Cancel(); err != nil {
					t.Fatal(err)
				}
			}
			err := o.Wait(t.Context())
			if (err == nil) != (c.kind == "") || c.kind != "" && api.KindOf(err) != c.kind {
				t.Errorf("got %v, want kind %q", err, c.kind)
			}
			a := o.API()
			if a.StatusCode != c.code || a.Kind != c.kind || (a.Err == "") != (c.kind == "") {
				t.Errorf("got %+v", a)
			}
			if c.name == "failure" && a.Hint != "h" {
				t.Errorf("hint %q", a.Hint)
			}
			var want []string
			for _, e := range c.events {
				want = append(want, "default operation "+e)
			}
			if diff := cmp.Diff(want, rec.events()); diff != "" {
				t.Error(diff)
			}
			wantKind(t, o.Cancel(), api.BadState) // it has ended
			o.UpdateMetadata(map[string]any{"late": 1})
			o.Progress("x_progress", Progress{Percent: 5})
			if o.API().Metadata != nil {
				t.Error("metadata changed after the end")
			}
		})
	}
}

func TestPanicIsLogged(t *testing.T) {
	var out bytes.Buffer
	m := New(Deps{Events: &recorder{}, Log: slog.New(slog.NewTextHandler(&out, nil))})
	o := start(t, m, task(func(context.Context, *Op) error { panic("boom") }))
	_ = o.Wait(t.Context())
	if err := m.Shutdown(t.Context(), time.Minute); err != nil { // the log is complete then
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, "panic=boom") || !strings.Contains(s, "operation_test.go") || !strings.Contains(s, o.ID()) {
		t.Errorf("log: %s", s)
	}
	if strings.Contains(o.API().Err, "boom") {
		t.Errorf("panic value is shown to users: %s", o.API().Err)
	}
}

func TestShape(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := New(Deps{Events: &recorder{}, Now: func() time.Time { return at }})
	o := start(t, m, Spec{
		ID: "8e2a4d6c-0000-4000-8000-000000000001", Project: "default", Description: "Starting instance",
		Resources: map[string][]string{"instances": {"/1.0/instances/c1"}}, Run: untilCancelled,
	})
	want := api.Operation{
		ID: o.ID(), Class: "task", Description: "Starting instance", CreatedAt: at, UpdatedAt: at,
		Status: "Running", StatusCode: 103, Location: "none", Resources: map[string][]string{"instances": {"/1.0/instances/c1"}},
	}
	if diff := cmp.Diff(want, o.API()); diff != "" {
		t.Error(diff)
	}
	if o.Path() != "/1.0/operations/"+o.ID() {
		t.Error(o.Path())
	}
	wantKind(t, o.Cancel(), api.BadState) // Spec.Cancel is false
	_, err := m.Start(Spec{ID: o.ID(), Run: untilCancelled})
	wantKind(t, err, api.Conflict)
	_, err = m.Start(Spec{})
	wantKind(t, err, api.Internal)
	_, err = m.Start(Spec{Class: "x", Run: untilCancelled})
	wantKind(t, err, api.Internal)
	if err := m.Shutdown(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	wantKind(t, o.Err(), api.Unavailable)
	_, err = m.Start(task(untilCancelled))
	wantKind(t, err, api.Unavailable)
}

func TestMetadata(t *testing.T) {
	rec := &recorder{}
	m := New(Deps{Events: rec})
	step, did := make(chan func(*Op)), make(chan struct{})
	o := start(t, m, task(func(ctx context.Context, o *Op) error {
		for fn := range step {
			fn(o)
			did <- struct{}{}
		}
		return nil
	}))
	do := func(fn func(*Op)) { step <- fn; <-did }
	do(func(o *Op) { o.UpdateMetadata(map[string]any{"a": 1, "b": 2}) })
	snap := o.API().Metadata
	do(func(o *Op) { o.ExtendMetadata(map[string]any{"b": 3}) })
	if diff := cmp.Diff(map[string]any{"a": 1, "b": 3}, rec.last().Metadata); diff != "" {
		t.Error(diff)
	}
	if snap["b"] != 2 {
		t.Error("metadata that was handed out has changed")
	}
	do(func(o *Op) { o.SetResources(map[string][]string{"images": {"/1.0/images/x"}}) })
	if rec.last().Resources["images"] == nil {
		t.Error("resources were not published")
	}
	close(step)
	if err := o.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSecrets(t *testing.T) {
	rec := &recorder{}
	m := New(Deps{Events: rec})
	var got []string
	o := start(t, m, Spec{
		Class: api.ClassWebsocket, Owner: "alice", Secrets: map[string]string{"0": "s0", "control": "sc"},
		Metadata: map[string]any{"command": []string{"true"}}, Cancel: true, Run: untilCancelled,
		Connect: func(_ context.Context, _ *Op, fd string, _ http.ResponseWriter, _ *http.Request) error {
			got = append(got, fd)
			return nil
		},
	})
	fds := map[string]string{"0": "s0", "control": "sc"}
	if diff := cmp.Diff(any(fds), o.APIFor("alice").Metadata["fds"]); diff != "" {
		t.Error(diff)
	}
	for _, who := range []string{"", "bob"} {
		if a := o.APIFor(who); a.Metadata["fds"] != nil || a.Metadata["command"] == nil {
			t.Errorf("%q sees %v", who, a.Metadata)
		}
	}
	for _, a := range rec.ops {
		if a.Metadata["fds"] != nil {
			t.Error("secrets are in an event")
		}
	}
	connect := func(id, secret string) error {
		return m.Connect(t.Context(), id, secret, httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	wantKind(t, connect("nosuch", "s0"), api.NotFound)
	wantKind(t, connect(o.ID(), ""), api.Internal)
	wantKind(t, connect(o.ID(), "s1"), api.Internal)
	for _, s := range []string{"sc", "s0"} {
		if err := connect(o.ID(), s); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"control", "0"}, got); diff != "" {
		t.Error(diff)
	}
	o.ExtendMetadata(map[string]any{"x": 1})
	if o.APIFor("alice").Metadata["fds"] == nil {
		t.Error("secrets are gone after adding metadata")
	}
	o.UpdateMetadata(map[string]any{"return": 0})
	if diff := cmp.Diff(map[string]any{"return": 0}, o.APIFor("alice").Metadata); diff != "" {
		t.Error(diff)
	}
	if err := o.Cancel(); err != nil {
		t.Fatal(err)
	}
	<-o.Done()
	wantKind(t, connect(o.ID(), "s0"), api.BadState)

	plain := start(t, m, task(untilCancelled))
	wantKind(t, connect(plain.ID(), "s0"), api.BadState)
	nobody := start(t, m, Spec{Class: api.ClassWebsocket, Secrets: fds, Run: untilCancelled})
	if nobody.APIFor("").Metadata["fds"] != nil {
		t.Error("operation without owner shows its secrets to nobody in particular")
	}
	if err := m.Shutdown(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

func TestCancelThroughManager(t *testing.T) {
	rec := &recorder{}
	m := New(Deps{Events: rec})
	o := start(t, m, Spec{Class: api.ClassToken, Project: "p", Cancel: true})
	if err := m.Cancel(o.ID(), &api.EventLifecycleRequestor{Username: "root"}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, o.Wait(t.Context()), api.Canceled)
	if !slices.Contains(rec.events(), "p lifecycle operation-cancelled") {
		t.Errorf("got %v", rec.events())
	}
	wantKind(t, m.Cancel(o.ID(), nil), api.BadState)
	wantKind(t, m.Cancel("nosuch", nil), api.NotFound)
}

func TestListAndLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Deps{Events: &recorder{}})
		end := make(chan struct{})
		wait := func(context.Context, *Op) error { <-end; return nil }
		var ids []string
		for _, project := range []string{"a", "b", ""} {
			ids = append(ids, start(t, m, Spec{Project: project, Run: wait}).ID())
			time.Sleep(time.Second)
		}
		list := func(project string) (out []string) {
			for _, o := range m.List(project) {
				out = append(out, o.ID())
			}
			return out
		}
		for project, want := range map[string][]string{"": ids, "a": {ids[0], ids[2]}, "b": ids[1:], "c": {ids[2]}} {
			if diff := cmp.Diff(want, list(project)); diff != "" {
				t.Errorf("project %q: %s", project, diff)
			}
		}
		close(end)
		time.Sleep(4 * time.Second)
		if len(list("")) != 3 {
			t.Error("ended operations are not visible any more after 4 s")
		}
		time.Sleep(2 * time.Second)
		if len(list("")) != 0 || len(m.timers) != 0 {
			t.Error("ended operations are visible after 6 s")
		}
		_, err := m.Get(ids[0])
		wantKind(t, err, api.NotFound)
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Deps{Events: &recorder{}})
		o := start(t, m, task(func(ctx context.Context, _ *Op) error {
			time.Sleep(10 * time.Second)
			return api.Errorf(api.InUse, "x")
		}))
		for _, timeout := range []time.Duration{0, 5 * time.Second} {
			got, err := m.Wait(t.Context(), o.ID(), timeout)
			if err != nil || got.API().StatusCode != api.Running {
				t.Errorf("after %s: got %v, %v", timeout, got, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantKind(t, o.Wait(ctx), api.Timeout)
		_, err := m.Wait(ctx, o.ID(), -1)
		wantKind(t, err, api.Canceled)
		got, err := m.Wait(t.Context(), o.ID(), -1)
		if err != nil || got.API().StatusCode != api.Failure {
			t.Errorf("got %v, %v", got, err)
		}
		_, err = m.Wait(t.Context(), "nosuch", -1)
		wantKind(t, err, api.NotFound)
		if err := m.Shutdown(t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Deps{Events: &recorder{}})
		session := start(t, m, Spec{Class: api.ClassWebsocket, Run: untilCancelled})
		short := start(t, m, task(func(ctx context.Context, _ *Op) error {
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}))
		long := start(t, m, task(untilCancelled))
		deaf := start(t, m, task(func(context.Context, *Op) error { time.Sleep(time.Minute); return nil }))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		err := m.Shutdown(ctx, 10*time.Second)
		wantKind(t, err, api.Timeout)
		if err == nil || !strings.Contains(err.Error(), deaf.ID()) || strings.Contains(err.Error(), long.ID()) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("took %s", took)
		}
		if short.Err() != nil {
			t.Errorf("short task: %v", short.Err())
		}
		wantKind(t, session.Err(), api.Unavailable)
		wantKind(t, long.Err(), api.Unavailable)
		<-deaf.Done()
	})
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		m := New(Deps{Events: rec})
		o := start(t, m, task(func(_ context.Context, o *Op) error {
			for i := range 101 { // one second
				o.Progress("download_progress", Progress{Text: "rootfs", Percent: i, Bytes: int64(i) * 1000, Speed: 12500000})
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		}))
		if err := o.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(rec.events()); n < 8 || n > 12 {
			t.Errorf("%d events, want about 5 a second and the changes of status", n)
		}
		want := map[string]any{
			"download_progress": "rootfs: 100% (12.50MB/s)",
			"progress":          map[string]string{"stage": "download", "percent": "100", "processed": "100000", "speed": "12500000"},
		}
		if diff := cmp.Diff(want, rec.last().Metadata); diff != "" {
			t.Error(diff)
		}
		time.Sleep(10 * time.Second)
	})
	for p, want := range map[Progress]string{
		{Percent: -1, Bytes: 999}:                 "999B",
		{Percent: -1, Bytes: 2500000, Speed: 500}: "2.50MB (500B/s)",
		{Percent: 0}:                             "0%",
		{Percent: -1, Bytes: 1 << 62, Text: "x"}: "x: 4611686.02TB",
	} {
		if got := p.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestManyAtOnce is for the race detector.
func TestManyAtOnce(t *testing.T) {
	m := New(Deps{Events: &recorder{}})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			o, err := m.Start(Spec{Project: fmt.Sprint(i % 3), Cancel: true, Run: func(ctx context.Context, o *Op) error {
				o.Progress("x_progress", Progress{Percent: i})
				o.ExtendMetadata(map[string]any{"i": i})
				if i%2 == 0 {
					<-ctx.Done()
				}
				return ctx.Err()
			}})
			if err != nil {
				t.Error(err)
				return
			}
			m.List("1")
			if i%2 == 0 {
				if err := m.Cancel(o.ID(), nil); err != nil {
					t.Error(err)
				}
			}
			_ = o.Wait(t.Context())
			o.API()
		})
	}
	wg.Wait()
	if err := m.Shutdown(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
}
