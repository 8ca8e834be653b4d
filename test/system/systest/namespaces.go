//go:build system

package systest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/internal/linux"
)

// prepareNamespaces makes the mounts private, shows the new network namespace in
// /sys, where liblxc looks for bridges, and switches the loopback interface on.
// What is mounted below /sys, the control groups above all, moves along.
func prepareNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	trees, err := treesBelow("/sys/")
	if err != nil {
		return err
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	for _, t := range trees {
		err := linux.MoveMount(t.tree, t.target)
		t.tree.Close()
		if err != nil {
			return fmt.Errorf("move %s: %w", t.target, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

type mountTree struct {
	target string
	tree   *os.File
}

// treesBelow clones the topmost mounts below prefix with all that is on them.
func treesBelow(prefix string) ([]mountTree, error) {
	mounts, err := linux.ThreadMounts()
	if err != nil {
		return nil, err
	}
	var out []mountTree
next:
	for _, m := range mounts {
		if !strings.HasPrefix(m.Target, prefix) {
			continue
		}
		for _, t := range out {
			if m.Target == t.target || strings.HasPrefix(m.Target, t.target+"/") {
				continue next
			}
		}
		tree, err := linux.CloneMount(m.Target, true)
		if err != nil {
			return nil, fmt.Errorf("clone %s: %w", m.Target, err)
		}
		out = append(out, mountTree{m.Target, tree})
	}
	return out, nil
}

// namespaceLeftovers lists what the tests have left in their network namespace,
// which is empty but for the loopback interface when all daemons are gone.
func namespaceLeftovers() []string {
	links, err := net.Interfaces()
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, l := range links {
		if l.Name != "lo" {
			out = append(out, "network device "+l.Name)
		}
	}
	rules, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		out = append(out, "nft list ruleset: "+err.Error())
	}
	if text := strings.TrimSpace(string(rules)); text != "" {
		out = append(out, "nftables rules: "+text)
	}
	return out
}
