package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// ours reports whether an existing link was made by this daemon: it has our
// alias, or it has none and the mark file tells that we were about to make it.
func ours(link netlink.Link, alias, mark string) bool {
	if link.Type() != "bridge" {
		return false
	}
	have := link.Attrs().Alias
	return have == alias || have == "" && exists(mark)
}

// findLink returns nil when there is no link of that name.
func findLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return link, nil
}

// applyLink makes the bridge or adjusts the one that is there, and switches it on.
func applyLink(p *Plan, mark string) error {
	link, err := findLink(p.Name)
	if err != nil {
		return err
	}
	switch {
	case link == nil:
		if link, err = makeLink(p, mark); err != nil {
			return err
		}
	case !ours(link, p.Link.Alias, mark):
		return notOurs(p.Name)
	}
	return adjustLink(p, link)
}

func notOurs(name string) error {
	return api.Errorf(api.Conflict, "interface %s exists and does not belong to this daemon", name).
		WithHint("choose another network name, or remove the interface: ip link delete %s", name)
}

func makeLink(p *Plan, mark string) (netlink.Link, error) {
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.Name
	attrs.MTU = p.Link.MTU
	attrs.HardwareAddr, _ = net.ParseMAC(p.Link.MAC) // BuildPlan has checked it
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	if errors.Is(err, unix.EEXIST) {
		// Somebody was faster. Until it has its alias, only the mark would tell
		// whose it is: without it, nothing here takes it for ours.
		return nil, errors.Join(notOurs(p.Name), os.Remove(mark))
	}
	if err != nil {
		return nil, fmt.Errorf("create bridge %s: %w", p.Name, err)
	}
	link, err := netlink.LinkByName(p.Name)
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", p.Name, err)
	}
	return link, nil
}

// adjustLink changes only what differs: a link that is up and right is not touched.
func adjustLink(p *Plan, link netlink.Link) error {
	have := link.Attrs()
	step := func(what string, err error) error {
		if err != nil {
			return fmt.Errorf("set %s of bridge %s: %w", what, p.Name, err)
		}
		return nil
	}
	if have.Alias != p.Link.Alias {
		if err := step("alias", netlink.LinkSetAlias(link, p.Link.Alias)); err != nil {
			return err
		}
	}
	if have.HardwareAddr.String() != p.Link.MAC {
		mac, err := net.ParseMAC(p.Link.MAC)
		if err == nil {
			err = netlink.LinkSetHardwareAddr(link, mac)
		}
		if err := step("hwaddr", err); err != nil {
			return err
		}
	}
	if have.MTU != p.Link.MTU {
		if err := step("mtu", netlink.LinkSetMTU(link, p.Link.MTU)); err != nil {
			return err
		}
	}
	if have.Flags&net.FlagUp == 0 {
		return step("state", netlink.LinkSetUp(link))
	}
	return nil
}

// removeLink deletes the bridge if it is ours. gone reports that it was.
func removeLink(name, alias, mark string) (gone bool, err error) {
	link, err := findLink(name)
	if err != nil || link == nil || !ours(link, alias, mark) {
		return false, err
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return false, fmt.Errorf("delete bridge %s: %w", name, err)
	}
	return true, nil
}

// applyAddrs gives the bridge exactly the plan's addresses. Link-local ones that
// are not in the plan are the kernel's and stay.
func applyAddrs(p *Plan) error {
	link, err := netlink.LinkByName(p.Name)
	if err != nil {
		return fmt.Errorf("look up interface %s: %w", p.Name, err)
	}
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", p.Name, err)
	}
	present := map[netip.Prefix]bool{}
	for _, a := range have {
		addr, ok := prefixOf(a.IP, a.Mask)
		if !ok {
			continue
		}
		if slices.Contains(p.Addrs, addr) {
			present[addr] = true
			continue
		}
		if addr.Addr().IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s from %s: %w", addr, p.Name, err)
		}
	}
	for _, addr := range p.Addrs {
		if present[addr] {
			continue
		}
		if err := netlink.AddrAdd(link, newAddr(addr)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s to %s: %w", addr, p.Name, err)
		}
	}
	return nil
}

func newAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is4() {
		if p.Bits() < 31 {
			a.Broadcast = lastAddr(p).AsSlice()
		}
		return a
	}
	a.Flags = unix.IFA_F_NODAD // usable at once; nobody else has it on a bridge that has just been made
	if p.Addr().IsLinkLocalUnicast() {
		a.Scope = unix.RT_SCOPE_LINK
	}
	return a
}

// applySysctls writes the kernel settings that differ.
func applySysctls(p *Plan) error {
	if p.Forward6 {
		if err := keepAdvertisements(); err != nil {
			return err
		}
	}
	for _, s := range p.Sysctls {
		if err := writeSysctl(s); err != nil && !s.Optional {
			if errors.Is(err, fs.ErrNotExist) {
				return api.Errorf(api.Unsupported, "kernel setting %s is missing: %w", s.Path, err)
			}
			return fmt.Errorf("kernel setting %s=%s: %w", s.Path, s.Value, err)
		}
	}
	return nil
}

func writeSysctl(s Sysctl) error {
	path := filepath.Join("/proc/sys", s.Path)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	have := strings.TrimSpace(string(b))
	if have == s.Value || s.AtLeast && atLeast(have, s.Value) {
		return nil
	}
	return os.WriteFile(path, []byte(s.Value), 0)
}

func atLeast(have, want string) bool {
	h, err1 := strconv.Atoi(have)
	w, err2 := strconv.Atoi(want)
	return err1 == nil && err2 == nil && h >= w
}

// keepAdvertisements prepares the host for net.ipv6.conf.all.forwarding: an
// interface that forwards ignores router advertisements unless its accept_ra is
// 2, and a host that has its own IPv6 address from them would lose it. Only
// interfaces that accept them now are changed. Source: ip-sysctl.rst, accept_ra.
func keepAdvertisements() error {
	const root = "/proc/sys/net/ipv6/conf"
	if b, err := os.ReadFile(root + "/all/forwarding"); err == nil && strings.TrimSpace(string(b)) == "1" {
		return nil // the host was a router before us, as its administrator wanted it
	}
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no IPv6: the settings that need it will say so
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(root, e.Name(), "accept_ra")
		if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) != "1" {
			continue
		}
		if err := os.WriteFile(path, []byte("2"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep router advertisements on %s: %w", e.Name(), err)
		}
	}
	return nil
}
