package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
	"github.com/croft-project/croft/internal/store/bolt"
)

const logLimit = 16

func openStore(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(dir, "db", "x.db"), LogLimit: logLimit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// runHub makes a hub that runs until the test ends.
func runHub(t *testing.T, opts Options) *Hub {
	t.Helper()
	h, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	run(t, h)
	return h
}

func run(t *testing.T, h *Hub) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(ctx); !errors.Is(err, api.Canceled) && !errors.Is(err, api.Unavailable) {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

func emit(t *testing.T, s store.Store, project, action string) store.Rev {
	t.Helper()
	var rev store.Rev
	err := s.Update(t.Context(), func(tx store.Tx) error {
		rev = tx.Rev() + 1
		return store.EmitLifecycle(tx, project, api.EventLifecycleMetadata{Action: action, Source: "/1.0/x"})
	})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func subscribe(t *testing.T, h *Hub, f Filter) *Subscription {
	t.Helper()
	s, err := h.Subscribe(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// text is a short form of a message: what tests compare.
func text(t *testing.T, m Message) string {
	t.Helper()
	var meta struct{ Action, Message, Text string }
	if err := json.Unmarshal(m.Metadata, &meta); err != nil {
		t.Fatal(err)
	}
	return m.Type + " " + meta.Action + meta.Message + meta.Text
}

func next(t *testing.T, s *Subscription) string {
	t.Helper()
	m, err := s.Next(t.Context())
	if err != nil {
		return "error: " + err.Error()
	}
	return text(t, m)
}

func expect(t *testing.T, s *Subscription, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := next(t, s); got != w {
			t.Fatalf("got %q, want %q", got, w)
		}
	}
}

type note struct{ Text string }

// TestOrder: a published event comes after what was committed before it, so the
// end of an operation is never seen before what it did.
func TestOrder(t *testing.T) {
	s := openStore(t, t.TempDir())
	h := runHub(t, Options{Store: s})
	sub := subscribe(t, h, Filter{AllProjects: true})
	var want []string
	for i := range 200 {
		emit(t, s, "default", fmt.Sprint("a", i))
		h.Publish("default", api.EventOperation, note{fmt.Sprint("b", i)})
		want = append(want, fmt.Sprint("lifecycle a", i), fmt.Sprint("operation b", i))
	}
	expect(t, sub, want...)
}

func TestShape(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	dir := filepath.Join(t.TempDir(), "db", "x.db")
	s, err := bolt.Open(t.Context(), bolt.Options{Path: dir, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	h := runHub(t, Options{Store: s, Now: func() time.Time { return at }})
	sub := subscribe(t, h, Filter{Project: "default"})
	err = s.Update(t.Context(), func(tx store.Tx) error {
		return store.EmitLifecycle(tx, "default", api.EventLifecycleMetadata{
			Action: "instance-started", Source: "/1.0/instances/c1",
			Requestor: &api.EventLifecycleRequestor{Username: "root", Protocol: "unix", Address: "@"},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := sub.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The fields are those of events.monitor-cli in the conformance recordings.
	want := `{"type":"lifecycle","timestamp":"2026-01-02T03:04:05.000006Z","metadata":{"action":"instance-started",` +
		`"source":"/1.0/instances/c1","requestor":{"username":"root","protocol":"unix","address":"@"}},"location":"none","project":"default"}`
	if diff := cmp.Diff(want, string(m.JSON)); diff != "" {
		t.Error(diff)
	}
	if m.Rev != 1 {
		t.Errorf("cursor %d, want 1", m.Rev)
	}
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		filter             Filter
		eventType, project string
		want               bool
	}{
		{Filter{Project: "a"}, api.EventLifecycle, "a", true},
		{Filter{Project: "a"}, api.EventLifecycle, "b", false},
		{Filter{Project: "a"}, api.EventLogging, "", true},
		{Filter{AllProjects: true}, api.EventLifecycle, "b", true},
		{Filter{AllProjects: true, Types: []string{api.EventOperation}}, api.EventLifecycle, "b", false},
		{Filter{AllProjects: true, Types: []string{api.EventOperation, api.EventLifecycle}}, api.EventLifecycle, "b", true},
		{Filter{}, api.EventLifecycle, "b", false},
	} {
		if got := c.filter.matches(Message{Event: api.Event{Type: c.eventType, Project: c.project}}); got != c.want {
			t.Errorf("%+v on %s of project %q: got %v", c.filter, c.eventType, c.project, got)
		}
	}
	h := runHub(t, Options{Store: openStore(t, t.TempDir())})
	if _, err := h.Subscribe(t.Context(), Filter{Types: []string{"nonsense"}}); !errors.Is(err, api.Invalid) {
		t.Errorf("got %v, want Invalid", err)
	}
}

// TestSlow: who does not read is cut off, the others get everything.
func TestSlow(t *testing.T) {
	s := openStore(t, t.TempDir())
	h := runHub(t, Options{Store: s, Buffer: 4})
	lazy := subscribe(t, h, Filter{AllProjects: true})
	quick := subscribe(t, h, Filter{AllProjects: true})
	for i := range 10 {
		emit(t, s, "p", fmt.Sprint(i))
		expect(t, quick, fmt.Sprint("lifecycle ", i))
	}
	expect(t, lazy, "lifecycle 0", "lifecycle 1", "lifecycle 2", "lifecycle 3", "error: "+ErrSlow.Error())
	if len(h.subs) != 1 {
		t.Errorf("%d subscribers are left, want 1", len(h.subs))
	}
}

func TestResume(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	h := runHub(t, Options{Store: s})
	first := subscribe(t, h, Filter{AllProjects: true, Types: []string{api.EventLifecycle}})
	for i := range 5 {
		emit(t, s, "p", fmt.Sprint(i))
	}
	emit(t, s, "q", "other")
	expect(t, first, "lifecycle 0", "lifecycle 1")
	m, err := first.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first.Close()

	again := subscribe(t, h, Filter{Project: "p", Resume: true, Since: m.Rev})
	emit(t, s, "p", "5")
	expect(t, again, "lifecycle 3", "lifecycle 4", "lifecycle 5")

	// The cursor is good after a restart of the daemon too.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	h = runHub(t, Options{Store: s})
	restarted := subscribe(t, h, Filter{AllProjects: true, Resume: true, Since: m.Rev})
	emit(t, s, "p", "6")
	expect(t, restarted, "lifecycle 3", "lifecycle 4", "lifecycle other", "lifecycle 5", "lifecycle 6")

	for i := range logLimit + 2 {
		emit(t, s, "p", fmt.Sprint(i))
	}
	if _, err := h.Subscribe(t.Context(), Filter{Resume: true, Since: m.Rev}); !errors.Is(err, store.ErrTooOld) {
		t.Errorf("got %v, want ErrTooOld", err)
	}
}

// TestResumeUnderLoad resumes at every cursor while events keep coming: nothing
// is missed or seen twice.
func TestResumeUnderLoad(t *testing.T) {
	s := openStore(t, t.TempDir())
	h := runHub(t, Options{Store: s})
	const n = 300
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; i <= n; i++ {
			emit(t, s, "p", fmt.Sprint(i))
		}
	})
	defer wg.Wait()
	for seen := store.Rev(0); seen < n; {
		sub, err := h.Subscribe(t.Context(), Filter{AllProjects: true, Resume: true, Since: seen})
		if errors.Is(err, store.ErrTooOld) {
			// The log of this test is tiny: start over from the present.
			if err := s.View(t.Context(), func(tx store.Tx) error { seen = tx.Rev(); return nil }); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if seen == n {
				break
			}
			m, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if m.Rev != seen+1 {
				t.Fatalf("got revision %d after %d", m.Rev, seen)
			}
			seen = m.Rev
		}
		sub.Close()
	}
}

// TestLost: a hub that fell behind the log says so and goes on.
func TestLost(t *testing.T) {
	s := openStore(t, t.TempDir())
	h, err := New(t.Context(), Options{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, h, Filter{AllProjects: true})
	for i := range logLimit + 5 {
		emit(t, s, "p", fmt.Sprint(i))
	}
	run(t, h)
	expect(t, sub, "error: "+ErrLost.Error())
	for i := 0; ; i++ { // from here on the hub is up to date
		sub = subscribe(t, h, Filter{AllProjects: true})
		emit(t, s, "p", fmt.Sprint("after", i))
		if got := next(t, sub); got == fmt.Sprint("lifecycle after", i) {
			return
		} else if got != "error: "+ErrLost.Error() {
			t.Fatalf("got %q", got)
		}
	}
}

func TestEnds(t *testing.T) {
	s := openStore(t, t.TempDir())
	h, err := New(t.Context(), Options{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Run(ctx) })
	subCtx, subCancel := context.WithCancel(t.Context())
	one, err := h.Subscribe(subCtx, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	two := subscribe(t, h, Filter{})
	subCancel()
	expect(t, one, "error: "+ErrClosed.Error())
	reader, readerCancel := context.WithCancel(t.Context())
	readerCancel()
	if _, err := two.Next(reader); !errors.Is(err, api.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	cancel()
	wg.Wait()
	expect(t, two, "error: "+ErrClosed.Error())
	h.Publish("", api.EventOperation, note{}) // nobody listens: no effect
	if len(h.published) != 0 || h.LogWanted() {
		t.Error("hub keeps what nobody listens to")
	}
}

// TestPublishUnread bounds the memory of a hub that nobody runs.
func TestPublishUnread(t *testing.T) {
	h, err := New(t.Context(), Options{Store: openStore(t, t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	subscribe(t, h, Filter{})
	for range 3 * maxPublished {
		h.Publish("", api.EventOperation, note{"x"})
	}
	if n := len(h.published); n > maxPublished {
		t.Errorf("%d events are waiting", n)
	}
	h.Publish("", api.EventOperation, func() {}) // cannot be encoded: dropped
}
