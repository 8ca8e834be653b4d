package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// NetNSWatch keeps the links and addresses of one network namespace in memory,
// fed by the kernel's own notifications: reading them costs neither a setns nor
// a system call. It holds one netlink socket and one parked goroutine, and the
// socket keeps the namespace alive: close the watch as soon as the container is
// gone.
//
// All methods are safe for concurrent use.
type NetNSWatch struct {
	file    *os.File // the netlink socket, non-blocking, in Go's poller
	closing chan struct{}
	once    sync.Once
	done    chan struct{}
	rate    rate // the reader's own

	mu      sync.Mutex
	links   map[int]*watchedLink
	changed chan struct{} // closed and replaced at every change
	turn    chan struct{} // closed and replaced whenever a dump ends
	err     error         // set when the reader has stopped
	broken  error         // the kernel refused a dump: the reader will stop
	seq     uint32
	running uint16 // RTM_GETLINK or RTM_GETADDR while a dump runs; a socket can do one at a time
	redo    bool   // the running dump was interrupted by a change: repeat it
	resync  bool   // the running pair of dumps is a resynchronisation: forget what it did not see
	lost    bool   // notifications were dropped: resynchronise
	want    bool   // a caller wants a link dump that starts from now on
	gen     uint64 // number of the last resynchronisation started
	synced  bool   // the first pair of dumps is complete
	started uint64 // link dumps begun and ended, for callers to wait on theirs
	ended   uint64
}

// What is kept of one namespace is bounded: its root may make links at will.
const (
	maxLinks = 4096
	maxAddrs = 1024 // on one link
)

type watchedLink struct {
	NetLink
	known bool // an RTM_NEWLINK was seen; an address may come first
	gen   uint64
	addrs []watchedAddr
}

type watchedAddr struct {
	NetAddr
	gen uint64
}

// WatchNetNSOf watches the network namespace that process pid is in. The caller
// makes sure that pid still is the process it means, for instance with a pidfd.
func WatchNetNSOf(pid int) (*NetNSWatch, error) {
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return WatchNetNS(ns)
}

// WatchNetNS watches the network namespace ns, an open /proc/PID/ns/net. It
// does not keep ns. nil means the namespace of the calling process.
//
// Entering another namespace takes CAP_SYS_ADMIN over it and in the caller's
// own user namespace (setns(2)).
func WatchNetNS(ns *os.File) (*NetNSWatch, error) {
	fd, err := netlinkSocketIn(ns)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket in a network namespace: %w", err)
	}
	w := &NetNSWatch{
		file:    os.NewFile(uintptr(fd), "netlink"),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		links:   map[int]*watchedLink{},
		changed: make(chan struct{}),
		turn:    make(chan struct{}),
		lost:    true, // nothing is known yet
	}
	conn, err := w.file.SyscallConn()
	if err != nil {
		w.file.Close()
		return nil, err
	}
	w.mu.Lock()
	err = w.nextDumpLocked()
	w.mu.Unlock()
	if err != nil {
		w.file.Close()
		return nil, err
	}
	go w.read(conn.Read)
	return w, nil
}

// netlinkSocketIn opens the socket in ns. A socket stays in the namespace it
// was made in, so only a moment is spent there, on a thread that dies with it:
// a thread that failed to come back must never run other goroutines.
func netlinkSocketIn(ns *os.File) (int, error) {
	if ns == nil {
		return netlinkSocket()
	}
	type result struct {
		fd  int
		err error
	}
	out := make(chan result, 1)
	go offMainThread(func() {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			out <- result{-1, os.NewSyscallError("setns", err)}
			return
		}
		fd, err := netlinkSocket()
		out <- result{fd, err}
	})
	r := <-out
	return r.fd, r.err
}

// offMainThread runs fn on a thread that ends with it. The process's first
// thread cannot end: Go parks it for ever, and /proc/self would show it in
// whatever namespace fn entered. While this goroutine holds it, another
// goroutine cannot get it.
func offMainThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		fn()
	}()
	<-done
	runtime.UnlockOSThread()
}

func netlinkSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	groups := uint32(1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1))
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// Close ends the watch and lets go of the namespace. It returns when the
// goroutine has ended. Waiters on Changed are woken.
func (w *NetNSWatch) Close() error {
	w.once.Do(func() { close(w.closing) })
	err := w.file.Close()
	<-w.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Changed returns a channel that is closed at the next change of a link or an
// address, or when the watch ends. Take the channel before the snapshot that is
// to be compared, then nothing is missed.
func (w *NetNSWatch) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return w.changed
}

// Snapshot returns the links, sorted by index, with their addresses. With
// counters it asks the kernel for one dump of the links, otherwise the counters
// are those of the last message about each link and nothing is asked, except that
// the first complete picture is waited for. A namespace whose root changes it
// without pause can delay the answer by a quarter of a second, not more: it is
// then what is known so far. The result belongs to the caller.
//
// Errors: os.ErrClosed after Close; ctx's.
func (w *NetNSWatch) Snapshot(ctx context.Context, counters bool) ([]NetLink, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	need := uint64(0)
	if counters && w.err == nil && w.synced { // the very first picture is fresh anyway
		need = w.started + 1
		w.want = true
		if !w.lost && !w.resync { // else the reader begins, see drain
			if err := w.nextDumpLocked(); err != nil {
				return nil, err
			}
		}
	}
	if w.err == nil && (!w.synced || w.ended < need) {
		if err := w.waitLocked(ctx, need); err != nil {
			return nil, err
		}
	}
	if w.err != nil {
		return nil, w.err
	}
	return w.copyLocked(), nil
}

const snapshotPatience = 250 * time.Millisecond

// waitLocked lets go of the lock until the first picture is complete and link
// dump number need has ended, or patience has.
func (w *NetNSWatch) waitLocked(ctx context.Context, need uint64) error {
	patience := time.NewTimer(snapshotPatience)
	defer patience.Stop()
	for w.err == nil && (!w.synced || w.ended < need) {
		turn := w.turn
		w.mu.Unlock()
		var err error
		late := false
		select {
		case <-turn:
		case <-patience.C:
			late = true
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		w.mu.Lock()
		if late || err != nil {
			return err
		}
	}
	return nil
}

func (w *NetNSWatch) copyLocked() []NetLink {
	links := make([]NetLink, 0, len(w.links))
	for _, l := range w.links {
		if !l.known {
			continue
		}
		out := l.NetLink
		if out.Bridge != nil {
			b := *out.Bridge
			out.Bridge = &b
		}
		out.Addrs = make([]NetAddr, len(l.addrs))
		for i, a := range l.addrs {
			out.Addrs[i] = a.NetAddr
		}
		links = append(links, out)
	}
	slices.SortFunc(links, func(a, b NetLink) int { return cmp.Compare(a.Index, b.Index) })
	return links
}

// HostLinks returns the links of the calling process's own network namespace
// with addresses and fresh counters.
func HostLinks(ctx context.Context) ([]NetLink, error) {
	w, err := WatchNetNS(nil)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.Snapshot(ctx, false) // the first picture is fresh
}

// bufferPool holds receive buffers: they are borrowed while a socket is
// readable, so that a thousand parked watches hold none. 32 KiB is what the
// kernel fills at most in a dump (netlink(7)).
var bufferPool = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// read runs until the socket is closed or breaks.
func (w *NetNSWatch) read(wait func(func(fd uintptr) bool) error) {
	defer close(w.done)
	var failed error
	err := wait(func(fd uintptr) bool {
		buf := bufferPool.Get().(*[]byte)
		defer bufferPool.Put(buf)
		failed = w.drain(int(fd), *buf)
		return failed != nil // false parks the goroutine until there is more
	})
	if failed == nil {
		failed = err
	}
	failed = w.orClosed(failed)
	w.file.Close() // after a failure too: the socket pins the namespace
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = failed
	w.links = nil
	close(w.changed)
	close(w.turn)
}

// orClosed is os.ErrClosed once Close was called, whatever a system call that
// was under way then says, else err.
func (w *NetNSWatch) orClosed(err error) error {
	select {
	case <-w.closing:
		return os.ErrClosed
	default:
		return err
	}
}

// drain receives until the socket would block. Only then it begins a dump that
// is due: after an overrun the kernel goes on dropping notifications, and does not
// say so again, until the queue has been empty once (af_netlink.c,
// NETLINK_S_CONGESTED); a dump begun earlier could miss them.
func (w *NetNSWatch) drain(fd int, buf []byte) error {
	for {
		n, _, flags, from, err := unix.Recvmsg(fd, buf, nil, 0)
		switch {
		case err == unix.EAGAIN:
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.nextDumpLocked()
		case err == unix.EINTR:
			continue
		case err == unix.ENOBUFS: // the kernel dropped notifications
			if err := w.apply(nil, true); err != nil {
				return err
			}
			continue
		case err != nil:
			return os.NewSyscallError("recvmsg", err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not from the kernel
		}
		w.rate.count(w.closing)
		if err := w.apply(buf[:n], flags&unix.MSG_TRUNC != 0); err != nil {
			return err
		}
	}
}

// apply takes in one datagram. lost means that others did not arrive.
func (w *NetNSWatch) apply(b []byte, lost bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = w.lost || lost
	changed := false
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err != nil {
			if !lost { // a truncated datagram may well end in the middle
				w.broken = err
			}
			break
		}
		if w.messageLocked(m) {
			changed = true
		}
		b = rest
	}
	if changed && w.synced {
		close(w.changed)
		w.changed = make(chan struct{})
	}
	return w.broken
}

// rate keeps a container that changes its interfaces in a loop from costing the
// daemon more than a share of a processor: above the budget the reader pauses,
// the kernel's queue overflows, and one dump replaces the flood.
type rate struct {
	second int64
	n      int
}

const (
	rateBudget = 4000 // datagrams a second; a thousand new addresses are a thousand
	ratePause  = 50 * time.Millisecond
)

// count notes one datagram and pauses when there were too many this second.
func (r *rate) count(closing <-chan struct{}) {
	if now := time.Now().Unix(); now != r.second {
		r.second, r.n = now, 0
	}
	if r.n++; r.n < rateBudget {
		return
	}
	r.n = 0
	pause := time.NewTimer(ratePause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-closing:
	}
}

// messageLocked handles one message and reports whether the picture changed.
func (w *NetNSWatch) messageLocked(m rtnlMessage) bool {
	ours := w.running != 0 && m.seq == w.seq
	if ours && m.flags&unix.NLM_F_DUMP_INTR != 0 {
		w.redo = true
	}
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.body) > 0 && m.body[0] != unix.AF_UNSPEC {
			return false // AF_BRIDGE: a port joined or left a bridge; the link itself has its own message
		}
		l, err := parseLink(m.body)
		if err != nil {
			w.broken = err
			return false
		}
		return w.linkLocked(l, m.kind == unix.RTM_DELLINK)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := parseAddr(m.body)
		if err != nil {
			w.broken = err
			return false
		}
		return w.addrLocked(a, m.kind == unix.RTM_DELADDR)
	case unix.NLMSG_DONE, unix.NLMSG_ERROR:
		if !ours {
			return false
		}
		if m.kind == unix.NLMSG_ERROR {
			w.broken = messageError(m.body)
		}
		return w.dumpEndedLocked()
	case unix.NLMSG_OVERRUN:
		w.lost = true
	}
	return false
}

func (w *NetNSWatch) linkLocked(l NetLink, gone bool) bool {
	old := w.links[l.Index]
	if gone {
		delete(w.links, l.Index) // and its addresses
		return old != nil
	}
	if old == nil {
		if len(w.links) >= maxLinks {
			return false
		}
		old = &watchedLink{}
		w.links[l.Index] = old
	}
	same := old.known && sameLink(old.NetLink, l)
	old.NetLink, old.known, old.gen = l, true, w.gen
	return !same
}

// sameLink compares what a waiter cares for: everything but the counters.
func sameLink(a, b NetLink) bool {
	if (a.Bridge == nil) != (b.Bridge == nil) || a.Bridge != nil && *a.Bridge != *b.Bridge {
		return false
	}
	return a.Name == b.Name && a.MAC == b.MAC && a.MTU == b.MTU && a.Flags == b.Flags && a.Oper == b.Oper &&
		a.Kind == b.Kind && a.Alias == b.Alias && a.Master == b.Master && a.Peer == b.Peer && a.PeerNSID == b.PeerNSID
}

func (w *NetNSWatch) addrLocked(a NetAddr, gone bool) bool {
	if !a.Addr.IsValid() {
		return false
	}
	l := w.links[a.Link]
	if l == nil {
		if gone || len(w.links) >= maxLinks {
			return false
		}
		l = &watchedLink{gen: w.gen} // its RTM_NEWLINK is on the way
		w.links[a.Link] = l
	}
	i := slices.IndexFunc(l.addrs, func(o watchedAddr) bool { return o.Addr == a.Addr })
	switch {
	case gone && i >= 0:
		l.addrs = slices.Delete(l.addrs, i, i+1)
		return true
	case gone:
		return false
	case i >= 0:
		same := l.addrs[i].NetAddr == a
		l.addrs[i] = watchedAddr{a, w.gen}
		return !same
	}
	if len(l.addrs) >= maxAddrs {
		return false
	}
	l.addrs = append(l.addrs, watchedAddr{a, w.gen})
	return true
}

// dumpEndedLocked is called when the running dump is complete. It reports
// whether something had to be forgotten.
func (w *NetNSWatch) dumpEndedLocked() bool {
	kind, redo := w.running, w.redo
	w.running, w.redo = 0, false
	changed := false
	if kind == unix.RTM_GETLINK {
		w.ended = w.started
	}
	switch {
	case redo:
		w.lost = true
	case w.resync && kind == unix.RTM_GETADDR:
		w.resync = false
		changed = w.pruneLocked() || !w.synced
		w.synced = true
	}
	close(w.turn)
	w.turn = make(chan struct{})
	return changed
}

// pruneLocked forgets what the resynchronisation did not see.
func (w *NetNSWatch) pruneLocked() bool {
	changed := false
	for index, l := range w.links {
		if l.gen != w.gen {
			delete(w.links, index)
			changed = true
			continue
		}
		before := len(l.addrs)
		l.addrs = slices.DeleteFunc(l.addrs, func(a watchedAddr) bool { return a.gen != w.gen })
		changed = changed || len(l.addrs) != before
	}
	return changed
}

// nextDumpLocked starts the dump that is due, if none is running: links and then
// addresses for a resynchronisation, links alone for counters.
func (w *NetNSWatch) nextDumpLocked() error {
	if w.running != 0 || w.err != nil {
		return nil
	}
	kind := uint16(0)
	switch {
	case w.lost:
		w.lost, w.resync, w.want = false, true, false
		w.gen++
		kind = unix.RTM_GETLINK
	case w.resync:
		kind = unix.RTM_GETADDR
	case w.want:
		w.want = false
		kind = unix.RTM_GETLINK
	default:
		return nil
	}
	w.seq++
	if kind == unix.RTM_GETLINK {
		w.started++
	}
	w.running = kind
	return w.sendLocked(dumpRequest(kind, w.seq))
}

func (w *NetNSWatch) sendLocked(req []byte) error {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Write(func(fd uintptr) bool {
		for {
			failed = unix.Sendto(int(fd), req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if failed != unix.EINTR {
				return true
			}
		}
	})
	if err != nil {
		return w.orClosed(err)
	}
	return os.NewSyscallError("sendto", failed)
}
