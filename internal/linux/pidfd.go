package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names one process for as long as the machine runs: a pid alone may be
// given to another process, a pid with its start time cannot.
type Process struct {
	PID   int
	Start uint64 // clock ticks after boot, field 22 of proc(5) stat
}

// ReadProcess finds the start time and the parent of a live process.
func ReadProcess(pid int) (p Process, parent int, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, 0, err
	}
	// The command name stands in parentheses and may hold anything.
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return Process{}, 0, fmt.Errorf("process %d: short stat line", pid)
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return Process{}, 0, fmt.Errorf("process %d: parent: %w", pid, err)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Process{}, 0, fmt.Errorf("process %d: start time: %w", pid, err)
	}
	return Process{PID: pid, Start: start}, parent, nil
}

// PidFD is a handle on a process that pid reuse cannot redirect (pidfd_open(2)).
type PidFD struct {
	Process
	file *os.File
}

// ErrGone tells that a process does not exist any more.
var ErrGone = errors.New("process is gone")

// OpenProcess opens a handle on p, or fails with ErrGone if that process, with
// that start time, does not run.
func OpenProcess(p Process) (*PidFD, error) {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	// The handle is open: from here on the pid cannot change its meaning, so a
	// look at /proc tells whether it is the process that was meant.
	now, _, err := ReadProcess(p.PID)
	if err != nil || now.Start != p.Start {
		unix.Close(fd)
		return nil, ErrGone
	}
	return &PidFD{Process: p, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Close releases the handle; a Wait in progress ends.
func (p *PidFD) Close() error { return p.file.Close() }

// Signal sends sig to the process (pidfd_send_signal(2)); ErrGone if it ended.
func (p *PidFD) Signal(sig unix.Signal) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(serr, unix.ESRCH) {
		return ErrGone
	}
	return serr
}

// Wait returns when the process has ended, with nil, or when ctx has. It parks
// in the runtime's poller and costs no thread. Only one Wait at a time.
func (p *PidFD) Wait(ctx context.Context) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	// A deadline in the past ends the read; that of an earlier Wait has to go.
	if err := p.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = p.file.SetReadDeadline(aLongTimeAgo)
	})
	err = raw.Read(func(fd uintptr) bool { return exited(int(fd)) })
	if !stop() {
		<-fired // so that it cannot hit the next Wait
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Exited reports whether the process has ended.
func (p *PidFD) Exited() bool {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return true
	}
	gone := true
	if err := raw.Control(func(fd uintptr) { gone = exited(int(fd)) }); err != nil {
		return true
	}
	return gone
}

func exited(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}

// Children lists the children of a process (all its threads' are shown by the
// first thread when it has one thread only, as liblxc's monitor has).
func Children(pid int) ([]int, error) {
	id := strconv.Itoa(pid)
	data, err := os.ReadFile("/proc/" + id + "/task/" + id + "/children")
	if err != nil {
		return nil, err
	}
	var out []int
	for f := range strings.FieldsSeq(string(data)) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out, nil
}

// SignalMasks tells which signals a process blocks, and which it has a handler
// for; bit n-1 is signal n. Both are 0 when it is gone. Source: proc_pid_status(5).
func SignalMasks(pid int) (blocked, caught uint64) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		switch {
		case err != nil:
		case name == "SigBlk":
			blocked = mask
		case name == "SigCgt":
			caught = mask
		}
	}
	return blocked, caught
}

// BootID is the kernel's identity of this boot (random(4)).
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}
