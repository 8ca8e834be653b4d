package linux

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// From a Debian 12 host, shortened; mounts with blanks and stacked mounts added.
const mountinfo = `25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
26 25 0:23 / /proc rw,relatime shared:13 - proc proc rw
27 25 0:24 / /sys rw,relatime shared:14 - sysfs sysfs rw
28 27 0:25 / /sys/fs/cgroup rw shared:15 - cgroup2 cgroup2 rw,nsdelegate
29 25 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334460k
30 29 0:27 / /dev/shm rw - tmpfs tmpfs rw
31 25 254:16 / /srv/my\040disk rw,relatime - xfs /dev/vdb rw
32 31 0:40 /sub /srv/my\040disk/a\134b ro - btrfs /dev/vdc rw
33 25 0:41 / /var rw - ext4 /dev/vdd rw
34 33 0:42 / /var/lib/croft rw - ext4 /dev/vde rw
35 33 0:43 / /var/tmp rw - tmpfs tmpfs rw
36 35 0:44 / /var/tmp rw - tmpfs tmpfs rw
`

func TestParseMountInfo(t *testing.T) {
	got, err := ParseMountInfo(mountinfo)
	if err != nil || len(got) != 12 {
		t.Fatalf("%d mounts, %v", len(got), err)
	}
	want := MountInfo{
		ID: 32, Parent: 31, Root: "/sub", Target: `/srv/my disk/a\b`, Options: "ro",
		FSType: "btrfs", Source: "/dev/vdc", SuperOpts: "rw",
	}
	if diff := cmp.Diff(want, got[7]); diff != "" {
		t.Error(diff)
	}
	if _, err := ParseMountInfo("nonsense\n"); err == nil {
		t.Error("nonsense was accepted")
	}
}

func FuzzParseMountInfo(f *testing.F) {
	f.Add(mountinfo)
	f.Add(`1 2 0:0 / /\1 rw - a b`)
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := ParseMountInfo(text)
		if err == nil && len(mounts) != len(slices.Collect(strings.Lines(text))) {
			t.Errorf("%d mounts from %q", len(mounts), text)
		}
	})
}

func TestToDetach(t *testing.T) {
	mounts, err := ParseMountInfo(mountinfo)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ keep, want []string }{
		{nil, []string{"/proc", "/sys", "/dev", "/srv/my disk", "/var"}},
		{[]string{"/proc", "/sys/fs/cgroup", "/dev"}, []string{"/srv/my disk", "/var"}},
		{[]string{"/proc", "/sys", "/dev", "/var/lib/croft/stage/"}, []string{"/srv/my disk", "/var/tmp", "/var/tmp"}},
		{[]string{"/"}, nil},
		{[]string{"/srv/my diskette", "/proc", "/sys", "/dev", "/var"}, []string{"/srv/my disk"}},
	} {
		got := toDetach(mounts, c.keep)
		if !slices.Equal(slices.Compact(got), slices.Compact(c.want)) {
			t.Errorf("keep %q: got %q, want %q", c.keep, got, c.want)
		}
	}
}

func TestOverlayOptions(t *testing.T) {
	for want, o := range map[string]Overlay{
		"lowerdir=0:1,metacopy=off,upperdir=i/upper,workdir=i/work,redirect_dir=on,index=off,nfs_export=off": {
			Lower: []string{"0", "1"}, Upper: "i/upper", Work: "i/work"},
		"lowerdir=0,metacopy=off,upperdir=u,workdir=w,redirect_dir=on,index=on,nfs_export=on": {
			Lower: []string{"0"}, Upper: "u", Work: "w", Index: true},
		`lowerdir=a\:b:c\,d:e\\f,metacopy=off`: {Lower: []string{"a:b", "c,d", `e\f`}},
	} {
		if got := o.options(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
