package image

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/croft-project/croft/api"
)

// busyboxFiles are the files of a busybox system, besides the program and its
// links. Its init takes SIGPWR (what container managers send for a halt) as
// halt, and SIGINT as Ctrl-Alt-Del.
var busyboxFiles = map[string]string{
	"etc/passwd":      "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
	"etc/group":       "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
	"etc/shadow":      "root:*:::::::\nnobody:*:::::::\n",
	"etc/hostname":    "busybox\n",
	"etc/hosts":       "127.0.0.1\tlocalhost\n",
	"etc/profile":     "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
	"etc/resolv.conf": "",
	"etc/inittab": `::sysinit:/etc/init.d/rcS
::askfirst:-/bin/sh
::ctrlaltdel:/sbin/reboot
`,
	"etc/init.d/rcS": `#!/bin/sh
# Runs once at boot.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
hostname -F /etc/hostname
ip link set lo up
for i in /sys/class/net/eth*; do
	[ -e "$i" ] || continue
	i=${i##*/}
	ip link set "$i" up
	# In the background it goes on trying when no server answers.
	udhcpc -b -S -t 5 -i "$i" -p "/run/udhcpc.$i.pid" -s /usr/share/udhcpc/default.script \
		-x "hostname:$(hostname)" >/dev/null 2>&1 </dev/null &
done
`,
	"usr/share/udhcpc/default.script": `#!/bin/sh
# Called by udhcpc with what it got in the environment.
case "$1" in
deconfig)
	ip -4 addr flush dev "$interface"
	ip link set "$interface" up
	;;
bound|renew)
	ip addr replace "$ip/${mask:-24}" brd + dev "$interface"
	[ -n "$router" ] && ip route replace default via "${router%% *}" dev "$interface"
	{
		[ -n "$domain" ] && echo "search $domain"
		for server in $dns; do
			echo "nameserver $server"
		done
	} >/etc/resolv.conf.new
	mv /etc/resolv.conf.new /etc/resolv.conf
	;;
esac
`,
}

var busyboxScripts = map[string]bool{"etc/init.d/rcS": true, "usr/share/udhcpc/default.script": true}

var busyboxDirs = []string{"bin", "sbin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp",
	"usr/bin", "usr/sbin", "usr/share", "var/log", "var/lib", "var/tmp"}

// BuildBusybox builds an image of the host's statically linked busybox, which
// boots in a few milliseconds: its init, DHCP on every eth* interface, and a
// shell on the console. See [Builder.Build].
func (b *Builder) BuildBusybox(ctx context.Context, req BuildRequest, dir string) (_ Built, err error) {
	program, arch, err := staticBusybox()
	if err != nil {
		return Built{}, err
	}
	if req.Arch != "" {
		if want, err := NormalizeArchitecture(req.Arch); err != nil || want != arch {
			return Built{}, api.Errorf(api.Unsupported, "architecture %q: this host's busybox is for %s", req.Arch, arch)
		}
	}
	tmp, remove, err := workspace(dir)
	if err != nil {
		return Built{}, err
	}
	defer func() { err = errors.Join(err, remove()) }()

	tree := filepath.Join(tmp, "rootfs")
	b.progress("making the file tree")
	if err := busyboxTree(ctx, tree, program); err != nil {
		return Built{}, err
	}
	md := &api.ImageMetadata{
		Architecture: arch,
		CreationDate: b.day().Unix(),
		Properties: map[string]string{
			"architecture": arch, "description": "Busybox " + arch, "name": "busybox-" + arch, "os": "Busybox", "release": "1",
		},
		Templates: nameTargets(),
	}
	return b.finish(ctx, tmp, tree, dir, md, nameTemplates)
}

// staticBusybox finds the host's busybox and its architecture, and makes sure
// that it needs no libraries.
func staticBusybox() (path, arch string, err error) {
	hint := func(e *api.Error) error { return e.WithHint("apt-get install busybox-static") }
	path, err = exec.LookPath("busybox")
	if err != nil {
		return "", "", hint(api.Errorf(api.Unsupported, "building a busybox image needs the program busybox: %w", err))
	}
	f, err := elf.Open(path)
	if err != nil {
		return "", "", hint(api.Errorf(api.Unsupported, "%s is no program: %w", path, err))
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", "", hint(api.Errorf(api.Unsupported, "%s needs shared libraries; a static one is needed", path))
		}
	}
	arch, err = NormalizeArchitecture(hostArchitecture())
	return path, arch, err
}

func busyboxTree(ctx context.Context, tree, program string) error {
	if err := os.Mkdir(tree, 0o755); err != nil {
		return fmt.Errorf("build image: %w", err)
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return fmt.Errorf("build image: %w", err)
	}
	defer root.Close()
	err = errors.Join(root.Chmod(".", 0o755), busyboxSkeleton(root))
	if err == nil {
		err = copyProgram(root, program)
	}
	if err == nil {
		err = busyboxLinks(ctx, root, program)
	}
	if err != nil {
		return fmt.Errorf("build image: %w", err)
	}
	return nil
}

func busyboxSkeleton(root *os.Root) error {
	for _, dir := range busyboxDirs {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for name, text := range busyboxFiles {
		if err := replaceFile(root, name, text); err != nil {
			return err
		}
		if busyboxScripts[name] {
			if err := root.Chmod(name, 0o755); err != nil {
				return err
			}
		}
	}
	return errors.Join(root.Chmod("tmp", 0o1777|os.ModeSticky), root.Chmod("var/tmp", 0o777|os.ModeSticky),
		root.Chmod("root", 0o700), root.Chmod("etc/shadow", 0o600))
}

func copyProgram(root *os.Root, program string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if err := root.WriteFile("bin/busybox", data, 0o755); err != nil {
		return err
	}
	return root.Chmod("bin/busybox", 0o755)
}

// busyboxLinks makes a link for every applet where busybox itself would.
func busyboxLinks(ctx context.Context, root *os.Root, program string) error {
	out, err := exec.CommandContext(ctx, program, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("list busybox applets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSpace(line)
		if name == "" || name == "bin/busybox" {
			continue
		}
		if clean, err := cleanName(name); err != nil || clean == "" {
			return fmt.Errorf("busybox applet %q: no name below the root", name)
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.Symlink("/bin/busybox", name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return replaceLink(root, "sbin/init", "/bin/busybox")
}
