package option

import (
	"errors"
	"math"
	"slices"
	"testing"
	"testing/quick"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		// The first ten are from limits.memory-units of the conformance recordings.
		"100MB": 1e8, "100MiB": 100 << 20, "1GB": 1e9, "1GiB": 1 << 30, "500kB": 5e5, "500KiB": 500 << 10, "1TB": 1e12,
		"104857600": 104857600, "104857600B": 104857600,
		"0": 0, "12bytes": 12, "12 bytes": 12, "7EiB": 7 << 60, "9EB": 9e18, "9223372036854775807": math.MaxInt64, "1PiB": 1 << 50,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{
		"100Mb", "1.5GB", "MB", "ten", "", " 1", "1 ", "1 MB", "-1", "+1", "1KB", "1kiB", "8EiB", "10EB", "9223372036854775808",
		"99999999999999999999", "1_000", "0x10", "1e3", "١", "1GiB\n",
	} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, got)
		}
	}
}

func TestParseBits(t *testing.T) {
	for s, want := range map[string]int64{"1Mbit": 1e6, "1Mibit": 1 << 20, "5": 5, "5bit": 5, "10Gbit": 1e10, "2kbit": 2000, "1Kibit": 1024} {
		if got, err := ParseBits(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"1MB", "bit", "", "1Mbps", "-1bit", "16Eibit"} {
		if got, err := ParseBits(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, got)
		}
	}
}

func TestParseMemory(t *testing.T) {
	for s, want := range map[string]int64{"50%": 512, "1%": 10, "100%": 1024, "10B": 10} {
		if got, err := ParseMemory(s, 1024); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"0%", "101%", "%", "-1%", "1.5%", "0", "50 %", "99999999999999999999%"} {
		if got, err := ParseMemory(s, 1024); err == nil {
			t.Errorf("%q: got %d, want an error", s, got)
		}
	}
	if got, err := ParseMemory("100%", math.MaxUint64); err == nil {
		t.Errorf("got %d of more bytes than there are", got)
	}
	if got, err := ParseMemory("50%", math.MaxUint64); err != nil || got != math.MaxInt64 {
		t.Errorf("got %d, %v", got, err)
	}
}

func TestParseCPUs(t *testing.T) {
	for s, want := range map[string]CPULimit{
		"2": {Count: 2}, "0-3": {Set: []int{0, 1, 2, 3}}, "1-1": {Set: []int{1}}, "5,0-1,1": {Set: []int{0, 1, 5}}, "8191-8191": {Set: []int{8191}},
	} {
		got, err := ParseCPUs(s)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", s, err, diff)
		}
	}
	for _, s := range []string{"", "0", "-1", "1-", "-", "a", "1,", ",1", "3-1", "8192-8192", "1-2-3", "0-99999999999", "1;2", "9000"} {
		if got, err := ParseCPUs(s); err == nil {
			t.Errorf("%q: got %+v, want an error", s, got)
		}
	}
}

// TestCPUsRoundTrip: what String writes, ParseCPUs reads.
func TestCPUsRoundTrip(t *testing.T) {
	check := func(cpus []uint16, n uint8) bool {
		want := CPULimit{Count: int(n) + 1}
		if len(cpus) > 0 {
			want = CPULimit{}
			for _, c := range cpus {
				want.Set = append(want.Set, int(c)%(MaxCPU+1))
			}
			slices.Sort(want.Set)
			want.Set = slices.Compact(want.Set)
		}
		got, err := ParseCPUs(want.String())
		return err == nil && cmp.Equal(want, got)
	}
	if err := quick.Check(check, nil); err != nil {
		t.Error(err)
	}
}

func TestGetters(t *testing.T) {
	cfg := map[string]string{"n": "7", "s": "1KiB", "p": "25%", "c": "0-1", "bad": "x", "empty": ""}
	if n, ok, err := Int(cfg, "n"); n != 7 || !ok || err != nil {
		t.Error(n, ok, err)
	}
	if n, ok, err := Size(cfg, "s", 0); n != 1024 || !ok || err != nil {
		t.Error(n, ok, err)
	}
	if n, ok, err := Size(cfg, "p", 400); n != 100 || !ok || err != nil {
		t.Error(n, ok, err)
	}
	if c, ok, err := CPUs(cfg, "c"); len(c.Set) != 2 || !ok || err != nil {
		t.Error(c, ok, err)
	}
	for _, key := range []string{"empty", "none"} {
		if _, ok, err := Int(cfg, key); ok || err != nil {
			t.Error(key, ok, err)
		}
	}
	if _, _, err := Int(cfg, "bad"); !errors.Is(err, api.Invalid) {
		t.Error(err)
	}
}

func TestParseIDMap(t *testing.T) {
	got, err := ParseIDMap("both 1000 1001\n\n uid 50-60 500-510 \ngid 5 6")
	want := []IDMapping{
		{UID: true, GID: true, HostID: 1000, ContainerID: 1001, Count: 1},
		{UID: true, HostID: 50, ContainerID: 500, Count: 11},
		{GID: true, HostID: 5, ContainerID: 6, Count: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for _, s := range []string{"x 1 1", "uid 1", "uid 1 1 1", "uid a 1", "uid 2-1 2-1", "uid -1 1", "uid 4294967295 0", "uid 0-4294967295 0-4294967295"} {
		if _, err := ParseIDMap(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
	if _, err := IDMap(map[string]string{"raw.idmap": "x"}); !errors.Is(err, api.Invalid) {
		t.Error(err)
	}
}

func TestParseSyscalls(t *testing.T) {
	got, err := ParseSyscalls("read\n\n  keyctl errno 38\nsocket allow [0,1,SCMP_CMP_EQ]\nmount notify")
	want := []string{"read", "keyctl errno 38", "socket allow [0,1,SCMP_CMP_EQ]", "mount notify"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for _, s := range []string{"[all]", "# x", "read;write", "READ", "2", "read errno", "read evil"} {
		if _, err := ParseSyscalls(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestPrefixed(t *testing.T) {
	got := Prefixed(map[string]string{"environment.A": "1", "environment.": "2", "user.A": "3", "environment.B.C": "4"}, "environment.")
	if diff := cmp.Diff(map[string]string{"A": "1", "B.C": "4"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"1GiB", "50%", "0-3,5", "1-1", "25ms/100ms", "both 1-2 3-4", "read errno 1", "8EiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Errorf("size %q is %d", s, n)
		}
		if n, err := ParseMemory(s, 1<<40); err == nil && n < 1 {
			t.Errorf("memory %q is %d", s, n)
		}
		if c, err := ParseCPUs(s); err == nil {
			if (c.Count > 0) == (len(c.Set) > 0) {
				t.Errorf("cpus %q are %+v", s, c)
			}
			again, err := ParseCPUs(c.String())
			if err != nil || !cmp.Equal(c, again) {
				t.Errorf("cpus %q: %+v became %+v, %v", s, c, again, err)
			}
		}
		if m, err := ParseIDMap(s); err == nil {
			for _, e := range m {
				if e.Count < 1 || e.HostID < 0 || e.HostID+e.Count > 1<<32-1 || e.ContainerID+e.Count > 1<<32-1 || !(e.UID || e.GID) {
					t.Errorf("idmap %q has %+v", s, e)
				}
			}
		}
		_, _ = ParseSyscalls(s)
		_, _ = ParseModules(s)
		_, _ = ParseBits(s)
	})
}
