package model

import (
	"strings"

	"github.com/croft-project/croft/api"
)

// CheckInstanceName holds an instance's name to the rules of a host name's
// label (RFC 1123) that does not begin with a digit: 1 to 63 letters, digits and
// dashes, first a letter, last no dash.
func CheckInstanceName(name string) error {
	bad := func(why string) error {
		return api.Errorf(api.Invalid, "instance name %q %s; allowed are 1 to 63 letters, digits and dashes, beginning with a letter and not ending in a dash", name, why)
	}
	if name == "" || len(name) > 63 {
		return bad("has a wrong length")
	}
	for i := range len(name) {
		c := name[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		digit := c >= '0' && c <= '9'
		switch {
		case i == 0 && !letter:
			return bad("does not begin with a letter")
		case !letter && !digit && c != '-':
			return bad("holds a character that is not allowed")
		}
	}
	if strings.HasSuffix(name, "-") {
		return bad("ends in a dash")
	}
	return nil
}

// CheckName holds the name of a profile, pool or similar object to what can be
// part of a path and of a URL.
func CheckName(kind, name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 63 || strings.ContainsFunc(name, forbidden) {
		return api.Errorf(api.Invalid, "%s name %q is not allowed: use 1 to 63 characters, no white space, slash, control character or any of \"'*?&#%%, and not . or ..", kind, name)
	}
	return nil
}

func forbidden(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`/\"'*?&#%`, r) }

// CheckAliasName holds an image alias to what can stand in a URL path.
func CheckAliasName(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return api.Errorf(api.Invalid, "image alias %q is not allowed: use 1 to 255 characters and no control character", name)
	}
	return nil
}
