package storetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// crashDir, in the environment of a test binary, turns it into the writer that
// testCrash kills.
const crashDir = "CROFT_STORETEST_CRASH_DIR"

// Main replaces TestMain's m.Run: the crash test starts the test binary again as
// a writer.
func Main(m *testing.M, b Backend) int {
	dir := os.Getenv(crashDir)
	if dir == "" {
		return m.Run()
	}
	if err := crashWriter(b, dir, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// crashWriter counts up for ever: each commit writes the number in both scopes,
// adds a key, drops an older one, emits an event, and is then acknowledged.
func crashWriter(b Backend, dir string, ack io.Writer) error {
	ctx := context.Background()
	s, err := b.Open(ctx, dir, nil)
	if err != nil {
		return err
	}
	for {
		var n int
		err := s.Update(ctx, func(tx store.Tx) error {
			it, ok, err := tx.Get("crash/n")
			if err != nil {
				return err
			}
			n = 1
			if ok {
				old, err := strconv.Atoi(string(it.Value))
				if err != nil {
					return err
				}
				n = old + 1
			}
			return crashStep(tx, n)
		})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(ack, n); err != nil {
			return err
		}
	}
}

// kept is how many numbered keys a consistent store has.
const kept = 20

func crashStep(tx store.Tx, n int) error {
	text := []byte(strconv.Itoa(n))
	// Large enough to touch several pages, different enough to move them.
	pad := []byte(`"` + strings.Repeat("x", n*37%3000) + `"`)
	for key, v := range map[string][]byte{"crash/n": text, "local/crash/n": text, fmt.Sprintf("crash/log/%08d", n): pad} {
		if err := tx.Put(key, append([]byte(nil), v...)); err != nil {
			return err
		}
	}
	if n > kept {
		if err := tx.Delete(fmt.Sprintf("crash/log/%08d", n-kept)); err != nil {
			return err
		}
	}
	return tx.Emit(store.Event{Type: api.EventLifecycle, Payload: text})
}

// testCrash kills a writing process again and again. After each kill the store
// holds what was acknowledged, at most the one commit after it too, and nothing
// half-done.
func testCrash(t *testing.T, b Backend) {
	if _, ok := os.LookupEnv(crashDir); ok {
		t.Fatal("crash test inside of a crash test")
	}
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	acked := 0
	for round := range rounds {
		acked = crashRound(t, dir, 1+rand.IntN(25))
		n := crashVerify(t, b, dir)
		if n < acked || n > acked+1 {
			t.Fatalf("round %d: %d is stored, %d was acknowledged", round, n, acked)
		}
	}
}

// crashRound runs a writer, kills it after some acknowledgements and gives the
// last number that it acknowledged.
func crashRound(t *testing.T, dir string, commits int) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last, seen := 0, 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			break // a line cut by the kill
		}
		last = n
		if seen++; seen == commits {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if seen < commits {
		t.Fatalf("writer ended by itself after %d commits: %s", seen, stderr.String())
	}
	return last
}

// crashVerify opens the store, checks that it is one that the writer can have
// left, and gives the number in it.
func crashVerify(t *testing.T, b Backend, dir string) int {
	t.Helper()
	s, err := b.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	n := 0
	var at store.Rev
	view(t, s, func(tx store.Tx) error {
		at = tx.Rev()
		shared, ok, _ := tx.Get("crash/n")
		local, _, _ := tx.Get("local/crash/n")
		if !ok || string(shared.Value) != string(local.Value) {
			t.Errorf("shared %s, local %s", shared.Value, local.Value)
		}
		n, _ = strconv.Atoi(string(shared.Value))
		items, err := tx.List("crash/log/")
		if err != nil {
			return err
		}
		if len(items) != min(n, kept) {
			t.Errorf("%d numbered keys at %d", len(items), n)
		}
		for i, it := range items {
			if want := fmt.Sprintf("crash/log/%08d", max(0, n-kept)+i+1); it.Key != want {
				t.Errorf("key %s, want %s", it.Key, want)
			}
		}
		return nil
	})
	verifyLog(t, b, s, at, n)
	return n
}

// verifyLog checks the events of the last commits: one for each number.
func verifyLog(t *testing.T, b Backend, s store.Store, at store.Rev, n int) {
	t.Helper()
	from := store.Rev(max(0, int(at)-b.LogLimit))
	ch, err := s.Watch(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	for r := from + 1; r <= at; r++ {
		batch := <-ch
		want := strconv.Itoa(n - int(at-r))
		if batch.Rev != r || len(batch.Events) != 1 || string(batch.Events[0].Payload) != want {
			t.Fatalf("log entry %d: got %d with events %+v, want event %s", r, batch.Rev, batch.Events, want)
		}
	}
}
