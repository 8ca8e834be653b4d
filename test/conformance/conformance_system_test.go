//go:build system

package conformance

import (
	"bufio"
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/croft-project/croft/test/systest"
)

// harness finds the recorded answers: CROFT_CONFORMANCE, or shared/conformance
// beside the repository. They are not part of it; without them there is nothing
// to compare with.
func harness(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CROFT_CONFORMANCE")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "conformance")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "oracle.py")); err != nil {
		t.Skipf("no recorded answers at %s", dir)
	}
	return dir
}

func scenarios(t *testing.T) []string {
	t.Helper()
	f, err := os.Open("first-light.list")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if s := strings.TrimSpace(lines.Text()); s != "" && !strings.HasPrefix(s, "#") {
			out = append(out, s)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// croftd is the daemon that the harness starts and ends.
var croftd string

// TestMain runs the scenarios in namespaces of their own: they make bridges.
func TestMain(m *testing.M) {
	os.Exit(systest.Main(m, nil, func(dir string) (err error) {
		croftd, err = systest.Program(dir, "croftd")
		return err
	}))
}

func TestFirstLight(t *testing.T) {
	dir, list := harness(t), scenarios(t)
	if len(list) < 20 {
		t.Fatalf("only %d scenarios are listed", len(list))
	}
	for _, driver := range []string{"dir", "overlay"} {
		t.Run(driver, func(t *testing.T) { compare(t, dir, driver, list) })
	}
}

// compare runs the listed scenarios on one storage driver, each as a subtest.
// Those that fail are run once more, alone: the harness's guest takes signals
// only some milliseconds after its start, which a busy machine can make too late
// for a scenario that sends one at once.
func compare(t *testing.T, dir, driver string, list []string) {
	verdicts, out := oracle(t, dir, driver, list)
	var again []string
	for _, s := range list {
		if verdicts[s] != "PASS" {
			again = append(again, s)
		}
	}
	if len(again) > 0 && len(again) < 4 {
		t.Logf("again: %v\n%s", again, out)
		var second map[string]string
		second, out = oracle(t, dir, driver, again)
		maps.Copy(verdicts, second)
	}
	for _, s := range list {
		t.Run(s, func(t *testing.T) {
			if v := verdicts[s]; v != "PASS" {
				t.Errorf("%s: %q, want PASS", s, v)
			}
		})
	}
	if t.Failed() {
		t.Errorf("%s", out)
	}
}

// oracle runs scenarios and returns the harness's verdict on each.
func oracle(t *testing.T, dir, driver string, list []string) (verdicts map[string]string, out []byte) {
	t.Helper()
	var quoted []string
	for _, s := range list {
		quoted = append(quoted, regexp.QuoteMeta(s))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", filepath.Join(dir, "oracle.py"), "compare", "--single", "--no-error-text",
		"--spawn", croftd+" --group root", "^("+strings.Join(quoted, "|")+")$")
	// Python must not write beside the harness, and its daemon ends with it.
	cmd.Env = append(os.Environ(), "DIFF_POOL_DRIVER="+driver, "PYTHONDONTWRITEBYTECODE=1", "DIFF_TMP="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.CombinedOutput()
	verdicts = map[string]string{}
	for line := range bytes.Lines(out) {
		if f := strings.Fields(string(line)); len(f) > 1 && (f[0] == "PASS" || f[0] == "FAIL" || f[0] == "SKIP") {
			verdicts[f[1]] = f[0]
		}
	}
	if err != nil && len(verdicts) == 0 {
		t.Errorf("oracle: %v", err)
	}
	return verdicts, out
}
