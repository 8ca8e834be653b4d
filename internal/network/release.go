package network

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// releaseAll gives back, in the client's name, every lease of a MAC address:
// what a container would do if it were shut down well. It does not wait for
// dnsmasq, which sends no answer.
func releaseAll(ctx context.Context, p *Plan, mac string) error {
	file, err := readLeaseFile(p.DNSMasq.LeaseFile)
	if err != nil {
		return err
	}
	var failed []error
	for _, l := range file.leases {
		if l.mac != mac {
			continue
		}
		if l.addr.Is4() && p.Gateway4.IsValid() {
			packet, err := release4(l, p.Gateway4)
			if err == nil {
				err = sendFrom(ctx, p.Name, p.Gateway4, 67, packet)
			}
			failed = append(failed, err)
		}
		if l.addr.Is6() && p.Gateway6.IsValid() && len(file.duid) > 0 && !l.temp {
			failed = append(failed, sendFrom(ctx, p.Name, p.Gateway6.Addr(), 547, release6(l, file.duid)))
		}
	}
	return errors.Join(failed...)
}

// release4 is a DHCPRELEASE. Source: RFC 2131 section 4.4.6 and figure 1.
func release4(l dnsmasqLease, server netip.Addr) ([]byte, error) {
	mac, err := net.ParseMAC(l.mac)
	if err != nil || len(mac) > 16 {
		return nil, err
	}
	b := make([]byte, 240, 300)
	b[0], b[1], b[2] = 1, 1, byte(len(mac)) // request, Ethernet
	rand.Read(b[4:8])                       // transaction
	copy(b[12:16], l.addr.AsSlice())        // the client's address
	copy(b[28:44], mac)
	copy(b[236:240], []byte{99, 130, 83, 99})
	b = append(b, 53, 1, 7, 54, 4) // message type: release; server identifier
	b = append(b, server.AsSlice()...)
	b = append(b, 255)
	return b[:300], nil
}

// release6 is a DHCPv6 Release of one address. Source: RFC 8415 sections 8, 21.
func release6(l dnsmasqLease, server []byte) []byte {
	option := func(b []byte, code uint16, data []byte) []byte {
		b = binary.BigEndian.AppendUint16(b, code)
		b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
		return append(b, data...)
	}
	addr := append(l.addr.AsSlice(), 0, 0, 0, 0, 0, 0, 0, 0) // lifetimes
	ia := binary.BigEndian.AppendUint32(nil, l.iaid)
	ia = append(ia, 0, 0, 0, 0, 0, 0, 0, 0) // T1, T2
	ia = option(ia, 5, addr)

	b := make([]byte, 4)
	rand.Read(b)
	b[0] = 8
	b = option(b, 1, l.clientID)
	b = option(b, 2, server)
	return option(b, 3, ia)
}

// sendFrom sends one datagram to an address of the bridge itself. Bound to the
// bridge, it reaches dnsmasq as if it had come in there, though it goes through
// the loopback interface.
func sendFrom(ctx context.Context, bridge string, to netip.Addr, port int, packet []byte) error {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), bridge) })
		return errors.Join(err, os.NewSyscallError("setsockopt", failed))
	}}
	conn, err := d.DialContext(ctx, "udp", net.JoinHostPort(to.String(), strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(packet)
	return err
}
