package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/croft-project/croft/api"
)

// iecSize formats bytes in powers of 1024: 528.00KiB.
func iecSize(n int64) string {
	return size(n, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"})
}

// siSize formats bytes in powers of 1000: 1.13kB.
func siSize(n int64) string {
	return size(n, 1000, []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"})
}

func size(n int64, base float64, units []string) string {
	if n < int64(base) {
		return strconv.FormatInt(n, 10) + "B"
	}
	v, i := float64(n), 0
	for v >= base && i < len(units)-1 {
		v /= base
		i++
	}
	return fmt.Sprintf("%.2f%s", v, units[i])
}

// parseSize reads a byte count with LXD's suffixes: 64MB, 1GiB, 10.
func parseSize(s string) (int64, error) {
	units := map[string]int64{
		"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15, "EB": 1e18,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50, "EiB": 1 << 60,
	}
	i := digits(s)
	n, err := strconv.ParseInt(s[:i], 10, 64)
	unit, ok := units[strings.TrimSpace(s[i:])]
	if err != nil || !ok {
		return 0, api.Errorf(api.Invalid, "%q is not a size: want a number and a unit such as MB or MiB", s)
	}
	return n * unit, nil
}

// dateTime formats a time as lists do; the zero time and the epoch are empty.
func dateTime(t time.Time) string {
	if t.Unix() <= 0 {
		return ""
	}
	return t.UTC().Format("2006/01/02 15:04 UTC")
}

// yesNo is the upper-case answer of tables.
func yesNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}
