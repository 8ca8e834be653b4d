package device

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

func oneOf(allowed ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(allowed, v) {
			return fmt.Errorf("allowed are %s", strings.Join(allowed, ", "))
		}
		return nil
	}
}

func boolean(v string) error {
	return oneOf("true", "false", "1", "0", "yes", "no", "on", "off")(strings.ToLower(v))
}

func number(low, high uint64) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil || n < low || n > high {
			return fmt.Errorf("a whole number from %d to %d is needed", low, high)
		}
		return nil
	}
}

func octalMode(v string) error {
	if n, err := strconv.ParseUint(v, 8, 32); err != nil || n > 0o777 {
		return errors.New("an octal mode from 0 to 0777 is needed")
	}
	return nil
}

func absolute(v string) error {
	if !strings.HasPrefix(v, "/") {
		return errors.New("an absolute path is needed")
	}
	return nil
}

// inside is a path in a container. It becomes the target of a mount, so it must
// not climb.
func inside(v string) error {
	if err := absolute(v); err != nil {
		return err
	}
	if slices.Contains(strings.Split(v, "/"), "..") {
		return errors.New("a path without .. is needed")
	}
	return nil
}

// interfaceName is what the kernel accepts as the name of a network interface.
func interfaceName(v string) error {
	if v == "" || v == "." || v == ".." || len(v) > 15 || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }) {
		return errors.New("the name of a network interface is needed: 1 to 15 characters, no white space, slash or colon")
	}
	return nil
}

func macAddress(v string) error {
	hw, err := net.ParseMAC(v)
	if err != nil || len(hw) != 6 {
		return errors.New("an address of the form 00:16:3e:01:02:03 is needed")
	}
	if hw[0]&1 != 0 {
		return errors.New("a unicast address is needed; this one is a multicast address")
	}
	return nil
}

func ipv4(v string) error {
	if a, err := netip.ParseAddr(v); err != nil || !a.Is4() {
		return errors.New("an IPv4 address is needed")
	}
	return nil
}

func ipv6(v string) error {
	if a, err := netip.ParseAddr(v); err != nil || !a.Is6() || a.Zone() != "" {
		return errors.New("an IPv6 address is needed")
	}
	return nil
}
