package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
)

// release is a release of a distribution that images can be built of.
type release struct {
	distribution, version, codename, title string
	security                               string   // suite of security updates
	packages                               []string // besides commonPackages
}

// releases are the supported ones, oldest first within a distribution.
// In older ones systemd-resolved is a part of package systemd. Without
// usr-is-merged, apt would choose the alternative that needs all of perl.
var releases = []release{
	{"debian", "11", "bullseye", "Debian", "bullseye-security", nil},
	{"debian", "12", "bookworm", "Debian", "bookworm-security", []string{"systemd-resolved", mergedPackage}},
	{"debian", "13", "trixie", "Debian", "trixie-security", []string{"systemd-resolved"}},
	{"ubuntu", "22.04", "jammy", "Ubuntu", "jammy-security", nil},
	{"ubuntu", "24.04", "noble", "Ubuntu", "noble-security", []string{"systemd-resolved"}},
}

// commonPackages make a minbase system one that boots, has an address and can
// be worked in.
var commonPackages = []string{
	"systemd", "systemd-sysv", "libpam-systemd", "dbus", "udev",
	"iproute2", "iputils-ping", "netbase", "procps", "ca-certificates",
}

func findRelease(distribution, name string) (release, error) {
	for _, r := range releases {
		if r.distribution == distribution && name != "" && (r.version == name || r.codename == name) {
			return r, nil
		}
	}
	return release{}, unknownBuild(distribution + "/" + name)
}

// networkUnit asks for an address on the interface that instances have by
// default. The client identifier is the hardware address, so that a lease
// survives a reinstallation and two copies get two.
const networkUnit = `[Match]
Name=eth0

[Network]
DHCP=yes
IPv6AcceptRA=yes

[DHCPv4]
ClientIdentifier=mac
UseDomains=yes

[DHCPv6]
UseDomains=yes
`

// udevTrigger replays the events of network links at boot, which networkd waits
// for, and of nothing else: the host's other devices are not the container's,
// asking for them takes a quarter of the boot and fails in older systemd.
const udevTrigger = `[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=net
`

// maskedUnits have work to do on disks and kernels only. The mounts would fail
// in a container that keeps CAP_SYS_RAWIO, which they take for a machine's.
var maskedUnits = []string{
	"e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-pstore.service", "getty@tty1.service",
	"sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-journald-audit.socket",
}

// Without mergedPackage, apt chooses the alternative that needs all of perl.
// mergedHooks, a part of package mmdebstrap, make the tree what it checks for.
const (
	mergedPackage = "usr-is-merged"
	mergedHooks   = "/usr/share/mmdebstrap/hooks/merged-usr"
)

// enableHook runs inside mmdebstrap, which puts the tree's path in $1.
const enableHook = `chroot "$1" systemctl enable systemd-networkd.service systemd-resolved.service`

// BuildDebian builds an image of a Debian or Ubuntu release with mmdebstrap(1)
// from the distribution's packages: systemd, networkd (DHCP and router
// advertisements on eth0), resolved, no locales but C.UTF-8, no machine id.
// See [Builder.Build].
func (b *Builder) BuildDebian(ctx context.Context, req BuildRequest, dir string) (_ Built, err error) {
	rel, err := findRelease(req.Distribution, req.Release)
	if err != nil {
		return Built{}, err
	}
	if err := checkMirror(req.Mirror); err != nil {
		return Built{}, err
	}
	arch := req.Arch
	if arch == "" {
		arch = hostArchitecture()
	}
	if arch, err = DebianArchitecture(arch); err != nil {
		return Built{}, err
	}
	tmp, remove, err := workspace(dir)
	if err != nil {
		return Built{}, err
	}
	defer func() { err = errors.Join(err, remove()) }()

	tree := filepath.Join(tmp, "rootfs")
	if err := b.bootstrap(ctx, rel, arch, req.Mirror, tree, tmp); err != nil {
		return Built{}, err
	}
	b.progress("configuring the system")
	if err := configureDebian(tree, rel); err != nil {
		return Built{}, fmt.Errorf("build image: configure: %w", err)
	}
	md, err := b.debianMetadata(rel, arch)
	if err != nil {
		return Built{}, err
	}
	return b.finish(ctx, tmp, tree, dir, md, nameTemplates)
}

func (b *Builder) bootstrap(ctx context.Context, rel release, arch, mirror, tree, tmp string) error {
	sources, err := b.sources(rel, arch, mirror)
	if err != nil {
		return err
	}
	packages := slices.Concat(commonPackages, rel.packages)
	if _, err := os.Stat(mergedHooks); err != nil {
		packages = slices.DeleteFunc(packages, func(p string) bool { return p == mergedPackage })
	}
	args := []string{
		"--mode=root", "--variant=minbase", "--format=directory", "--architectures=" + arch,
		"--include=" + strings.Join(packages, ","),
		"--customize-hook=" + enableHook,
	}
	if slices.Contains(packages, mergedPackage) {
		args = append(args, "--hook-dir="+mergedHooks)
	}
	for _, opt := range aptProxies(ctx) {
		args = append(args, "--aptopt="+opt)
	}
	args = append(args, rel.codename, tree)
	args = append(args, sources...)
	b.progress("downloading and installing packages of %s %s (%s)", rel.title, rel.version, rel.codename)
	return runProgram(ctx, program{
		name: "mmdebstrap", pkg: "mmdebstrap", args: args, tmp: tmp, epoch: b.day(), env: proxyEnv(), isolate: true,
		onLine: func(line string) {
			if step, ok := strings.CutPrefix(line, "I: "); ok && !strings.HasPrefix(step, "success") {
				b.progress("%s", step)
			}
		},
	})
}

// proxyEnv passes on the proxy settings that apt reads from the environment.
func proxyEnv() []string {
	var env []string
	for _, key := range []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY"} {
		if v := os.Getenv(key); v != "" {
			env = append(env, key+"="+v)
		}
	}
	return env
}

// aptProxies are the proxy settings of the host's apt, which mmdebstrap does
// not take over itself. Without apt there are none.
func aptProxies(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format", `%f "%v";%n`, "Acquire").Output()
	if err != nil {
		return nil
	}
	var opts []string
	for line := range strings.Lines(string(out)) {
		key, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(key, "Acquire::http") && strings.Contains(key, "::Proxy") && !strings.Contains(line, `""`) {
			opts = append(opts, strings.TrimSpace(line))
		}
	}
	return opts
}

// configureDebian changes the bootstrapped tree where an instance differs from
// a machine. All paths are resolved inside the tree.
func configureDebian(tree string, rel release) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	files := map[string]string{
		"etc/systemd/network/80-eth0.network":                              networkUnit,
		"etc/systemd/system/systemd-udev-trigger.service.d/container.conf": udevTrigger,
		"etc/default/locale":                                               "LANG=C.UTF-8\n",
		"etc/hostname":                                                     rel.distribution + "\n",
		"etc/hosts":                                                        "127.0.0.1\tlocalhost\n127.0.1.1\t" + rel.distribution + "\n",
		"etc/machine-id":                                                   "", // the first boot makes one
	}
	for name, text := range files {
		if err := replaceFile(root, name, text); err != nil {
			return err
		}
	}
	links := map[string]string{
		"etc/resolv.conf":         "../run/systemd/resolve/stub-resolv.conf",
		"var/lib/dbus/machine-id": "/etc/machine-id",
	}
	for _, unit := range maskedUnits {
		links["etc/systemd/system/"+unit] = "/dev/null"
	}
	for name, target := range links {
		if err := replaceLink(root, name, target); err != nil {
			return err
		}
	}
	// Waiting for the network at every boot, the builder's own apt settings, and
	// logs that would differ from one build to the next.
	for _, name := range []string{"etc/systemd/system/network-online.target.wants", "etc/apt/apt.conf.d/99mmdebstrap",
		"var/log/apt", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/bootstrap.log",
		"var/cache/ldconfig/aux-cache", "etc/.pwd.lock"} {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	return emptyDir(root, "dev")
}

func replaceFile(root *os.Root, name, text string) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	if err := root.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	return root.Chmod(name, 0o644) // whatever the umask
}

func replaceLink(root *os.Root, name, target string) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	return root.Symlink(target, name)
}

func emptyDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := root.RemoveAll(filepath.Join(name, n)); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) debianMetadata(rel release, arch string) (*api.ImageMetadata, error) {
	kernelArch, err := NormalizeArchitecture(arch)
	if err != nil {
		return nil, err
	}
	day := b.day()
	return &api.ImageMetadata{
		Architecture: kernelArch,
		CreationDate: day.Unix(),
		Properties: map[string]string{
			"architecture": arch,
			"description":  fmt.Sprintf("%s %s %s (%s)", rel.title, rel.version, arch, day.Format("20060102")),
			"name":         fmt.Sprintf("%s-%s-%s", rel.distribution, rel.codename, arch),
			"os":           rel.title,
			"release":      rel.codename,
			"serial":       day.Format("20060102"),
			"variant":      "default",
			"version":      rel.version,
		},
		Templates: nameTargets(),
	}, nil
}
