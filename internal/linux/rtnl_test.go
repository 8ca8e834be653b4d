package linux

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// attr encodes one netlink attribute.
func attr(kind uint16, data ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// message encodes a netlink message.
func message(kind, flags uint16, seq uint32, body []byte) []byte {
	b := u32(uint32(unix.NLMSG_HDRLEN + len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = append(b, u32(seq)...)
	b = append(b, u32(0)...)
	b = append(b, body...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func linkBody(index, flags uint32, attrs ...[]byte) []byte {
	return join(u32(0), u32(index), u32(flags), u32(0), join(attrs...))
}

func addrBody(family, bits byte, index uint32, attrs ...[]byte) []byte {
	return join([]byte{family, bits, 0, 0}, u32(index), join(attrs...))
}

func TestParseLink(t *testing.T) {
	stats := make([]byte, 200)
	for i := range 8 {
		binary.NativeEndian.PutUint64(stats[8*i:], uint64(i+1))
	}
	b := linkBody(7, unix.IFF_UP|unix.IFF_BROADCAST,
		attr(unix.IFLA_IFNAME, []byte("br0\x00")...),
		attr(unix.IFLA_ADDRESS, 0, 0x16, 0x3e, 1, 2, 3),
		attr(unix.IFLA_MTU, u32(1500)...),
		attr(unix.IFLA_OPERSTATE, 6),
		attr(unix.IFLA_LINK, u32(9)...),
		attr(unix.IFLA_LINK_NETNSID, u32(0)...),
		attr(unix.IFLA_STATS64, stats...),
		attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, join(
			attr(unix.IFLA_INFO_KIND, []byte("bridge\x00")...),
			attr(unix.IFLA_INFO_DATA, join(
				attr(unix.IFLA_BR_BRIDGE_ID, 0x80, 0, 0, 0x16, 0x3e, 1, 2, 3),
				attr(unix.IFLA_BR_FORWARD_DELAY, u32(1500)...),
				attr(unix.IFLA_BR_VLAN_DEFAULT_PVID, 1, 0),
			)...),
		)...),
	)
	got, err := parseLink(b)
	if err != nil {
		t.Fatal(err)
	}
	want := NetLink{
		Index: 7, Name: "br0", MAC: "00:16:3e:01:02:03", MTU: 1500, Flags: unix.IFF_UP | unix.IFF_BROADCAST, Oper: 6,
		Kind: "bridge", Peer: 9, PeerNSID: 0,
		Counters: NetCounters{RxPackets: 1, TxPackets: 2, RxBytes: 3, TxBytes: 4, RxErrors: 5, TxErrors: 6, RxDropped: 7, TxDropped: 8},
		Bridge:   &NetBridge{ID: "8000.00163e010203", ForwardDelay: 1500, VLANDefault: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.Type() != "broadcast" || got.State() != "up" {
		t.Errorf("type %s, state %s", got.Type(), got.State())
	}
}

func TestParseAddr(t *testing.T) {
	peer := attr(unix.IFA_ADDRESS, 10, 0, 0, 2)
	v6 := netip.MustParseAddr("fd42::1").As16()
	ll := netip.MustParseAddr("fe80::1").As16()
	for name, c := range map[string]struct {
		body []byte
		want NetAddr
	}{
		"IPv4":           {addrBody(unix.AF_INET, 24, 3, peer, attr(unix.IFA_LOCAL, 10, 0, 0, 1)), NetAddr{3, netip.MustParsePrefix("10.0.0.1/24"), "global", 0}},
		"loopback":       {addrBody(unix.AF_INET, 8, 1, attr(unix.IFA_ADDRESS, 127, 0, 0, 1)), NetAddr{1, netip.MustParsePrefix("127.0.0.1/8"), "local", 0}},
		"IPv6 and flags": {addrBody(unix.AF_INET6, 64, 3, attr(unix.IFA_ADDRESS, v6[:]...), attr(unix.IFA_FLAGS, u32(0x40)...)), NetAddr{3, netip.MustParsePrefix("fd42::1/64"), "global", 0x40}},
		"link-local":     {addrBody(unix.AF_INET6, 64, 3, attr(unix.IFA_ADDRESS, ll[:]...)), NetAddr{3, netip.MustParsePrefix("fe80::1/64"), "link", 0}},
		"wrong length":   {addrBody(unix.AF_INET6, 64, 3, peer), NetAddr{Link: 3}},
		"other family":   {addrBody(unix.AF_MPLS, 64, 3, peer), NetAddr{Link: 3}},
		"too many bits":  {addrBody(unix.AF_INET, 33, 3, peer), NetAddr{3, netip.PrefixFrom(netip.MustParseAddr("10.0.0.2"), 33), "global", 0}},
	} {
		got, err := parseAddr(c.body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// detached is a watch without a socket, as after the first picture.
func detached() *NetNSWatch {
	return &NetNSWatch{links: map[int]*watchedLink{}, changed: make(chan struct{}), turn: make(chan struct{}), synced: true}
}

func TestWatchApplies(t *testing.T) {
	w := detached()
	name := attr(unix.IFLA_IFNAME, []byte("eth0\x00")...)
	address := addrBody(unix.AF_INET, 24, 2, attr(unix.IFA_LOCAL, 10, 0, 0, 1))
	stats := attr(unix.IFLA_STATS64, make([]byte, 64)...)
	bridgePort := linkBody(2, 0)
	bridgePort[0] = unix.AF_BRIDGE
	for i, step := range []struct {
		msg     []byte
		changed bool
		links   int
		addrs   int
	}{
		{message(unix.RTM_NEWADDR, 0, 0, address), true, 0, 0}, // before its link is known
		{message(unix.RTM_NEWLINK, 0, 0, linkBody(2, 0, name)), true, 1, 1},
		{message(unix.RTM_NEWLINK, 0, 0, linkBody(2, 0, name, stats)), false, 1, 1}, // counters are no change
		{message(unix.RTM_NEWLINK, 0, 0, linkBody(2, unix.IFF_UP, name)), true, 1, 1},
		{message(unix.RTM_NEWADDR, 0, 0, address), false, 1, 1},
		{message(unix.RTM_DELLINK, 0, 0, bridgePort), false, 1, 1}, // it left a bridge, no more
		{message(unix.RTM_DELADDR, 0, 0, address), true, 1, 0},
		{message(unix.RTM_DELADDR, 0, 0, address), false, 1, 0},
		{join(message(unix.RTM_NEWADDR, 0, 0, address), message(unix.RTM_DELLINK, 0, 0, linkBody(2, 0, name))), true, 0, 0},
	} {
		changed := w.Changed()
		if err := w.apply(step.msg, false); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		select {
		case <-changed:
			if !step.changed {
				t.Errorf("step %d: reported as a change", i)
			}
		default:
			if step.changed {
				t.Errorf("step %d: not reported as a change", i)
			}
		}
		links := w.copyLocked()
		if len(links) != step.links || len(links) > 0 && len(links[0].Addrs) != step.addrs {
			t.Errorf("step %d: %+v", i, links)
		}
	}
	if err := w.apply([]byte{1, 2, 3}, false); err == nil {
		t.Error("a short message was taken")
	}
}

// FuzzRtnl feeds datagrams to the parser and the state machine.
func FuzzRtnl(f *testing.F) {
	f.Add(message(unix.RTM_NEWLINK, 0, 0, linkBody(2, 0, attr(unix.IFLA_IFNAME, 'x', 0), attr(unix.IFLA_LINKINFO, attr(unix.IFLA_INFO_KIND, 'v')...))))
	f.Add(message(unix.RTM_NEWADDR, 0, 1, addrBody(unix.AF_INET, 24, 2, attr(unix.IFA_LOCAL, 10, 0, 0, 1))))
	f.Add(join(message(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, 1, u32(0)), message(unix.NLMSG_ERROR, 0, 1, u32(0xffffffff))))
	f.Add(message(unix.NLMSG_OVERRUN, 0, 0, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := detached()
		w.running, w.seq = unix.RTM_GETLINK, 1
		_ = w.apply(b, false)
		for _, l := range w.copyLocked() {
			_, _ = l.Type(), l.State()
			for _, a := range l.Addrs {
				_ = a.Family()
			}
		}
	})
}
