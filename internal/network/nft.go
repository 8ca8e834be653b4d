package network

import (
	"fmt"
	"strings"
)

// renderRuleset is the input of nft -f for a network: one transaction that
// replaces the network's table, so that no packet sees a half-made set of rules.
// All that goes into the text has been parsed: names by [ValidateName],
// addresses by netip. Source: nft(8).
func renderRuleset(table, bridge string, s settings) string {
	var b strings.Builder
	// A table must exist to be deleted: add, delete, add again.
	fmt.Fprintf(&b, "table inet %s\ndelete table inet %s\ntable inet %s {\n", table, table, table)
	b.WriteString("\tchain postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;\n")
	masquerade(&b, "ip", s.v4)
	masquerade(&b, "ip6", s.v6)
	b.WriteString("\t}\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;\n")
	forward(&b, bridge, "ipv4", s.v4)
	forward(&b, bridge, "ipv6", s.v6)
	b.WriteString("\t}\n\tchain input {\n\t\ttype filter hook input priority 0; policy accept;\n")
	services(&b, "iifname", bridge, "dport", s)
	b.WriteString("\t}\n\tchain output {\n\t\ttype filter hook output priority 0; policy accept;\n")
	services(&b, "oifname", bridge, "sport", s)
	b.WriteString("\t}\n}\n")
	return b.String()
}

// masquerade hides the subnet behind the host. Traffic that stays in the subnet
// passes this hook too when br_netfilter is loaded, hence the second condition.
func masquerade(b *strings.Builder, family string, f family) {
	if f.on() && f.nat {
		subnet := f.address.Masked()
		fmt.Fprintf(b, "\t\t%s saddr %s %s daddr != %s masquerade\n", family, subnet, family, subnet)
	}
}

func forward(b *strings.Builder, bridge, proto string, f family) {
	switch {
	case f.on() && !f.routing: // routing off means off, whatever ip_forward is for the rest of the host
		fmt.Fprintf(b, "\t\tmeta nfproto %s iifname %q oifname != %q reject\n", proto, bridge, bridge)
		fmt.Fprintf(b, "\t\tmeta nfproto %s oifname %q iifname != %q reject\n", proto, bridge, bridge)
	case f.on() && f.firewall:
		fmt.Fprintf(b, "\t\tmeta nfproto %s iifname %q accept\n", proto, bridge)
		fmt.Fprintf(b, "\t\tmeta nfproto %s oifname %q accept\n", proto, bridge)
	}
}

// services lets the traffic of dnsmasq pass: DNS, DHCP, and for IPv6 the
// messages without which there is no neighbour and no router.
func services(b *strings.Builder, direction, bridge, port string, s settings) {
	if s.v4.on() && s.v4.firewall {
		fmt.Fprintf(b, "\t\tmeta nfproto ipv4 %s %q udp %s { 53, 67 } accept\n", direction, bridge, port)
		fmt.Fprintf(b, "\t\tmeta nfproto ipv4 %s %q tcp %s 53 accept\n", direction, bridge, port)
		fmt.Fprintf(b, "\t\tmeta nfproto ipv4 %s %q icmp type { destination-unreachable, time-exceeded, parameter-problem } accept\n", direction, bridge)
	}
	if s.v6.on() && s.v6.firewall {
		fmt.Fprintf(b, "\t\tmeta nfproto ipv6 %s %q udp %s { 53, 547 } accept\n", direction, bridge, port)
		fmt.Fprintf(b, "\t\tmeta nfproto ipv6 %s %q tcp %s 53 accept\n", direction, bridge, port)
		fmt.Fprintf(b, "\t\tmeta nfproto ipv6 %s %q icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, "+
			"parameter-problem, nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept\n", direction, bridge)
	}
}

// deleteTable is the input of nft -f that removes a table which may be absent.
func deleteTable(table string) string {
	return fmt.Sprintf("table inet %s\ndelete table inet %s\n", table, table)
}
