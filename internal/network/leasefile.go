package network

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// dnsmasqLease is one line of dnsmasq's lease file.
type dnsmasqLease struct {
	expiry   time.Time // zero: never
	mac      string    // empty when the file does not tell (DHCPv6 with another kind of client id)
	addr     netip.Addr
	hostname string // empty when there is none
	clientID []byte // DHCPv6: the client's DUID
	iaid     uint32 // DHCPv6
	temp     bool   // DHCPv6: a temporary address (IA_TA)
}

// leaseFile is a parsed lease file.
type leaseFile struct {
	leases []dnsmasqLease
	duid   []byte // the server's own, once DHCPv6 has been used
}

// maxLeaseFile bounds what is read: 2^18 leases of a hundred bytes.
const maxLeaseFile = 64 << 20

// readLeaseFile reads a lease file; one that is absent has no leases. dnsmasq
// truncates the file and writes it again, so a reader may come in between: what
// changed while it was read, or ends within a line, is read once more.
func readLeaseFile(path string) (leaseFile, error) {
	const tries = 3
	for i := 1; ; i++ {
		b, steady, err := readSteady(path)
		if errors.Is(err, fs.ErrNotExist) {
			return leaseFile{}, nil
		}
		if err != nil {
			return leaseFile{}, err
		}
		if steady && (len(b) == 0 || b[len(b)-1] == '\n') || i == tries {
			return parseLeaseFile(b), nil
		}
	}
}

// readSteady reads a file and reports whether it stayed the same meanwhile.
func readSteady(path string) (b []byte, steady bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if b, err = io.ReadAll(io.LimitReader(f, maxLeaseFile)); err != nil {
		return nil, false, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	return b, before.ModTime().Equal(after.ModTime()) && after.Size() == int64(len(b)), nil
}

// parseLeaseFile reads the format of dnsmasq's --dhcp-leasefile: lines of expiry
// time (seconds since 1970, 0 for ever), MAC address (DHCPv6: identity
// association, with a T when temporary), address, host name or *, client id or *
// (DHCPv6: DUID); a line "duid X" begins the DHCPv6 leases. dnsmasq rewrites the
// file in place, so the last line may be cut short: what does not parse is left
// out.
func parseLeaseFile(b []byte) leaseFile {
	var out leaseFile
	scan := bufio.NewScanner(bytes.NewReader(b))
	for scan.Scan() {
		f := strings.Fields(scan.Text())
		if len(f) == 2 && f[0] == "duid" {
			out.duid = parseOctets(f[1])
			continue
		}
		if l, ok := parseLease(f); ok {
			out.leases = append(out.leases, l)
		}
	}
	return out
}

func parseLease(f []string) (dnsmasqLease, bool) {
	var l dnsmasqLease
	if len(f) < 5 {
		return l, false
	}
	expiry, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || expiry < 0 {
		return l, false
	}
	if expiry != 0 {
		l.expiry = time.Unix(expiry, 0)
	}
	if l.addr, err = netip.ParseAddr(f[2]); err != nil {
		return l, false
	}
	if f[3] != "*" {
		l.hostname = f[3]
	}
	if l.addr.Is4() {
		ok := parseMACField(f[1], &l)
		return l, ok
	}
	l.clientID = parseOctets(f[4])
	l.mac = macOfDUID(l.clientID)
	ia, temp := strings.CutPrefix(f[1], "T")
	n, err := strconv.ParseUint(ia, 10, 32)
	l.iaid, l.temp = uint32(n), temp
	return l, err == nil
}

// parseMACField reads "00:16:3e:01:02:03", or "06-00:…" with the ARP hardware
// type in front when that is not Ethernet.
func parseMACField(s string, l *dnsmasqLease) bool {
	if _, after, ok := strings.Cut(s, "-"); ok {
		s = after
	}
	mac, err := net.ParseMAC(s)
	if err != nil {
		return false
	}
	l.mac = mac.String()
	return true
}

func parseOctets(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) > 255 {
		return nil
	}
	return b
}

// macOfDUID finds the Ethernet address in a DUID of type LLT (1) or LL (3),
// RFC 8415 section 11.
func macOfDUID(b []byte) string {
	if len(b) < 4 || b[0] != 0 || b[2] != 0 || b[3] != 1 {
		return ""
	}
	switch {
	case b[1] == 1 && len(b) == 14:
		return net.HardwareAddr(b[8:]).String()
	case b[1] == 3 && len(b) == 10:
		return net.HardwareAddr(b[4:]).String()
	}
	return ""
}

// mergeLeases joins gateways, reservations and dnsmasq's leases, each address
// once, in this order and sorted by address within.
func mergeLeases(p *Plan, static map[string]StaticLease, dynamic []dnsmasqLease, now time.Time) []Lease {
	var out []Lease
	seen := map[netip.Addr]bool{}
	add := func(l Lease) {
		if l.Address.IsValid() && !seen[l.Address] {
			seen[l.Address] = true
			out = append(out, l)
		}
	}
	add(Lease{Hostname: p.Name + ".gw", Address: p.Gateway4, Type: "gateway"})
	add(Lease{Hostname: p.Name + ".gw", Address: p.Gateway6.Addr(), Type: "gateway"})
	gateways := len(out)

	byMAC := map[string]StaticLease{}
	for _, s := range static {
		mac := strings.ToLower(s.MAC)
		byMAC[mac] = s
		add(Lease{Hostname: s.Instance, MAC: mac, Address: s.IPv4, Type: "static"})
		add(Lease{Hostname: s.Instance, MAC: mac, Address: s.IPv6, Type: "static"})
		if p.Gateway6.IsValid() && !p.Stateful { // nobody gives it out, the NIC makes it
			add(Lease{Hostname: s.Instance, MAC: mac, Address: eui64Of(p.Gateway6, mac), Type: "dynamic"})
		}
	}
	for _, d := range dynamic {
		if !d.expiry.IsZero() && d.expiry.Before(now) {
			continue
		}
		l := Lease{Hostname: d.hostname, MAC: d.mac, Address: d.addr, Type: "dynamic"}
		if s, ok := byMAC[d.mac]; ok {
			l.Hostname = s.Instance
		}
		add(l)
	}
	slices.SortFunc(out[gateways:], func(a, b Lease) int { return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.MAC, b.MAC)) })
	return out
}
