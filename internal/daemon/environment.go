package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/pki"
	"github.com/croft-project/croft/internal/storage"
)

// Version is Croft's own version; the build may set another one.
var Version = "0.1.0-dev"

// CompatVersion is the version of LXD whose API we speak. Clients choose by it,
// and by "lxd" as the server's name, what they may ask for.
const (
	CompatVersion = "5.0.2"
	compatServer  = "lxd"
)

// host is what GET /1.0 says of the host and the daemon. Facts that do not
// change while the daemon runs are found once, when they are first asked for.
type host struct {
	hostname string
	identity *pki.Identity
	pools    *storage.Pools
	probeDir string // empty, on the file system of the state directory
	log      *slog.Logger
	facts    func() (api.ServerEnvironment, error)
}

func newHost(ctx context.Context, hostname string, id *pki.Identity, pools *storage.Pools, probeDir string, log *slog.Logger) *host {
	h := &host{hostname: hostname, identity: id, pools: pools, probeDir: probeDir, log: log}
	ctx = context.WithoutCancel(ctx)
	h.facts = sync.OnceValues(func() (api.ServerEnvironment, error) { return h.find(ctx) })
	return h
}

// environment implements server.Deps.Environment.
func (h *host) environment(context.Context) (api.ServerEnvironment, error) {
	env, err := h.facts()
	if err != nil {
		return env, err
	}
	env.Storage, env.StorageVersion = h.usedDrivers()
	return env, nil
}

// usedDrivers names the drivers of the open pools, in the form that LXD has for
// several.
func (h *host) usedDrivers() (names, versions string) {
	var n, v []string
	seen := map[string]bool{}
	for _, p := range h.pools.List() {
		info := p.Info()
		if seen[info.Name] {
			continue
		}
		seen[info.Name] = true
		n, v = append(n, info.Name), append(v, info.Version)
	}
	return strings.Join(n, " | "), strings.Join(v, " | ")
}

func (h *host) find(ctx context.Context) (api.ServerEnvironment, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return api.ServerEnvironment{}, fmt.Errorf("read the kernel's name: %w", err)
	}
	release, machine := unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
	osName, osVersion := osRelease("/etc/os-release")
	idmapped, supported := h.probe(ctx)
	return api.ServerEnvironment{
		Addresses: []string{}, Architectures: architectures(machine),
		Certificate: h.identity.PEM, CertificateFingerprint: h.identity.Fingerprint,
		Driver: "lxc", DriverVersion: lxc.Version(), Firewall: "nftables",
		Kernel: unix.ByteSliceToString(u.Sysname[:]), KernelArchitecture: machine, KernelVersion: release,
		KernelFeatures: kernelFeatures(release, idmapped), LXCFeatures: texts(lxc.Features()),
		OSName: osName, OSVersion: osVersion,
		Server: compatServer, ServerVersion: CompatVersion, ServerName: h.hostname, ServerPid: os.Getpid(),
		ServerEventMode: "full-mesh", StorageSupportedDrivers: supported,
	}, nil
}

// probe tries what the kernel and the file system of the state directory can do.
func (h *host) probe(ctx context.Context) (idmapped bool, supported []api.ServerStorageDriverInfo) {
	f, err := linux.Probe(ctx, h.probeDir)
	if err != nil {
		h.log.Warn("the kernel's facilities could not be probed", "err", err)
	}
	idmapped = err == nil && f.IDMapped == nil
	supported = []api.ServerStorageDriverInfo{}
	for _, name := range h.pools.DriverNames() {
		d := h.pools.Drivers[name](storage.Config{Pool: "probe", Dir: h.probeDir, Log: h.log})
		if err := d.Check(ctx); err != nil {
			h.log.Info("storage driver does not work on this host", "driver", name, "err", err)
			continue
		}
		info := d.Info()
		supported = append(supported, api.ServerStorageDriverInfo{Name: info.Name, Version: info.Version, Remote: info.Remote})
	}
	return idmapped, supported
}

// architectures are those that the kernel runs, in LXD's names.
func architectures(machine string) []string {
	switch machine {
	case "x86_64":
		return []string{"x86_64", "i686"}
	case "aarch64":
		return []string{"aarch64", "armv7l"}
	}
	return []string{machine}
}

func texts(m map[string]bool) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = strconv.FormatBool(v)
	}
	return out
}

// osRelease reads the distribution's name and version; os-release(5).
func osRelease(path string) (name, version string) {
	f, err := os.Open(path)
	if err != nil {
		return "", ""
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if plain, err := strconv.Unquote(value); err == nil {
			value = plain
		}
		switch key {
		case "NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return name, version
}

// kernelFeatures answers what LXD's clients ask of a kernel. What can be tried is
// tried; the rest goes by the version that brought it.
func kernelFeatures(release string, idmapped bool) map[string]string {
	return texts(map[string]bool{
		"idmapped_mounts":           idmapped,
		"netnsid_getifaddrs":        strictNetlink(),
		"seccomp_listener":          seccompNotify(),
		"seccomp_listener_continue": seccompNotify() && atLeast(release, 5, 5),
		"shiftfs":                   hasFilesystem("shiftfs"),
		"uevent_injection":          atLeast(release, 4, 18),
		"unpriv_fscaps":             atLeast(release, 4, 14),
	})
}

// atLeast compares the first two numbers of a kernel's release.
func atLeast(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// strictNetlink tries the checks that asking for another namespace's addresses
// depends on; netlink(7), NETLINK_GET_STRICT_CHK.
func strictNetlink() bool {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) == nil
}

// seccompNotify asks for the sizes of user notifications; seccomp(2).
func seccompNotify() bool {
	const getNotifSizes = 3 // SECCOMP_GET_NOTIF_SIZES
	var sizes [3]uint16
	err := seccomp(getNotifSizes, &sizes)
	return err == nil || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP)
}

func hasFilesystem(name string) bool {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return true
		}
	}
	return false
}
