package lxc

import (
	"strings"

	"github.com/croft-project/croft/api"
)

// SeccompConfig is what the security.syscalls.* and raw.seccomp keys ask for.
type SeccompConfig struct {
	NoDefault bool     // security.syscalls.deny_default=false: leave the default list out
	Compat    bool     // security.syscalls.deny_compat: also refuse 32-bit calls on a 64-bit kernel
	Deny      []string // further calls, in the syntax of liblxc's policy lines
	Allow     []string // only these calls; excludes the others
	Raw       string   // a whole policy; excludes all others
}

// defaultDeny are system calls that act on the whole machine. ENOSYS (38) makes
// programs fall back as if the kernel lacked the call.
var defaultDeny = []string{
	"reject_force_umount", // umount2(MNT_FORCE) would reach the host's network file systems
	"[all]",
	"kexec_load errno 38",
	"open_by_handle_at errno 38",
	"init_module errno 38",
	"finit_module errno 38",
	"delete_module errno 38",
}

// Seccomp gives the text of a seccomp policy in liblxc's version 2 format
// (lxc.container.conf(5), "SECCOMP CONFIGURATION"). It is pure.
func Seccomp(c SeccompConfig, architecture string) (string, error) {
	if c.Raw != "" {
		if strings.ContainsRune(c.Raw, 0) {
			return "", api.Errorf(api.Invalid, "raw.seccomp: the policy holds a NUL byte")
		}
		return c.Raw, nil
	}
	for _, rule := range append(c.Deny, c.Allow...) {
		if err := checkRule(rule); err != nil {
			return "", err
		}
	}
	lines := []string{"2"}
	if len(c.Allow) > 0 {
		lines = append(lines, "allowlist", "[all]")
		return strings.Join(append(lines, c.Allow...), "\n") + "\n", nil
	}
	lines = append(lines, "denylist")
	if c.NoDefault {
		lines = append(lines, "[all]")
	} else {
		lines = append(lines, defaultDeny...)
	}
	lines = append(lines, c.Deny...)
	if c.Compat && architecture == "x86_64" {
		lines = append(lines, "[x86]", "* errno 38", "[x32]", "* errno 38")
	}
	return strings.Join(lines, "\n") + "\n", nil
}

func checkRule(rule string) error {
	for _, c := range rule {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune("_ [],=!<>&x-", c):
		default:
			return api.Errorf(api.Invalid, "system call rule %q: character %q is not allowed; use NAME [ACTION] [CONDITIONS]", rule, c)
		}
	}
	return nil
}
