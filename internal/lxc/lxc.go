// Package lxc drives liblxc, which makes the namespaces, control groups,
// seccomp filters and capability sets of a container. It is the only package
// that binds it.
//
// Nothing of liblxc runs inside the daemon. [Render] writes the configuration,
// and helper.c, a constructor in our own binary that runs before the Go
// runtime, does the calls in processes of their own: one that starts a
// container and turns into its monitor, and one that keeps an exec session.
// Both outlive the daemon.
package lxc

/*
#cgo CFLAGS: -Wall -Wextra -O2
#cgo LDFLAGS: -llxc
#include <stdlib.h>
#include <lxc/lxccontainer.h>
*/
import "C"

import "unsafe"

// Version is the version of liblxc that is linked.
func Version() string { return C.GoString(C.lxc_get_version()) }

// extensions are the API extensions of liblxc that clients ask about in
// lxc_features of GET /1.0.
var extensions = []string{
	"cgroup2", "core_scheduling", "devpts_fd", "idmapped_mounts_v2", "mount_injection_file",
	"network_gateway_device_route", "network_ipvlan", "network_l2proxy", "network_phys_macvlan_mtu",
	"network_veth_router", "pidfd", "seccomp_allow_deny_syntax", "seccomp_notify", "seccomp_proxy_send_notify_fd",
}

// Features tells for each extension of interest whether the linked liblxc has it.
func Features() map[string]bool {
	out := make(map[string]bool, len(extensions))
	for _, e := range extensions {
		name := C.CString(e)
		out[e] = bool(C.lxc_has_api_extension(name))
		C.free(unsafe.Pointer(name))
	}
	return out
}
