package image

import (
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
)

// fingerprintLength is the length of a full fingerprint in characters.
const fingerprintLength = 64

// MatchFingerprint finds the one fingerprint in all that starts with prefix,
// which may be of any length but empty. Characters mean themselves: there are
// no wildcards. Duplicates in all count once.
//
// Errors: NotFound if none matches, also for a prefix that is no lower-case
// hexadecimal number; Invalid if several match, naming them.
func MatchFingerprint(prefix string, all []string) (string, error) {
	if !isHex(prefix) {
		return "", api.Errorf(api.NotFound, "no image has the fingerprint %q; a fingerprint is made of 0-9 and a-f", prefix)
	}
	var found []string
	for _, f := range all {
		if strings.HasPrefix(f, prefix) && !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	switch len(found) {
	case 0:
		return "", api.Errorf(api.NotFound, "no image has the fingerprint %s", prefix)
	case 1:
		return found[0], nil
	}
	slices.Sort(found)
	const shown = 5
	names := strings.Join(found[:min(len(found), shown)], ", ")
	if len(found) > shown {
		names += ", …"
	}
	return "", api.Errorf(api.Invalid, "fingerprint %s matches %d images: %s", prefix, len(found), names).
		WithHint("give more characters of the fingerprint")
}

// CheckFingerprint checks a full fingerprint, such as an image server or a
// client sends. Only checked ones may become part of a path.
//
// Errors: Invalid.
func CheckFingerprint(f string) error {
	if len(f) != fingerprintLength || !isHex(f) {
		return api.Errorf(api.Invalid, "fingerprint %q: it must be %d characters of 0-9 and a-f", f, fingerprintLength)
	}
	return nil
}

func isHex(s string) bool {
	return s != "" && len(s) <= fingerprintLength && strings.Trim(s, "0123456789abcdef") == ""
}
