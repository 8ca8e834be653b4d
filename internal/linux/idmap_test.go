package linux

import (
	"errors"
	"math"
	"testing"

	"github.com/croft-project/croft/api"
)

func both(c, h, n int64) IDEntry {
	return IDEntry{ContainerID: c, HostID: h, Count: n, UID: true, GID: true}
}

func TestIDMapValidate(t *testing.T) {
	many := make(IDMap, maxExtents+1)
	for i := range many {
		many[i] = both(int64(i*2), int64(100_000+i*2), 1)
	}
	for name, c := range map[string]struct {
		m    IDMap
		good bool
	}{
		"usual":             {IDMap{both(0, 1_000_000, 65536)}, true},
		"adjacent":          {IDMap{both(0, 1000, 10), both(10, 1010, 10)}, true},
		"by kind":           {IDMap{{0, 1000, 10, true, false}, {0, 1000, 10, false, true}}, true},
		"all ids":           {IDMap{both(0, 0, math.MaxUint32)}, true},
		"as many as may be": {many[1:], true},
		"too many":          {many, false},
		"empty":             {IDMap{}, false},
		"no gid":            {IDMap{{0, 1000, 10, true, false}}, false},
		"no count":          {IDMap{both(0, 1000, 0)}, false},
		"negative":          {IDMap{both(-1, 1000, 5)}, false},
		"the id that is no": {IDMap{both(0, math.MaxUint32, 1)}, false},
		"over the end":      {IDMap{both(0, math.MaxUint32-5, 6)}, false},
		"huge count":        {IDMap{both(0, 1, math.MaxInt64)}, false},
		"container overlap": {IDMap{both(0, 1000, 10), both(9, 2000, 10)}, false},
		"host overlap":      {IDMap{both(0, 1000, 10), both(10, 1009, 10)}, false},
	} {
		err := c.m.Validate()
		if c.good && err != nil || !c.good && !errors.Is(err, api.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIDMapHost(t *testing.T) {
	m := IDMap{both(0, 1_000_000, 1000), {ContainerID: 1000, HostID: 1000, Count: 1, UID: true}}
	for _, c := range []struct {
		id, uid, gid int64 // -1: not mapped
	}{{0, 1_000_000, 1_000_000}, {999, 1_000_999, 1_000_999}, {1000, 1000, -1}, {1001, -1, -1}, {-1, -1, -1}} {
		for kind, got := range map[string]func(int64) (int64, bool){"uid": m.HostUID, "gid": m.HostGID} {
			want := c.uid
			if kind == "gid" {
				want = c.gid
			}
			host, ok := got(c.id)
			if ok != (want >= 0) || ok && host != want {
				t.Errorf("%s %d: got %d %v, want %d", kind, c.id, host, ok, want)
			}
		}
	}
	if host, ok := IDMap(nil).HostUID(7); host != 7 || !ok {
		t.Errorf("privileged: %d %v", host, ok)
	}
}
