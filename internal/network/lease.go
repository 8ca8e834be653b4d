package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/croft-project/croft/api"
)

// StaticLease is what the network knows of one NIC of an instance: its name in
// DNS and the addresses reserved for it, if any.
type StaticLease struct {
	Project  string // may be empty for the default project
	Instance string // DNS name
	Device   string // distinguishes several NICs of an instance
	MAC      string
	IPv4     netip.Addr // zero: any from the range
	IPv6     netip.Addr // zero: any; takes effect with ipv6.dhcp.stateful
}

// hostRE is the name of an instance, one DNS label.
var hostRE = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)

// Validate checks the fields. Errors: Invalid.
func (l StaticLease) Validate() error {
	if !hostRE.MatchString(l.Instance) {
		return api.Errorf(api.Invalid, "instance name %q cannot be a DNS name: allowed are 1 to 63 letters, digits and hyphens", l.Instance)
	}
	if err := checkMAC(l.MAC); err != nil {
		return api.Errorf(api.Invalid, "instance %s: hwaddr %q is not valid: %w", l.Instance, l.MAC, err)
	}
	if l.IPv4.IsValid() && !l.IPv4.Is4() {
		return api.Errorf(api.Invalid, "instance %s: ipv4.address %q is not an IPv4 address", l.Instance, l.IPv4)
	}
	if l.IPv6.IsValid() && (!l.IPv6.Is6() || l.IPv6.Zone() != "" || l.IPv6.Is4In6()) {
		return api.Errorf(api.Invalid, "instance %s: ipv6.address %q is not an IPv6 address", l.Instance, l.IPv6)
	}
	return nil
}

// fileName is unique for the NIC, readable and free of path separators whatever
// the names of project and device are.
func (l StaticLease) fileName() string {
	sum := sha256.Sum256([]byte(l.Project + "\x00" + l.Instance + "\x00" + l.Device))
	return l.Instance + "." + hex.EncodeToString(sum[:6])
}

// line is the NIC's entry as dnsmasq's --dhcp-host has it. The name is left out
// when the daemon does not name instances in DNS; an entry that then says
// nothing is empty.
func (l StaticLease) line(managed bool) string {
	fields := []string{strings.ToLower(l.MAC)}
	if l.IPv4.IsValid() {
		fields = append(fields, l.IPv4.String())
	}
	if l.IPv6.IsValid() {
		fields = append(fields, "["+l.IPv6.String()+"]")
	}
	if managed {
		fields = append(fields, l.Instance)
	}
	if len(fields) == 1 {
		return ""
	}
	return strings.Join(fields, ",") + "\n"
}

// SetLeases makes leases the complete set of a network's NICs. It writes the
// files that differ and nothing else; dnsmasq sees new ones by itself and is
// signalled once when old ones went or changed. It may be called before Start.
//
// Errors: Invalid for a lease whose fields are not valid; then nothing changes.
func (m *Manager) SetLeases(ctx context.Context, network string, leases []StaticLease) error {
	if err := ValidateName(network); err != nil {
		return err
	}
	set := make(map[string]StaticLease, len(leases))
	for _, l := range leases {
		if err := l.Validate(); err != nil {
			return err
		}
		set[l.fileName()] = l
	}
	n := m.network(network)
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	n.static, n.complete = set, true
	return n.syncHosts()
}

// SetLease adds or replaces one NIC. It costs one small file and no process, and
// does not wait for dnsmasq.
//
// Errors: Invalid.
func (m *Manager) SetLease(ctx context.Context, network string, l StaticLease) error {
	if err := ValidateName(network); err != nil {
		return err
	}
	if err := l.Validate(); err != nil {
		return err
	}
	n := m.network(network)
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	n.static[l.fileName()] = l
	if n.plan == nil || n.plan.DNSMasq == nil {
		return nil // Start writes it
	}
	changed, err := writeHost(n.plan, l)
	if changed {
		n.reload()
	}
	return err
}

// DeleteLease forgets one NIC and gives its dynamic addresses back, so that
// containers which come and go do not use up the range before their leases
// expire. An unknown NIC is no error. Project, Instance and Device identify it.
func (m *Manager) DeleteLease(ctx context.Context, network string, l StaticLease) error {
	if err := ValidateName(network); err != nil {
		return err
	}
	n := m.network(network)
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	name := l.fileName()
	if known, ok := n.static[name]; ok {
		l = known
	}
	delete(n.static, name)
	if n.plan == nil || n.plan.DNSMasq == nil {
		return nil
	}
	err := os.Remove(filepath.Join(n.plan.DNSMasq.HostsDir, name))
	if err == nil {
		n.reload() // dnsmasq keeps what it has read until then
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if l.MAC != "" {
		err = errors.Join(err, releaseAll(ctx, n.plan, strings.ToLower(l.MAC)))
	}
	if err != nil {
		return fmt.Errorf("forget %s on network %s: %w", l.Instance, network, err)
	}
	return nil
}

// syncHosts makes the directory of reservations agree with n.static. Files of
// NICs that are not known are removed only when the set is known to be complete:
// after a restart of the daemon the directory is right and the set still empty.
func (n *managed) syncHosts() error {
	if n.plan == nil || n.plan.DNSMasq == nil {
		return nil
	}
	dir := n.plan.DNSMasq.HostsDir
	if err := openDir(dir); err != nil {
		return err
	}
	stale := false
	if n.complete {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if l, ok := n.static[e.Name()]; ok && l.line(n.plan.Managed) != "" {
				continue
			}
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			stale = true
		}
	}
	for _, l := range n.static {
		changed, err := writeHost(n.plan, l)
		if err != nil {
			return err
		}
		stale = stale || changed
	}
	if stale {
		n.reload()
	}
	return nil
}

// writeHost writes a NIC's file if it differs. changed reports that an older
// content was replaced, which dnsmasq does not forget without a signal. The
// file is renamed into place so that dnsmasq never reads half of it.
func writeHost(p *Plan, l StaticLease) (changed bool, err error) {
	path := filepath.Join(p.DNSMasq.HostsDir, l.fileName())
	want := []byte(l.line(p.Managed))
	have, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(have, want):
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	existed := err == nil
	if len(want) == 0 {
		if !existed {
			return false, nil
		}
		return true, os.Remove(path)
	}
	// A plain write is enough under the lock: dnsmasq looks when the file is
	// closed or renamed into the directory, not while it is written elsewhere.
	tmp := filepath.Join(filepath.Dir(p.DNSMasq.HostsDir), "host.new")
	if err := os.WriteFile(tmp, want, 0o644); err != nil {
		return false, err
	}
	if err := os.Chmod(tmp, 0o644); err != nil { // whatever the umask: dnsmasq reads it as another user
		return false, err
	}
	return existed, os.Rename(tmp, path)
}

// Lease is one address in use or reserved on a network.
type Lease struct {
	Hostname string
	MAC      string // empty for gateways
	Address  netip.Addr
	Type     string // "static", "dynamic" or "gateway"
}

// Leases lists a network's gateways, the reserved addresses and those that
// dnsmasq has given out. Errors: NotFound for a network that is not started.
func (m *Manager) Leases(ctx context.Context, network string) ([]Lease, error) {
	n, err := m.started(ctx, network)
	if err != nil {
		return nil, err
	}
	defer n.unlock()
	var dynamic []dnsmasqLease
	if n.plan.DNSMasq != nil {
		file, err := readLeaseFile(n.plan.DNSMasq.LeaseFile)
		if err != nil {
			return nil, fmt.Errorf("leases of network %s: %w", network, err)
		}
		dynamic = file.leases
	}
	return mergeLeases(n.plan, n.static, dynamic, m.now()), nil
}

// eui64Of is the stateless address of a NIC, or the zero Addr.
func eui64Of(subnet netip.Prefix, mac string) netip.Addr {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 || subnet.Bits() != 64 {
		return netip.Addr{}
	}
	return eui64(subnet, hw)
}
