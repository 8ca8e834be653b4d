//go:build system

package system

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDeniedSystemCalls asks for them in a Debian, whose Perl can make any.
func TestDeniedSystemCalls(t *testing.T) {
	h := newHost(t, "overlay")
	h.importDebian()
	h.ok("launch", "debian", "d1")
	h.ok("launch", "debian", "n1", "-c", "security.nesting=true")
	call := func(container string, number int, args string) string {
		return h.sh(container, fmt.Sprintf(`perl -e '$! = 0; $r = syscall(%d, %s); print $r < 0 ? $! + 0 : "done"'`, number, args))
	}
	for _, name := range []string{"d1", "n1"} {
		for _, x := range []struct {
			name   string
			number int
			args   string
			want   unix.Errno
		}{
			{"kexec_load", unix.SYS_KEXEC_LOAD, "0, 0, 0, 0", unix.ENOSYS},
			{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, "-100, 0, 0", unix.ENOSYS},
			{"init_module", unix.SYS_INIT_MODULE, `my $a = "x", 1, my $b = ""`, unix.ENOSYS},
			{"finit_module", unix.SYS_FINIT_MODULE, `0, my $a = "", 0`, unix.ENOSYS},
			{"delete_module", unix.SYS_DELETE_MODULE, `my $a = "x", 0`, unix.ENOSYS},
			{"umount2 by force", unix.SYS_UMOUNT2, `my $a = "/proc", 1`, unix.EACCES},
			{"settimeofday", unix.SYS_SETTIMEOFDAY, `my $a = pack("qq", 1, 1), 0`, unix.EPERM},
			{"syslog", unix.SYS_SYSLOG, "5, 0, 0", unix.EPERM},
			{"swapon", unix.SYS_SWAPON, `my $a = "/etc/passwd", 0`, unix.EPERM},
		} {
			if got := call(name, x.number, x.args); got != fmt.Sprint(int(x.want)) {
				t.Errorf("%s in %s: error %s, want %d (%v)", x.name, name, got, int(x.want), x.want)
			}
		}
	}
	// What nesting is for: namespaces with a proc of their own.
	nested := "unshare --user --map-root-user --mount --pid --fork --mount-proc sh -c 'echo $$; mount -t tmpfs none /mnt && echo mounted'"
	if got := h.sh("n1", nested); got != "1\nmounted" {
		t.Errorf("a nested container: %q", got)
	}
	h.ok("delete", "-f", "d1", "n1")
}

func TestProfiles(t *testing.T) {
	h := newHost(t, "overlay")
	if got := h.ok("profile", "list", "-f", "csv"); !strings.Contains(got, "default") || !strings.Contains(got, "docker") {
		t.Errorf("profiles: %s", got)
	}
	for _, name := range []string{"a", "b"} {
		h.ok("profile", "create", name)
		h.ok("profile", "set", name, "environment.WHO", name)
		h.ok("profile", "set", name, "environment.HAS_"+strings.ToUpper(name), "yes")
	}
	h.ok("launch", "busybox", "c1", "-p", "default", "-p", "a", "-p", "b")
	show := func() string { t.Helper(); return h.sh("c1", "echo $WHO $HAS_A $HAS_B") }
	if got := show(); got != "b yes yes" {
		t.Errorf("the last profile has to win: %q", got)
	}
	h.ok("profile", "assign", "c1", "default,b,a")
	if got := show(); got != "a yes yes" {
		t.Errorf("after a change of order: %q", got)
	}
	h.ok("config", "set", "c1", "environment.WHO", "own")
	if got := show(); got != "own yes yes" {
		t.Errorf("the instance's own key has to win: %q", got)
	}
	h.ok("profile", "remove", "c1", "a")
	h.ok("config", "unset", "c1", "environment.WHO")
	if got := show(); got != "b yes" {
		t.Errorf("without the profile a: %q", got)
	}
	h.refused([]string{"profile", "delete", "b"}, "b")
	h.refused([]string{"profile", "assign", "c1", "default,nosuch"}, "nosuch")
	// A limit that no kernel takes is refused for the profile, and nothing changes.
	h.refused([]string{"profile", "set", "b", "limits.memory", "1"}, "limits.memory")
	if got := h.ok("profile", "get", "b", "limits.memory"); got != "" {
		t.Errorf("a refused key is in the profile: %s", got)
	}
	h.ok("profile", "rename", "a", "z")
	h.ok("profile", "delete", "z")
	h.ok("delete", "-f", "c1")
}

// What ran, and what is to start by itself, runs after a shutdown.
func TestPowerReturns(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "ran")
	h.ok("init", "busybox", "auto", "-c", "boot.autostart=true")
	h.ok("launch", "busybox", "never", "-c", "boot.autostart=false")
	h.ok("launch", "busybox", "halted")
	h.ok("stop", "-f", "halted")
	ran := h.ok("config", "get", "ran", "volatile.eth0.hwaddr")
	h.daemon("shutdown", "--timeout", "60")
	_ = h.cmd.Wait()
	h.start()
	h.awaitStatus("ran", "RUNNING")
	h.awaitStatus("auto", "RUNNING")
	if got := h.ok("list", "-f", "csv", "-c", "ns"); got != "auto,RUNNING\nhalted,STOPPED\nnever,STOPPED\nran,RUNNING" {
		t.Errorf("after the return:\n%s", got)
	}
	if got := h.ok("config", "get", "ran", "volatile.eth0.hwaddr"); got != ran {
		t.Errorf("MAC address %s, was %s", got, ran)
	}
	h.ok("delete", "-f", "ran", "auto", "never", "halted")
}
