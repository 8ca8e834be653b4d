//go:build system

package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// TestDiskFull is TestFull on a file system that is really full.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t)
	fillUp(t, open(t, Options{Path: filepath.Join(dir, "db", "croft.db"), LogLimit: 4}))
}

// TestDiskFullThenFree has one open database run into a full disk and go on when
// there is space again.
func TestDiskFullThenFree(t *testing.T) {
	dir := smallDisk(t)
	d := open(t, Options{Path: filepath.Join(dir, "db", "croft.db")})
	put(t, d, "a", `"1"`)
	other := filepath.Join(dir, "other")
	_ = os.WriteFile(other, make([]byte, 2<<20), 0o600) // takes all that is left
	write := func() error {
		return d.Update(t.Context(), func(tx store.Tx) error { return tx.Put("big", make([]byte, 100<<10)) })
	}
	if err := write(); !errors.Is(err, api.NoSpace) {
		t.Fatalf("write on a full disk: got %v, want NoSpace", err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Fatalf("after space was made: %v", err)
	}
}

// TestReserve goes on writing although the disk is full.
func TestReserve(t *testing.T) {
	dir := smallDisk(t)
	d := open(t, Options{Path: filepath.Join(dir, "db", "croft.db"), Reserve: 512 << 10})
	_ = os.WriteFile(filepath.Join(dir, "other"), make([]byte, 2<<20), 0o600)
	for i := range 10 {
		put(t, d, fmt.Sprint("key", i), strings.Repeat("x", 10<<10))
	}
}

// smallDisk mounts a file system of 1 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("croft-test", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
