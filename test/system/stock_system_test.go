//go:build system

package system

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The flow of first light, by Debian's own lxc, which only LXD_DIR tells where
// the daemon is.
func TestStockClient(t *testing.T) {
	h := newHost(t, "overlay")
	if _, err := exec.LookPath("lxc"); err != nil {
		t.Fatal("lxc is missing; scripts/install-deps test installs it")
	}
	conf := t.TempDir()
	lxc := func(stdin string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "lxc", args...)
		cmd.Env = append(os.Environ(), "LXD_DIR="+h.dir, "LXD_CONF="+conf)
		cmd.Stdin = strings.NewReader(stdin)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := cmd.Run(); err != nil {
			t.Fatalf("lxc %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errOut.String())
		}
		return strings.TrimSuffix(out.String(), "\n")
	}
	lxc("", "launch", "busybox", "c1", "-c", "limits.processes=50")
	if got := lxc("in", "exec", "c1", "--env", "A=b", "--", "sh", "-c", "echo $A; cat"); got != "b\nin" {
		t.Errorf("exec: %q", got)
	}
	push := filepath.Join(conf, "push")
	if err := os.WriteFile(push, []byte("pushed"), 0o640); err != nil {
		t.Fatal(err)
	}
	lxc("", "file", "push", push, "c1/root/pushed")
	if got := lxc("", "file", "pull", "c1/root/pushed", "-"); got != "pushed" {
		t.Errorf("file pull: %q", got)
	}
	lxc("", "config", "set", "c1", "limits.memory", "200MiB")
	if got := lxc("", "config", "get", "c1", "limits.memory"); got != "200MiB" {
		t.Errorf("config get: %q", got)
	}
	if got := lxc("", "info", "c1"); !strings.Contains(got, "Status: RUNNING") || !strings.Contains(got, "eth0:") {
		t.Errorf("info: %s", got)
	}
	lxc("", "pause", "c1")
	lxc("", "start", "c1")
	lxc("", "restart", "c1")
	lxc("", "stop", "c1")
	lxc("", "rename", "c1", "c2")
	if got := lxc("", "list", "-f", "csv", "-c", "ns"); got != "c2,STOPPED" {
		t.Errorf("list: %q", got)
	}
	lxc("", "profile", "copy", "default", "mine")
	lxc("", "profile", "assign", "c2", "mine")
	lxc("", "network", "list")
	lxc("", "storage", "list")
	lxc("", "operation", "list")
	export := filepath.Join(conf, "image")
	lxc("", "image", "export", "busybox", export)
	lxc("", "image", "alias", "create", "other", lxc("", "image", "list", "-f", "csv", "-c", "f"))
	lxc("", "image", "info", "other")
	lxc("", "delete", "c2")
	lxc("", "profile", "delete", "mine")
}
