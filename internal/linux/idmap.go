package linux

import (
	"fmt"
	"math"
	"syscall"

	"github.com/croft-project/croft/api"
)

// maxExtents is the number of lines the kernel takes in /proc/PID/uid_map
// since Linux 4.15; user_namespaces(7).
const maxExtents = 340

// IDEntry maps Count consecutive ids of a container, starting at ContainerID,
// to ids of the host, starting at HostID. UID and GID say which of the two
// kinds it applies to; an entry may apply to both.
type IDEntry struct {
	ContainerID, HostID, Count int64
	UID, GID                   bool
}

// IDMap is the identity map of a container. The nil map stands for a privileged
// container, whose ids are the host's.
type IDMap []IDEntry

// Validate checks m against the kernel's rules: positive ranges of 32-bit ids,
// no overlap on either side, at most 340 ranges for each kind, and at least one
// range for each kind.
//
// Errors: Invalid, naming the entry.
func (m IDMap) Validate() error {
	for _, kind := range []string{"uid", "gid"} {
		part := m.of(kind)
		if len(part) == 0 {
			return api.Errorf(api.Invalid, "idmap: no %s range", kind)
		}
		if len(part) > maxExtents {
			return api.Errorf(api.Invalid, "idmap: %d %s ranges, the kernel takes at most %d", len(part), kind, maxExtents)
		}
		for i, e := range part {
			if e.Count < 1 || !fits(e.ContainerID, e.Count) || !fits(e.HostID, e.Count) {
				return api.Errorf(api.Invalid, "idmap: %s range %s is not within 0-%d", kind, e, uint32(math.MaxUint32-1))
			}
			for _, o := range part[:i] {
				if overlap(e.ContainerID, o.ContainerID, e.Count, o.Count) || overlap(e.HostID, o.HostID, e.Count, o.Count) {
					return api.Errorf(api.Invalid, "idmap: %s ranges %s and %s overlap", kind, o, e)
				}
			}
		}
	}
	return nil
}

// The id 2^32-1 means "no id" to the kernel and cannot be mapped.
func fits(first, count int64) bool {
	return first >= 0 && first < math.MaxUint32 && count <= math.MaxUint32-first
}

func overlap(a, b, na, nb int64) bool { return a < b+nb && b < a+na }

// String is CONTAINER:HOST:COUNT.
func (e IDEntry) String() string {
	return fmt.Sprintf("%d:%d:%d", e.ContainerID, e.HostID, e.Count)
}

// HostUID gives the host's id for a container's uid; ok is false when the uid
// is not mapped. The nil map maps each id to itself.
func (m IDMap) HostUID(id int64) (host int64, ok bool) { return m.host("uid", id) }

// HostGID is HostUID for group ids.
func (m IDMap) HostGID(id int64) (host int64, ok bool) { return m.host("gid", id) }

func (m IDMap) host(kind string, id int64) (int64, bool) {
	if m == nil {
		return id, true
	}
	for _, e := range m.of(kind) {
		if id >= e.ContainerID && id < e.ContainerID+e.Count {
			return e.HostID + id - e.ContainerID, true
		}
	}
	return 0, false
}

func (m IDMap) of(kind string) []IDEntry {
	var part []IDEntry
	for _, e := range m {
		if kind == "uid" && e.UID || kind == "gid" && e.GID {
			part = append(part, e)
		}
	}
	return part
}

func (m IDMap) sysProc(kind string) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, e := range m.of(kind) {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Count)})
	}
	return out
}
