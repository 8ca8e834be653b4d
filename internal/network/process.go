package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// process is a running dnsmasq, held by a pidfd so that no signal can reach
// another process that got its number.
type process struct {
	pid    int
	pidfd  *os.File
	args   []string      // without the program's name
	exited chan struct{} // closed when the process has ended or close was called
}

// openProcess takes hold of process pid. It returns nil when there is none.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	p := &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), exited: make(chan struct{})}
	b, err := os.ReadFile(p.proc("cmdline")) // empty for a zombie
	if err != nil || len(b) == 0 {
		p.pidfd.Close()
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return nil, nil
		}
		return nil, err
	}
	words := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	p.args = words[1:]
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		p.pidfd.Close()
		return nil, err
	}
	go func() { // parked in the poller until the pidfd is readable: the process has ended
		defer close(p.exited)
		_ = conn.Read(func(fd uintptr) bool { return ended(int(fd)) }) // an error means close
	}()
	return p, nil
}

func (p *process) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(p.pid), file)
}

// ended polls a pidfd without waiting.
func ended(fd int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// close lets go of the process and leaves it running.
func (p *process) close() {
	p.pidfd.Close()
	<-p.exited
}

func (p *process) signal(sig unix.Signal) error {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(failed, unix.ESRCH) {
		return nil
	}
	return errors.Join(err, os.NewSyscallError("pidfd_send_signal", failed))
}

// terminate ends the process, by force if it does not go within two seconds.
func (p *process) terminate(ctx context.Context) error {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := p.signal(sig); err != nil {
			return fmt.Errorf("end dnsmasq (process %d): %w", p.pid, err)
		}
		patience := time.NewTimer(2 * time.Second)
		defer patience.Stop()
		select {
		case <-p.exited:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
		}
	}
	return api.Errorf(api.Busy, "dnsmasq (process %d) does not end", p.pid)
}

// sameNetNS reports whether p is in the daemon's own network namespace.
func (p *process) sameNetNS() bool {
	a, err1 := os.Stat(p.proc("ns/net"))
	b, err2 := os.Stat("/proc/thread-self/ns/net")
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// confPrefix begins the one argument of every dnsmasq of a network of ours.
func confPrefix(run string) string { return "--conf-file=" + filepath.Join(run, "dnsmasq-") }

// findDNSMasq returns the network's running dnsmasq, of whatever configuration,
// or nil. The pid file may be stale or, being owned by the unprivileged user,
// forged: what counts are the arguments of the process.
func findDNSMasq(run string) (*process, error) {
	b, err := os.ReadFile(filepath.Join(run, "dnsmasq.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || pid <= 1 {
		return nil, nil
	}
	p, err := openProcess(pid)
	if p == nil || err != nil {
		return nil, err
	}
	if len(p.args) != 1 || !strings.HasPrefix(p.args[0], confPrefix(run)) {
		p.close()
		return nil, nil
	}
	return p, nil
}

// killDNSMasq ends the network's dnsmasq, if one runs.
func (m *Manager) killDNSMasq(ctx context.Context, run string) error {
	p, err := findDNSMasq(run)
	if p == nil || err != nil {
		return err
	}
	defer p.close()
	return p.terminate(ctx)
}

// ensureDNSMasq returns a running dnsmasq with the plan's configuration: the one
// that an earlier daemon left, or a new one.
func (m *Manager) ensureDNSMasq(ctx context.Context, d *DNSMasqPlan) (*process, error) {
	run := filepath.Dir(d.ConfFile)
	p, err := adopt(ctx, run, d)
	if p != nil || err != nil {
		return p, err
	}
	failed := m.startDNSMasq(ctx, d)
	// Also after a failure: a dnsmasq that an earlier daemon was starting when it
	// was killed may have come up meanwhile and be the one that has the ports.
	p, err = adopt(ctx, run, d)
	switch {
	case p != nil:
		return p, nil
	case failed != nil:
		return nil, failed
	case err != nil:
		return nil, err
	}
	return nil, api.Errorf(api.Internal, "dnsmasq ended as soon as it was started; the system log has the reason")
}

// adopt returns the network's dnsmasq if it is as planned. It ends one that is not.
func adopt(ctx context.Context, run string, d *DNSMasqPlan) (*process, error) {
	p, err := findDNSMasq(run)
	if p == nil || err != nil {
		return nil, err
	}
	if slices.Equal(p.args, d.Args) && p.sameNetNS() {
		return p, nil
	}
	defer p.close()
	return nil, p.terminate(ctx)
}

// startDNSMasq writes the configuration and runs dnsmasq, which puts itself into
// the background once it has its sockets and has dropped its privileges; its
// exit code tells whether that worked.
func (m *Manager) startDNSMasq(ctx context.Context, d *DNSMasqPlan) error {
	run := filepath.Dir(d.ConfFile)
	old, err := filepath.Glob(filepath.Join(run, "dnsmasq-*.conf"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if path != d.ConfFile {
			os.Remove(path) // litter at worst
		}
	}
	if err := os.WriteFile(d.ConfFile, []byte(d.Config), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, m.dnsmasq, d.Args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second // should the background process keep the pipe
	out, err := cmd.CombinedOutput()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	failed := api.Errorf(api.BadState, "%s (%w)", firstLine(out), err)
	if bytes.Contains(out, []byte("in use")) {
		return failed.WithHint("another DNS or DHCP server listens on all addresses: let it listen on its own only; find it with: ss -lnup sport = :53")
	}
	return failed
}
