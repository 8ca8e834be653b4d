package option

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/croft-project/croft/api"
)

// ParseBool reads a truth value in the spellings that LXD accepts.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "1", "yes", "on":
		return true, nil
	case "false", "0", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("allowed are true and false (also 1, yes, on and 0, no, off)")
}

// IsTrue tells whether a value stands for true; anything else is false.
func IsTrue(s string) bool {
	v, err := ParseBool(s)
	return err == nil && v
}

// Bool is the truth of a key; false when it is not set. Keys with a default are
// read with [Table.Bool].
func Bool(cfg map[string]string, key string) bool { return IsTrue(cfg[key]) }

// ParseInt reads a decimal number.
func ParseInt(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || s[0] == '+' {
		return 0, fmt.Errorf("allowed are whole numbers")
	}
	return n, nil
}

// Int is the number of a key; false when it is not set. Errors: Invalid.
func Int(cfg map[string]string, key string) (int64, bool, error) {
	return get(cfg, key, ParseInt)
}

// Size is the bytes of a key; false when it is not set. A percentage is taken of
// total. Errors: Invalid.
func Size(cfg map[string]string, key string, total uint64) (int64, bool, error) {
	return get(cfg, key, func(s string) (int64, error) { return ParseMemory(s, total) })
}

// CPUs is the CPU limit of a key; false when it is not set. Errors: Invalid.
func CPUs(cfg map[string]string, key string) (CPULimit, bool, error) {
	return get(cfg, key, ParseCPUs)
}

func get[T any](cfg map[string]string, key string, parse func(string) (T, error)) (v T, ok bool, err error) {
	s := cfg[key]
	if s == "" {
		return v, false, nil
	}
	v, err = parse(s)
	if err != nil {
		return v, false, api.Errorf(api.Invalid, "key %s: value %q: %w", key, s, err)
	}
	return v, true, nil
}

var byteUnits = []struct {
	suffix string
	factor uint64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"PiB", 1 << 50}, {"EiB", 1 << 60},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15}, {"EB", 1e18},
	{" bytes", 1}, {"bytes", 1}, {"B", 1}, {"", 1}, // after the units that end in B
}

var bitUnits = []struct {
	suffix string
	factor uint64
}{
	{"Kibit", 1 << 10}, {"Mibit", 1 << 20}, {"Gibit", 1 << 30}, {"Tibit", 1 << 40}, {"Pibit", 1 << 50}, {"Eibit", 1 << 60},
	{"kbit", 1e3}, {"Mbit", 1e6}, {"Gbit", 1e9}, {"Tbit", 1e12}, {"Pbit", 1e15}, {"Ebit", 1e18},
	{"bit", 1}, {"", 1},
}

// ParseSize reads a number of bytes: digits and a unit, kB to EB (powers of
// 1000), KiB to EiB (powers of 1024), B, bytes or none. Source: LXD's
// reference/instance_units.
func ParseSize(s string) (int64, error) {
	for _, u := range byteUnits {
		if digits, ok := strings.CutSuffix(s, u.suffix); ok {
			if n, ok := scale(digits, u.factor); ok {
				return n, nil
			}
			break
		}
	}
	return 0, fmt.Errorf("allowed are whole numbers of bytes with a unit of B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB, EiB or none, below 8EiB")
}

// ParseBits reads a number of bits (per second): digits and a unit, kbit to
// Ebit, Kibit to Eibit, bit or none.
func ParseBits(s string) (int64, error) {
	for _, u := range bitUnits {
		if digits, ok := strings.CutSuffix(s, u.suffix); ok {
			if n, ok := scale(digits, u.factor); ok {
				return n, nil
			}
			break
		}
	}
	return 0, fmt.Errorf("allowed are whole numbers with a unit of bit, kbit, Mbit, Gbit, Tbit, Pbit, Ebit, Kibit, Mibit, Gibit, Tibit, Pibit, Eibit or none")
}

// scale multiplies decimal digits by factor; false for anything but digits and
// for results beyond 63 bits.
func scale(digits string, factor uint64) (int64, bool) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, false
	}
	hi, lo := bits.Mul64(n, factor)
	if hi != 0 || lo > math.MaxInt64 {
		return 0, false
	}
	return int64(lo), true
}

// ParseMemory reads a size above 0, or a percentage from 1% to 100% of total
// bytes.
func ParseMemory(s string, total uint64) (int64, error) {
	pct, ok := strings.CutSuffix(s, "%")
	if !ok {
		n, err := ParseSize(s)
		if err == nil && n == 0 {
			err = fmt.Errorf("allowed are sizes above 0")
		}
		return n, err
	}
	n, ok := scale(pct, 1)
	if !ok || n < 1 || n > 100 {
		return 0, fmt.Errorf("allowed are percentages from 1%% to 100%%")
	}
	hi, lo := bits.Mul64(total, uint64(n))
	if hi >= 100 {
		return 0, fmt.Errorf("the percentage is of too much")
	}
	q, _ := bits.Div64(hi, lo, 100)
	if q > math.MaxInt64 {
		return 0, fmt.Errorf("the percentage is of too much")
	}
	return int64(q), nil
}

// MaxCPU is the largest CPU number that a set may name; it is that of the
// kernel's largest configuration (CONFIG_NR_CPUS).
const MaxCPU = 8191

// CPULimit is a number of CPUs or a set of them; exactly one is given.
type CPULimit struct {
	Count int   // CPUs to give, whichever; 0 with a set
	Set   []int // CPU numbers, ascending, each once; nil with a count
}

// ParseCPUs reads "4" as a count and "0-3,5" or "1-1" as a set.
func ParseCPUs(s string) (CPULimit, error) {
	if n, ok := scale(s, 1); ok {
		if n < 1 || n > MaxCPU+1 {
			return CPULimit{}, fmt.Errorf("allowed are 1 to %d CPUs", MaxCPU+1)
		}
		return CPULimit{Count: int(n)}, nil
	}
	var set []int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		lo, ok1 := scale(from, 1)
		hi, ok2 := scale(to, 1)
		if !ok1 || !ok2 || lo > hi || hi > MaxCPU {
			return CPULimit{}, fmt.Errorf("allowed are a number of CPUs such as 2, or a set such as 0-3,5 or 1-1, of CPUs up to %d", MaxCPU)
		}
		for c := lo; c <= hi; c++ {
			set = append(set, int(c))
		}
	}
	slices.Sort(set)
	return CPULimit{Set: slices.Compact(set)}, nil
}

// String is the limit as [ParseCPUs] reads it: "2", "0-3,5", "1-1".
func (c CPULimit) String() string {
	if len(c.Set) == 0 {
		return strconv.Itoa(c.Count)
	}
	var parts []string
	for i := 0; i < len(c.Set); {
		j := i
		for j+1 < len(c.Set) && c.Set[j+1] == c.Set[j]+1 {
			j++
		}
		if i == j && len(c.Set) > 1 {
			parts = append(parts, strconv.Itoa(c.Set[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", c.Set[i], c.Set[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}
