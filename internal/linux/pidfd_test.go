package linux

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPidFDWait(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan error, 1)
	go func() { reaped <- cmd.Wait() }()
	p, _, err := ReadProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := OpenProcess(p)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	for range 3 { // a Wait that gave up must not spoil the next one
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := fd.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait on a live process: got %v, want the context's error", err)
		}
		cancel()
	}
	if fd.Exited() {
		t.Error("Exited on a live process")
	}
	if err := fd.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := fd.Wait(t.Context()); err != nil {
		t.Errorf("Wait: %v", err)
	}
	<-reaped
	if err := fd.Signal(unix.SIGKILL); !errors.Is(err, ErrGone) {
		t.Errorf("Signal to a process that is gone: got %v, want ErrGone", err)
	}
	if _, err := OpenProcess(p); !errors.Is(err, ErrGone) {
		t.Errorf("OpenProcess of a process that is gone: got %v, want ErrGone", err)
	}
	if _, err := OpenProcess(Process{PID: unix.Getpid(), Start: 1}); !errors.Is(err, ErrGone) {
		t.Errorf("OpenProcess with a wrong start time: got %v, want ErrGone", err)
	}
}

func TestReadProcess(t *testing.T) {
	p, parent, err := ReadProcess(unix.Getpid())
	if err != nil || p.Start == 0 || parent != unix.Getppid() {
		t.Errorf("ReadProcess of ourselves: %+v, parent %d, %v", p, parent, err)
	}
}
