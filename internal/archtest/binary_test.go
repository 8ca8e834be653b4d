package archtest

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestNonPIE checks that croftd is linked to a fixed address: the monitor of
// each container is forked from it, and costs three times the memory when all
// its pointers have been relocated.
func TestNonPIE(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "croftd")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildmode=exe", "-o", bin, "./cmd/croftd")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/croftd: %v\n%s", err, out)
	}
	checkNonPIE(t, bin)
	if made, err := filepath.Glob(filepath.Join(root, "bin", "croftd")); err == nil {
		for _, bin := range made {
			checkNonPIE(t, bin)
		}
	}
}

func checkNonPIE(t *testing.T, bin string) {
	t.Helper()
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC {
		t.Errorf("%s is linked as %v, want %v", bin, f.Type, elf.ET_EXEC)
	}
}
