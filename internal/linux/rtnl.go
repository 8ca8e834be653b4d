package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// NetLink is one network interface of a network namespace as the kernel
// describes it.
type NetLink struct {
	Index    int
	Name     string
	MAC      string // "00:16:3e:01:02:03"; empty when the device has none
	MTU      int
	Flags    uint32 // IFF_* of netdevice(7)
	Oper     uint8  // IF_OPER_* of RFC 2863: 6 is up, 0 unknown
	Kind     string // "veth", "bridge", "vlan" …; empty for physical devices and loopback
	Alias    string // free text set with `ip link set alias`
	Master   int    // index of the bridge or bond it belongs to; 0 when none
	Peer     int    // IFLA_LINK: for a veth the peer's index, for a vlan its parent's; 0 when none
	PeerNSID int    // id of the namespace that Peer counts in; -1 when it is this one
	Counters NetCounters
	Bridge   *NetBridge // set for bridges
	VLANID   int        // set for vlan devices
	Addrs    []NetAddr  // in the order of arrival; filled in by a snapshot
}

// NetCounters are the totals since the interface was made.
type NetCounters struct {
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
	RxErrors, TxErrors   uint64
	RxDropped, TxDropped uint64
}

// NetBridge holds what only a bridge has.
type NetBridge struct {
	ID            string // "8000.00163e010203": priority and address, in hexadecimal
	STP           bool
	ForwardDelay  uint64 // hundredths of a second
	VLANDefault   uint64 // default port VLAN id
	VLANFiltering bool
}

// NetAddr is one address of an interface.
type NetAddr struct {
	Link  int // index of the interface
	Addr  netip.Prefix
	Scope string // "global", "link" or "local"
	Flags uint32 // IFA_F_*: tentative, deprecated, permanent …
}

// Up reports whether the interface is switched on (IFF_UP), carrier or not.
func (l *NetLink) Up() bool { return l.Flags&unix.IFF_UP != 0 }

// Type is the word LXD's API has for the kind of medium: "loopback",
// "point-to-point", "broadcast" or "unknown".
func (l *NetLink) Type() string {
	switch {
	case l.Flags&unix.IFF_LOOPBACK != 0:
		return "loopback"
	case l.Flags&unix.IFF_POINTOPOINT != 0:
		return "point-to-point"
	case l.Flags&unix.IFF_BROADCAST != 0:
		return "broadcast"
	}
	return "unknown"
}

// State is "up" or "down".
func (l *NetLink) State() string {
	if l.Up() {
		return "up"
	}
	return "down"
}

// Family is "inet" or "inet6".
func (a NetAddr) Family() string {
	if a.Addr.Addr().Is4() {
		return "inet"
	}
	return "inet6"
}

// errShort tells of a netlink message that ends before its own lengths say so.
var errShort = errors.New("netlink message is cut short")

// rtnlMessage is one message of a datagram. body excludes the header and is
// valid as long as the buffer it was cut from.
type rtnlMessage struct {
	kind  uint16
	flags uint16
	seq   uint32
	body  []byte
}

// nextMessage cuts the first message from b. It returns the rest of b.
// Source: netlink(7), NLMSG_ALIGN.
func nextMessage(b []byte) (m rtnlMessage, rest []byte, err error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return m, nil, errShort
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < unix.NLMSG_HDRLEN || n > len(b) {
		return m, nil, errShort
	}
	m.kind = binary.NativeEndian.Uint16(b[4:])
	m.flags = binary.NativeEndian.Uint16(b[6:])
	m.seq = binary.NativeEndian.Uint32(b[8:])
	m.body = b[unix.NLMSG_HDRLEN:n]
	return m, b[min(align4(n), len(b)):], nil
}

// messageError is the errno of an NLMSG_ERROR body; nil for an acknowledgement.
func messageError(body []byte) error {
	if len(body) < 4 {
		return errShort
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

func align4(n int) int { return (n + 3) &^ 3 }

// eachAttr calls fn for every attribute in b, nested flag removed. It fails on
// the first one that does not fit.
func eachAttr(b []byte, fn func(kind uint16, data []byte)) error {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return errShort
		}
		fn(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n])
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

// parseLink reads the body of RTM_NEWLINK or RTM_DELLINK. Source: rtnetlink(7),
// linux/if_link.h.
func parseLink(b []byte) (NetLink, error) {
	l := NetLink{PeerNSID: -1}
	if len(b) < unix.SizeofIfInfomsg {
		return l, errShort
	}
	l.Index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	l.Flags = binary.NativeEndian.Uint32(b[8:])
	err := eachAttr(b[unix.SizeofIfInfomsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = cString(data)
		case unix.IFLA_IFALIAS:
			l.Alias = cString(data)
		case unix.IFLA_ADDRESS:
			if len(data) > 0 && len(data) <= 32 && (len(data) != 6 || [6]byte(data) != [6]byte{}) {
				l.MAC = net.HardwareAddr(data).String()
			}
		case unix.IFLA_MTU:
			l.MTU = int(attr32(data))
		case unix.IFLA_OPERSTATE:
			l.Oper = attr8(data)
		case unix.IFLA_MASTER:
			l.Master = int(attr32(data))
		case unix.IFLA_LINK:
			l.Peer = int(attr32(data))
		case unix.IFLA_LINK_NETNSID:
			l.PeerNSID = int(int32(attr32(data)))
		case unix.IFLA_STATS64:
			l.Counters = parseStats(data)
		case unix.IFLA_LINKINFO:
			parseLinkInfo(data, &l)
		}
	})
	return l, err
}

// parseStats reads struct rtnl_link_stats64: rx/tx packets, bytes, errors, dropped.
func parseStats(b []byte) NetCounters {
	if len(b) < 64 {
		return NetCounters{}
	}
	at := func(i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }
	return NetCounters{
		RxPackets: at(0), TxPackets: at(1), RxBytes: at(2), TxBytes: at(3),
		RxErrors: at(4), TxErrors: at(5), RxDropped: at(6), TxDropped: at(7),
	}
}

// parseLinkInfo reads the nested IFLA_LINKINFO. The kernel sends the kind
// before the data of that kind; what does not parse is left out.
func parseLinkInfo(b []byte, l *NetLink) {
	_ = eachAttr(b, func(kind uint16, data []byte) {
		switch {
		case kind == unix.IFLA_INFO_KIND:
			l.Kind = cString(data)
		case kind == unix.IFLA_INFO_DATA && l.Kind == "bridge":
			l.Bridge = parseBridge(data)
		case kind == unix.IFLA_INFO_DATA && l.Kind == "vlan":
			_ = eachAttr(data, func(kind uint16, data []byte) {
				if kind == unix.IFLA_VLAN_ID && len(data) >= 2 {
					l.VLANID = int(binary.NativeEndian.Uint16(data))
				}
			})
		}
	})
}

func parseBridge(b []byte) *NetBridge {
	br := &NetBridge{}
	_ = eachAttr(b, func(kind uint16, data []byte) {
		switch kind {
		case unix.IFLA_BR_BRIDGE_ID:
			if len(data) >= 8 { // priority in network order, then the address
				br.ID = fmt.Sprintf("%x.%x", data[:2], data[2:8])
			}
		case unix.IFLA_BR_STP_STATE:
			br.STP = attr32(data) != 0
		case unix.IFLA_BR_FORWARD_DELAY:
			br.ForwardDelay = uint64(attr32(data))
		case unix.IFLA_BR_VLAN_FILTERING:
			br.VLANFiltering = attr8(data) != 0
		case unix.IFLA_BR_VLAN_DEFAULT_PVID:
			if len(data) >= 2 {
				br.VLANDefault = uint64(binary.NativeEndian.Uint16(data))
			}
		}
	})
	return br
}

// parseAddr reads the body of RTM_NEWADDR or RTM_DELADDR. Families other than
// IPv4 and IPv6 give an invalid prefix and no error.
func parseAddr(b []byte) (NetAddr, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return NetAddr{}, errShort
	}
	family, bits := b[0], int(b[1])
	a := NetAddr{Flags: uint32(b[2]), Link: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	var local, address netip.Addr
	err := eachAttr(b[unix.SizeofIfAddrmsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.IFA_LOCAL: // on point-to-point links IFA_ADDRESS is the other end
			local, _ = netip.AddrFromSlice(data)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(data)
		case unix.IFA_FLAGS:
			a.Flags = attr32(data)
		}
	})
	if err != nil {
		return NetAddr{}, err
	}
	if !local.IsValid() {
		local = address
	}
	if family != unix.AF_INET && family != unix.AF_INET6 || local.Is4() != (family == unix.AF_INET) {
		return a, nil
	}
	a.Addr = netip.PrefixFrom(local, bits)
	switch {
	case local.IsLoopback():
		a.Scope = "local"
	case local.IsLinkLocalUnicast():
		a.Scope = "link"
	default:
		a.Scope = "global"
	}
	return a, nil
}

func attr8(b []byte) uint8 {
	if len(b) < 1 {
		return 0
	}
	return b[0]
}

func attr32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// cString is b up to its first NUL.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// dumpRequest is a netlink request for all links or all addresses.
// kind is RTM_GETLINK or RTM_GETADDR.
func dumpRequest(kind uint16, seq uint32) []byte {
	size := unix.NLMSG_HDRLEN + unix.SizeofIfInfomsg // ifaddrmsg is shorter; the kernel allows the excess
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b, uint32(size))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return b
}
