package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
	"github.com/croft-project/croft/internal/store/storetest"
)

var backend = storetest.Backend{
	LogLimit: 64,
	Open: func(ctx context.Context, dir string, now func() time.Time) (store.Store, error) {
		return Open(ctx, Options{Path: filepath.Join(dir, "db", "croft.db"), Now: now, LogLimit: 64})
	},
}

func TestMain(m *testing.M) { os.Exit(storetest.Main(m, backend)) }

func TestSuite(t *testing.T) { storetest.Run(t, backend) }

func open(t testing.TB, opts Options) *DB {
	t.Helper()
	d, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func put(t testing.TB, d *DB, key, value string) {
	t.Helper()
	err := d.Update(t.Context(), func(tx store.Tx) error { return tx.Put(key, []byte(value)) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestModes(t *testing.T) {
	// The umask belongs to the process: no parallel tests here.
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "db", "croft.db")
	d := open(t, Options{Path: path, Backups: 1})
	put(t, d, "a", "1")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil { // as an administrator's slip
		t.Fatal(err)
	}
	open(t, Options{Path: path, Backups: 1})
	for name, want := range map[string]os.FileMode{filepath.Dir(path): 0o700, path: 0o600, listBackups(path)[0].path: 0o600} {
		fi, err := os.Stat(name)
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, fi.Mode(), err, want)
		}
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db", "croft.db")
	open(t, Options{Path: path})
	_, err := Open(t.Context(), Options{Path: path, LockWait: 10 * time.Millisecond})
	if !errors.Is(err, api.Unavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want Unavailable with the file's name", err)
	}
}

// TestDamaged cuts and overwrites the file in many places: Open gives an error or
// a store that works, and never takes the process down.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "good", "croft.db")
	d := open(t, Options{Path: path})
	for i := range 200 {
		put(t, d, fmt.Sprintf("key/%d", i), strings.Repeat("v", i*7))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, data []byte) {
		t.Helper()
		p := filepath.Join(dir, "bad", "croft.db")
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(p)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(t.Context(), Options{Path: p})
		if err != nil {
			if !errors.Is(err, api.Internal) || api.HintOf(err) == "" {
				t.Errorf("%s: got %v, want Internal with a hint", name, err)
			}
			return
		}
		if err := d.View(t.Context(), func(tx store.Tx) error { _, err := tx.List(""); return err }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = d.Close()
	}
	page := os.Getpagesize()
	for n := page; n < len(good); n += 3 * page {
		try(fmt.Sprintf("cut at %d", n), good[:n])
		bad := bytes.Clone(good)
		copy(bad[n:min(n+page, len(bad))], bytes.Repeat([]byte{0xa5}, page))
		try(fmt.Sprintf("page %d overwritten", n/page), bad)
		bad = bytes.Clone(good)
		clear(bad[n:min(n+page, len(bad))])
		try(fmt.Sprintf("page %d zeroed", n/page), bad)
	}
	try("not a database", []byte(strings.Repeat("hello\n", 10000)))
	// bbolt takes an empty file for a new one; so do we.
	try("empty", nil)
}

func TestForeignDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db", "x.db")
	d := open(t, Options{Path: path})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	withBolt(t, path, func(b bucketMaker) error {
		if err := b.DeleteBucket(bucketMeta); err != nil {
			return err
		}
		_, err := b.CreateBucket([]byte("somebody-else"))
		return err
	})
	if _, err := Open(t.Context(), Options{Path: path}); err == nil || !strings.Contains(err.Error(), "not a Croft database") {
		t.Errorf("got %v", err)
	}
}

func TestLaterFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db", "x.db")
	d := open(t, Options{Path: path})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	withBolt(t, path, func(b bucketMaker) error { return putUint(b.Bucket(bucketMeta), keyFormat, format+1) })
	if _, err := Open(t.Context(), Options{Path: path}); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("got %v", err)
	}
}

// TestFull lets the file outgrow its limit: the failed commit leaves nothing,
// reading goes on, and room made by deleting can be used again.
func TestFull(t *testing.T) {
	d := open(t, Options{Path: filepath.Join(t.TempDir(), "db", "croft.db"), MaxBytes: 512 << 10, LogLimit: 4})
	fillUp(t, d)
}

// fillUp writes until there is no space, then checks what is there.
func fillUp(t *testing.T, d *DB) {
	t.Helper()
	chunk := []byte(strings.Repeat("z", 20<<10))
	var err error
	n := 0
	for ; n < 10000; n++ {
		err = d.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Put(fmt.Sprintf("fill/%05d/a", n), chunk); err != nil {
				return err
			}
			return tx.Put(fmt.Sprintf("fill/%05d/b", n), chunk)
		})
		if err != nil {
			break
		}
	}
	if !errors.Is(err, api.NoSpace) {
		t.Fatalf("after %d commits: got %v, want NoSpace", n, err)
	}
	count := func(s *DB) (c int) {
		_ = s.View(t.Context(), func(tx store.Tx) error {
			items, err := tx.List("fill/")
			c = len(items)
			if tx.Rev() != store.Rev(n) {
				t.Errorf("revision %d after %d commits", tx.Rev(), n)
			}
			return err
		})
		return c
	}
	if c := count(d); c != 2*n {
		t.Errorf("%d keys after %d commits", c, n)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, Options{Path: d.opts.Path, MaxBytes: d.opts.MaxBytes, LogLimit: d.opts.LogLimit})
	if c := count(d); c != 2*n {
		t.Errorf("%d keys after %d commits and reopening", c, n)
	}
}

func TestBackups(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db", "croft.db")
	for i := range 6 {
		d := open(t, Options{Path: path, Backups: 3})
		put(t, d, "n", fmt.Sprint(i))
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		// Opened twice without a change in between: no second copy.
		d = open(t, Options{Path: path, Backups: 3})
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	backups := listBackups(path)
	if len(backups) != 3 {
		t.Fatalf("%d backups, want 3", len(backups))
	}
	// The newest holds the last value and opens as a database.
	data, err := os.ReadFile(backups[0].path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "db", "copy.db")
	if err := os.MkdirAll(filepath.Dir(copied), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, Options{Path: copied})
	err = d.View(t.Context(), func(tx store.Tx) error {
		it, _, err := tx.Get("n")
		if string(it.Value) != "5" {
			t.Errorf("backup holds %s, want 5", it.Value)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBackupCancelled(t *testing.T) {
	d := open(t, Options{Path: filepath.Join(t.TempDir(), "db", "croft.db")})
	ctx, cancel := context.WithCancel(t.Context())
	w := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if err := d.Backup(ctx, w); !errors.Is(err, api.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestBroken has a commit fail in a way that leaves it open whether the file has
// it: reading goes on, writing does not.
func TestBroken(t *testing.T) {
	d := open(t, Options{Path: filepath.Join(t.TempDir(), "db", "croft.db")})
	put(t, d, "a", "1")
	if err := d.db.Close(); err != nil { // pull the file away
		t.Fatal(err)
	}
	for range 2 {
		err := d.Update(t.Context(), func(tx store.Tx) error { return tx.Put("a", []byte("2")) })
		if err == nil {
			t.Fatal("commit without a file succeeded")
		}
	}
	err := d.View(t.Context(), func(tx store.Tx) error {
		if it, _, _ := tx.Get("a"); string(it.Value) != "1" {
			t.Errorf("got %s", it.Value)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = d.Update(t.Context(), func(tx store.Tx) error { return nil })
	if !errors.Is(err, api.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func BenchmarkView100(b *testing.B) {
	d := open(b, Options{Path: filepath.Join(b.TempDir(), "db", "croft.db")})
	fill(b, d, 1000)
	for b.Loop() {
		err := d.View(b.Context(), func(tx store.Tx) error {
			recs, err := store.List[map[string]string](tx, "instance/default/c00")
			if len(recs) != 100 {
				b.Fatal(len(recs))
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	d := open(b, Options{Path: filepath.Join(b.TempDir(), "db", "croft.db")})
	fill(b, d, 1000)
	value := []byte(`{"config":"` + strings.Repeat("x", 1500) + `"}`)
	for b.Loop() {
		err := d.Update(b.Context(), func(tx store.Tx) error { return tx.Put("instance/default/c0500", bytes.Clone(value)) })
		if err != nil {
			b.Fatal(err)
		}
	}
}

func fill(b *testing.B, d *DB, n int) {
	b.Helper()
	err := d.Update(b.Context(), func(tx store.Tx) error {
		for i := range n {
			v := map[string]string{"name": fmt.Sprint(i), "config": strings.Repeat("x", 1000)}
			if err := store.Put(tx, fmt.Sprintf("instance/default/c%04d", i), &v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
