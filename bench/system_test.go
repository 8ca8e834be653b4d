//go:build linux && system

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the supervisor, as the program itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == superviseArg {
		os.Exit(supervise(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// A stand-in daemon forks away a process that outlives its parent. The supervisor must still count it, keep the
// daemon in a network namespace with its own sysfs, and end both.
func TestSupervisorOwnsOrphans(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "daemon")
	err := os.WriteFile(script, []byte(`#!/bin/sh
(setsid sleep 1000 & echo $! > "$BENCH_DIR/orphan.new"; mv "$BENCH_DIR/orphan.new" "$BENCH_DIR/orphan")
ls /sys/class/net > "$BENCH_DIR/links"
ls /sys/fs/cgroup > "$BENCH_DIR/cgroups"
mkfifo "$BENCH_DIR/ready"; : > "$BENCH_DIR/ready"
sleep 1000
`), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{dir: dir, token: "cb0"}
	tgt := newTarget(kind{name: "lxd", title: "stand-in", letter: "l", binary: script, dirEnv: "BENCH_DIR"}, "dir", 0, options{}, h)
	if err := os.MkdirAll(tgt.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := tgt.spawn(); err != nil {
		t.Fatalf("%v\n%s", err, tgt.logTail())
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = tgt.stop()
		}
	}()
	fifo := filepath.Join(tgt.dir, "ready")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if f, err := os.Open(fifo); err == nil {
			f.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the stand-in did not get ready\n%s", tgt.logTail())
		}
	}
	orphan := strings.TrimSpace(read(t, filepath.Join(tgt.dir, "orphan")))
	if got := strings.TrimSpace(read(t, filepath.Join(tgt.dir, "links"))); got != "lo" {
		t.Errorf("/sys/class/net of the daemon shows %q, want only lo", got)
	}
	if read(t, filepath.Join(tgt.dir, "cgroups")) == "" {
		t.Error("the daemon does not see the cgroups")
	}
	if mib, err := helperMemory(tgt.supervisor.Process.Pid, tgt.pid); err != nil || mib <= 0 {
		t.Errorf("helper memory = %v, %v: the orphan was not counted", mib, err)
	}
	stopped = true
	if err := tgt.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + orphan); err == nil {
		t.Errorf("process %s outlived its supervisor", orphan)
	}
	if err := unix.Kill(tgt.pid, 0); err != unix.ESRCH {
		t.Errorf("the daemon outlived its supervisor: %v", err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
