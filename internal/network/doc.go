// Package network makes and keeps Croft's managed bridges: the link and its
// addresses (rtnetlink), address translation and filtering (nftables, one table
// per bridge), and DHCP, DNS and router advertisements (one unprivileged
// dnsmasq per bridge).
//
// A change has two steps. [BuildPlan] turns a stored configuration into a
// [Plan], a pure value that tests compare with golden files; [Manager.Start]
// makes the kernel agree with the plan. Start may be repeated at any time: what
// is right already is left alone.
//
// Bridges and their dnsmasq outlive the daemon, as the containers do that renew
// their leases there. The next daemon recognises its own by their marks: the
// alias of the link, the name of the table and the arguments of the process all
// carry the daemon's identity, so that several daemons share one host.
//
// Files: under Deps.RunDir, which any user may traverse and a reboot empties,
// NAME/ has dnsmasq's configuration, pid file and the directory of reservations
// (one small file for each NIC, which dnsmasq picks up by itself); under
// Deps.StateDir, networks/NAME/dnsmasq.leases survives reboots.
package network
