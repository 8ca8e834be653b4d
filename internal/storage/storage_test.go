package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

func TestRef(t *testing.T) {
	for _, c := range []struct {
		ref  Ref
		dir  string
		good bool
	}{
		{Ref{"default", "c1"}, "c1", true},
		{Ref{"", "c1"}, "c1", true},
		{Ref{"team", "c1"}, "team_c1", true},
		{Ref{"my_team", "c1"}, "my_team_c1", true},
		{Ref{"default", ""}, "", false},
		{Ref{"default", ".."}, "..", false},
		{Ref{"default", ".tmp-x"}, ".tmp-x", false},
		{Ref{"default", "a/b"}, "a/b", false},
		{Ref{"default", "a\x00"}, "a\x00", false},
		{Ref{"default", "a_b"}, "a_b", false}, // would be b of project a
		{Ref{"../x", "c"}, "../x_c", false},
		{Ref{"p", strings.Repeat("x", 101)}, "p_" + strings.Repeat("x", 101), false},
	} {
		if got := c.ref.String(); got != c.dir {
			t.Errorf("%q: directory %q, want %q", c.ref, got, c.dir)
		}
		if err := c.ref.check(); (err == nil) != c.good || err != nil && !errors.Is(err, api.Invalid) {
			t.Errorf("%q: %v", c.ref, err)
		}
		if back := ParseRef(c.dir); c.good && (back.Name != c.ref.Name || back.String() != c.dir) {
			t.Errorf("%q: parsed as %q", c.dir, back)
		}
	}
}

func TestCheckFingerprint(t *testing.T) {
	good := strings.Repeat("0a", 32)
	for s, want := range map[string]bool{good: true, "": false, good[1:]: false, strings.ToUpper(good): false, "../" + good[3:]: false} {
		if err := checkFingerprint(s); (err == nil) != want {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestWrap(t *testing.T) {
	for kind, err := range map[api.Kind]error{
		api.NoSpace:  &os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC},
		api.Canceled: fmt.Errorf("copy: %w", context.Canceled),
		api.Timeout:  context.DeadlineExceeded,
		api.Internal: unix.EIO,
		api.Conflict: fmt.Errorf("x: %w", api.Errorf(api.Conflict, "there")),
	} {
		if got := wrap("try", err); api.KindOf(got) != kind || !errors.Is(got, err) {
			t.Errorf("%v: kind %s", got, api.KindOf(got))
		}
	}
	if wrap("try", nil) != nil {
		t.Error("no error became one")
	}
}

func TestKeyedMutex(t *testing.T) {
	var k keyedMutex
	var all sync.WaitGroup
	count := map[string]*int{"a": new(int), "b": new(int)} // plain ints: the race detector watches
	for i := range 100 {
		key := []string{"a", "b"}[i%2]
		all.Go(func() {
			unlock, err := k.lock(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			*count[key]++
		})
	}
	all.Wait()
	if *count["a"] != 50 || *count["b"] != 50 || len(k.held) != 0 {
		t.Errorf("%d %d, %d still held", *count["a"], *count["b"], len(k.held))
	}
	unlock, err := k.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a held lock: %v", err)
	}
}

func TestTrash(t *testing.T) {
	dir := t.TempDir()
	trash := NewTrash(slog.New(slog.DiscardHandler))
	for i := range 50 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(filepath.Join(path, "a/b"), 0o755); err != nil {
			t.Fatal(err)
		}
		trash.Put(path)
	}
	if err := trash.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v %v", entries, err)
	}
	trash.Put(filepath.Join(dir, "absent"))
	if err := trash.Close(t.Context()); err != nil {
		t.Error(err)
	}
	late := filepath.Join(dir, "late")
	if err := os.Mkdir(late, 0o755); err != nil {
		t.Fatal(err)
	}
	trash.Put(late)
	if err := trash.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if !exists(late) {
		t.Error("a closed queue took something")
	}
}

func TestTrashCloseGivesUp(t *testing.T) {
	dir := t.TempDir()
	trash := NewTrash(slog.New(slog.DiscardHandler))
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(filepath.Join(path, "a/b/c/d/e/f"), 0o755); err != nil {
			t.Fatal(err)
		}
		trash.Put(path)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Whether it was still busy or not, nothing runs afterwards.
	if err := trash.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
