package option

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/croft-project/croft/api"
)

// IDMapping is one line of raw.idmap: host ids that the container sees as its
// own ones.
type IDMapping struct {
	UID, GID    bool // which kinds of id it is for
	HostID      int64
	ContainerID int64
	Count       int64
}

// ParseIDMap reads raw.idmap: lines of "uid|gid|both HOST CONTAINER", where HOST
// and CONTAINER are an id or a range A-B of equal length. Overlaps are the
// caller's to judge: they depend on the base map.
func ParseIDMap(s string) ([]IDMapping, error) {
	var out []IDMapping
	for line := range strings.SplitSeq(s, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		m, err := parseIDLine(fields)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		out = append(out, m)
	}
	return out, nil
}

func parseIDLine(fields []string) (IDMapping, error) {
	var m IDMapping
	if len(fields) != 3 {
		return m, fmt.Errorf("allowed is uid, gid or both, a host id and a container id (or ranges of them)")
	}
	switch fields[0] {
	case "uid":
		m.UID = true
	case "gid":
		m.GID = true
	case "both":
		m.UID, m.GID = true, true
	default:
		return m, fmt.Errorf("kind %q is not one of uid, gid, both", fields[0])
	}
	host, n, err := parseIDRange(fields[1])
	if err != nil {
		return m, err
	}
	inside, n2, err := parseIDRange(fields[2])
	if err != nil {
		return m, err
	}
	if n != n2 {
		return m, fmt.Errorf("the ranges have %d and %d ids, they must be equally long", n, n2)
	}
	m.HostID, m.ContainerID, m.Count = host, inside, n
	return m, nil
}

func parseIDRange(s string) (first, count int64, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	lo, err1 := strconv.ParseUint(from, 10, 32)
	hi, err2 := strconv.ParseUint(to, 10, 32)
	// 2³²−1 stands for "no id" in system calls.
	if err1 != nil || err2 != nil || lo > hi || hi == 1<<32-1 {
		return 0, 0, fmt.Errorf("id %q is not a number or a range A-B below 4294967295", s)
	}
	return int64(lo), int64(hi-lo) + 1, nil
}

// IDMap is raw.idmap of a configuration. Errors: Invalid.
func IDMap(cfg map[string]string) ([]IDMapping, error) {
	m, err := ParseIDMap(cfg["raw.idmap"])
	if err != nil {
		return nil, api.Errorf(api.Invalid, "key raw.idmap: %w", err)
	}
	return m, nil
}

func checkIDMap(s string) error {
	_, err := ParseIDMap(s)
	return err
}

// syscallLine is a rule of liblxc's version 2 policies: a name, or name, action
// and argument filters. Section headers ("[all]") and comments do not match, so a
// value cannot reach beyond the list it is put in. Source: lxc.container.conf(5).
var syscallLine = regexp.MustCompile(`^[a-z_][a-z0-9_]*( (kill|trap|allow|log|notify|errno [0-9]{1,4}))?( \[[0-9]+,[0-9a-fx]+(,[A-Z_a-z=!<>0-9]+)?(,[0-9a-fx]+)?\])*$`)

// ParseSyscalls reads security.syscalls.allow and .deny: one rule a line.
func ParseSyscalls(s string) ([]string, error) {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if !syscallLine.MatchString(line) {
			return nil, fmt.Errorf("line %q is not the name of a system call, or one with an action and arguments", line)
		}
		out = append(out, line)
	}
	return out, nil
}

func checkSyscalls(s string) error {
	_, err := ParseSyscalls(s)
	return err
}

var moduleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

// ParseModules reads linux.kernel_modules: names separated by commas.
func ParseModules(s string) ([]string, error) {
	var out []string
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		// A leading dash would be an option of modprobe.
		if !moduleName.MatchString(name) {
			return nil, fmt.Errorf("%q is not the name of a kernel module (letters, digits, - and _)", name)
		}
		out = append(out, name)
	}
	return out, nil
}

func checkModules(s string) error {
	_, err := ParseModules(s)
	return err
}

// checkEnvName keeps environment.* from naming what no environment can hold.
func checkEnvName(name string) error {
	if strings.ContainsAny(name, "= \t") {
		return fmt.Errorf("the name of an environment variable has no '=' and no space")
	}
	return nil
}

// Prefixed gives the keys below a prefix such as "environment.", without it.
func Prefixed(cfg map[string]string, prefix string) map[string]string {
	out := map[string]string{}
	for k, v := range cfg {
		if rest, ok := strings.CutPrefix(k, prefix); ok && rest != "" {
			out[rest] = v
		}
	}
	return out
}

// rlimit is a value of limits.kernel.*: one number or soft:hard.
var rlimit = regexp.MustCompile(`^([0-9]+|unlimited)(:([0-9]+|unlimited))?$`)

func checkRlimit(s string) error {
	if !rlimit.MatchString(s) {
		return fmt.Errorf("allowed are a number or unlimited, or two of them as SOFT:HARD")
	}
	return nil
}

var allowance = regexp.MustCompile(`^([1-9][0-9]{0,2}%|[1-9][0-9]{0,8}ms/[1-9][0-9]{0,8}ms)$`)

func checkAllowance(s string) error {
	if !allowance.MatchString(s) {
		return fmt.Errorf("allowed are a percentage such as 50%% or a time such as 25ms/100ms")
	}
	return nil
}
