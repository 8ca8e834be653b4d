package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// chainSample is the output of nft 1.0.6 with Docker's chains made by iptables
// 1.8.9, a drop policy for IPv6, and a table of Croft's.
const chainSample = `{"nftables": [{"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
{"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 1}},
{"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 4, "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
{"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
{"chain": {"family": "ip6", "table": "filter", "name": "INPUT", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "mine", "name": "f", "handle": 1, "type": "filter", "hook": "forward", "prio": 5, "policy": "drop"}},
{"chain": {"family": "inet", "table": "croft_x_br0", "name": "forward", "handle": 1, "type": "filter", "hook": "forward", "prio": 5, "policy": "drop"}}]}`

func TestForeignChains(t *testing.T) {
	chains, err := parseChains([]byte(chainSample))
	if err != nil {
		t.Fatal(err)
	}
	if got := explain(chains); len(got) != 3 || !strings.Contains(got[0], "DOCKER-USER") || !strings.Contains(got[2], "table inet mine") {
		t.Errorf("explanations: %q", got)
	}
	p := &Plan{Name: "br0", Gateway4: netip.MustParseAddr("10.1.2.1"), Gateway6: netip.MustParsePrefix("fd42::1/64")}
	var got []string
	for _, r := range exceptions(chains, p, "id") {
		got = append(got, strings.ReplaceAll(strings.Join(r, " "), " -m comment --comment croft:id:br0 -j ACCEPT", ""))
	}
	want := []string{
		"iptables DOCKER-USER -i br0", "iptables DOCKER-USER -o br0",
		"ip6tables FORWARD -i br0", "ip6tables FORWARD -o br0",
		"ip6tables INPUT -i br0 -p udp -m multiport --dports 53,547", "ip6tables INPUT -i br0 -p tcp --dport 53", "ip6tables INPUT -i br0 -p icmpv6",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseChains([]byte("{")); err == nil {
		t.Error("broken output was taken")
	}
}
