package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// foreignChain is a chain of a table that is not ours.
type foreignChain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	Hook   string `json:"hook"`
	Policy string `json:"policy"`
}

// drops reports whether packets that no rule of the chain lets pass are dropped
// at a hook. An accept in a table of ours does not help against that.
func (c foreignChain) drops(hook string) bool {
	return c.Type == "filter" && c.Hook == hook && c.Policy == "drop"
}

// viaIPTables reports whether iptables manages the chain.
func (c foreignChain) viaIPTables() bool {
	return c.Table == "filter" && (c.Family == "ip" || c.Family == "ip6")
}

// listChains asks nft for the chains of all tables that are visible to it; those
// of the old iptables-legacy are not.
func (m *Manager) listChains(ctx context.Context) ([]foreignChain, error) {
	if m.nft == "" {
		return nil, nil
	}
	out, err := exec.CommandContext(ctx, m.nft, "-j", "list", "chains").Output()
	if err != nil {
		return nil, fmt.Errorf("nft list chains: %w", err)
	}
	return parseChains(out)
}

// parseChains reads the output of nft -j list chains, see libnftables-json(5).
func parseChains(b []byte) ([]foreignChain, error) {
	var doc struct {
		Items []struct {
			Chain *foreignChain `json:"chain"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("nft list chains: %w", err)
	}
	var out []foreignChain
	for _, i := range doc.Items {
		if i.Chain != nil && !strings.HasPrefix(i.Chain.Table, "croft_") {
			out = append(out, *i.Chain)
		}
	}
	return out, nil
}

// ForeignDrop looks for packet filters of other programs that drop what the
// bridges forward, and explains each in a sentence with the way out. Filters of
// iptables are among them although Start puts exceptions there: the next reload
// of the other program may remove them.
func (m *Manager) ForeignDrop(ctx context.Context) ([]string, error) {
	chains, err := m.listChains(ctx)
	if err != nil {
		return nil, err
	}
	return explain(chains), nil
}

func explain(chains []foreignChain) []string {
	var out []string
	for _, c := range chains {
		if !c.drops("forward") {
			continue
		}
		where := fmt.Sprintf("chain %s of nftables table %s %s drops forwarded packets by default", c.Name, c.Family, c.Table)
		switch {
		case c.viaIPTables() && has(chains, c.Family, "DOCKER-USER"):
			where += " (Docker); Croft's bridges are let pass in chain DOCKER-USER"
		case c.viaIPTables() && has(chains, c.Family, "ufw-user-forward"):
			where += " (ufw); make it lasting with: ufw route allow in on BRIDGE && ufw route allow out on BRIDGE && ufw allow in on BRIDGE"
		case c.viaIPTables():
			where += " (iptables); Croft's bridges are let pass at its head"
		case strings.HasPrefix(c.Table, "firewalld"):
			where += "; let the bridge pass with: firewall-cmd --permanent --zone=trusted --change-interface=BRIDGE && firewall-cmd --reload"
		default:
			where += "; add to it: iifname \"BRIDGE\" accept, oifname \"BRIDGE\" accept"
		}
		out = append(out, where)
	}
	if slices.ContainsFunc(chains, func(c foreignChain) bool { return c.Table == "firewalld" && c.Hook == "forward" && !c.drops("forward") }) {
		out = append(out, "firewalld rejects forwarded packets of unknown interfaces; let the bridge pass with: "+
			"firewall-cmd --permanent --zone=trusted --change-interface=BRIDGE && firewall-cmd --reload")
	}
	return out
}

// has reports whether iptables' filter table of a family has a chain.
func has(chains []foreignChain, family, name string) bool {
	return slices.ContainsFunc(chains, func(c foreignChain) bool {
		return c.viaIPTables() && c.Family == family && c.Name == name
	})
}

// exceptions are the rules, as arguments of iptables after -I, -C or -D, that let
// a bridge pass chains which iptables manages and which drop by default. Each
// begins with the program's name.
func exceptions(chains []foreignChain, p *Plan, id string) [][]string {
	var out [][]string
	for _, f := range []struct{ program, family, dhcp string }{{"iptables", "ip", "67"}, {"ip6tables", "ip6", "547"}} {
		on := p.Gateway4.IsValid()
		if f.family == "ip6" {
			on = p.Gateway6.IsValid()
		}
		if !on {
			continue
		}
		rule := func(chain string, match ...string) {
			args := append([]string{f.program, chain}, match...)
			out = append(out, append(args, "-m", "comment", "--comment", "croft:"+id+":"+p.Name, "-j", "ACCEPT"))
		}
		for _, c := range chains {
			if !c.viaIPTables() || c.Family != f.family {
				continue
			}
			if c.drops("forward") {
				chain := c.Name
				if has(chains, f.family, "DOCKER-USER") {
					chain = "DOCKER-USER"
				}
				rule(chain, "-i", p.Name)
				rule(chain, "-o", p.Name)
			}
			if c.drops("input") {
				rule(c.Name, "-i", p.Name, "-p", "udp", "-m", "multiport", "--dports", "53,"+f.dhcp)
				rule(c.Name, "-i", p.Name, "-p", "tcp", "--dport", "53")
				if f.family == "ip6" {
					rule(c.Name, "-i", p.Name, "-p", "icmpv6")
				}
			}
		}
	}
	return out
}

// foreignFile remembers, until the next reboot, the exceptions that were made.
func (m *Manager) foreignFile(name string) string {
	return filepath.Join(m.env.runDir(name), "exceptions.json")
}

// openForeign makes the exceptions a network needs in chains of other programs.
// That is best effort: where it fails the network works as far as the others let
// it, and ForeignDrop tells.
func (m *Manager) openForeign(ctx context.Context, p *Plan) {
	chains, err := m.listChains(ctx)
	if err != nil {
		m.log.Warn("cannot look for packet filters of other programs", "network", p.Name, "error", err)
		return
	}
	rules := exceptions(chains, p, m.env.InstanceID)
	if len(rules) == 0 {
		return
	}
	file := m.foreignFile(p.Name)
	old, err := readRules(file)
	if err == nil {
		var b []byte
		for _, r := range old { // stay on record, to be removed at the end
			if !slices.ContainsFunc(rules, func(n []string) bool { return slices.Equal(n, r) }) {
				rules = append(rules, r)
			}
		}
		if b, err = json.Marshal(rules); err == nil {
			err = os.WriteFile(file, b, 0o644) // before the rules: a crash leaves none unknown
		}
	}
	for _, r := range rules {
		if err != nil {
			break
		}
		if m.iptables(ctx, "-C", r) != nil {
			err = m.iptables(ctx, "-I", r)
		}
	}
	if err != nil {
		m.log.Warn("cannot let the bridge pass another program's packet filter", "network", p.Name, "error", err)
	}
}

// closeForeign removes the exceptions. A rule that the other program has removed
// already is no error.
func (m *Manager) closeForeign(ctx context.Context, name string) {
	rules, err := readRules(m.foreignFile(name))
	if err != nil {
		m.log.Warn("cannot read the exceptions made for a network", "network", name, "error", err)
		return
	}
	for _, r := range rules {
		if m.iptables(ctx, "-C", r) != nil {
			continue
		}
		if err := m.iptables(ctx, "-D", r); err != nil {
			m.log.Warn("cannot remove an exception from another program's packet filter", "network", name, "rule", r, "error", err)
		}
	}
}

func readRules(file string) ([][]string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rules [][]string
	if err := json.Unmarshal(b, &rules); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rules, func(r []string) bool {
		return len(r) < 2 || r[0] != "iptables" && r[0] != "ip6tables"
	}), nil
}

// iptables runs one of its commands on a rule of [exceptions].
func (m *Manager) iptables(ctx context.Context, command string, rule []string) error {
	path := findProgram(rule[0])
	if path == "" {
		return fmt.Errorf("the program %s was not found", rule[0])
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"-w", "5", command}, rule[1:]...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s %s: %w: %s", rule[0], command, strings.Join(rule[1:], " "), err, firstLine(out))
	}
	return nil
}
