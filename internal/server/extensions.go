package server

import "slices"

// apiExtensions are LXD's names for what came after API 1.0. Clients refuse a
// command, or take another way, when the name is missing, so only what works is
// here, in LXD's order, with the place where it works. What several extensions
// cover together counts when all that this version has of it works: "network" is
// bridges.
var apiExtensions = []string{
	"container_host_shutdown_timeout", // key boot.host_shutdown_timeout, option.Instance
	"container_stop_priority",         // key boot.stop.priority, option.Instance
	"container_syscall_filtering",     // keys security.syscalls.*, lxc seccomp policy
	"container_last_used_at",          // field last_used_at of instances
	"etag",                            // ETag on GET, If-Match on PUT and PATCH, okTagged and ifMatch
	"patch",                           // PATCH, change
	"directory_manipulation",          // X-LXD-type: directory, files.go
	"container_cpu_time",              // field cpu of the state
	"network",                         // /1.0/networks, networks.go
	"profile_usedby",                  // field used_by of profiles
	"container_exec_recording",        // record-output and /logs/exec_*, logs.go
	"container_exec_signal_handling",  // signals on the control websocket
	"container_image_properties",      // source.properties, catalog.Resolve
	"id_map",                          // keys security.idmap.isolated and .size
	"storage",                         // /1.0/storage-pools, storage.go
	"file_delete",                     // DELETE /files, files.go
	"file_append",                     // X-LXD-write: append, files.go
	"network_dhcp_expiry",             // keys ipv4.dhcp.expiry and ipv6.dhcp.expiry of networks
	"image_create_aliases",            // field aliases of POST /1.0/images
	"entity_description",              // field description of instances, pools and networks
	"file_symlinks",                   // X-LXD-type: symlink on POST, files.go
	"instance_types",                  // field instance_type of POST /1.0/instances
	"resources",                       // /1.0/resources and /1.0/storage-pools/NAME/resources
	"network_firewall_filtering",      // keys ipv4.firewall and ipv6.firewall of networks
	"network_dhcp_gateway",            // key ipv4.dhcp.gateway of networks
	"file_get_symlink",                // X-LXD-type: symlink on GET, files.go
	"network_leases",                  // /1.0/networks/NAME/leases
	"operation_description",           // field description of operations
	"event_lifecycle",                 // events of type lifecycle
	"network_state",                   // /1.0/networks/NAME/state
	"container_protection_delete",     // key security.protection.delete
	"network_hwaddr",                  // key bridge.hwaddr of networks
	"container_full",                  // recursion=2 on lists of instances
	"kernel_features",                 // field environment.kernel_features
	"event_location",                  // field location of events
	"lxc_features",                    // field environment.lxc_features
	"resources_v2",                    // /1.0/resources: processors and memory in detail
	"container_exec_user_group_cwd",   // fields user, group and cwd of exec
	"instances",                       // /1.0/instances
	"image_types",                     // field type of images
	"images_expiry",                   // field expires_at of images can be edited
	"image_profiles",                  // field profiles of images
	"api_filtering",                   // filter on lists of instances and images, filter.go
	"instance_nic_network",            // key network of nic devices
	"firewall_driver",                 // field environment.firewall
	"api_os",                          // fields environment.os_name and .os_version
	"network_dns_search",              // key dns.search of networks
	"network_state_bond_bridge",       // field bridge of a network's state; there are no bonds
	"usedby_consistency",              // used_by with plain paths everywhere
	"container_syscall_filtering_allow_deny_syntax", // keys security.syscalls.allow and .deny
	"instance_bulk_state_change",                    // PUT /1.0/instances
	"warnings",                                      // /1.0/warnings
	"server_instance_driver_operational",            // environment.driver has what works
	"server_supported_storage_drivers",              // field environment.storage_supported_drivers
	"event_lifecycle_requestor_address",             // field requestor.address of lifecycle events
	"network_counters_errors_dropped",               // counters of a state's interfaces
	"instance_all_projects",                         // all-projects on lists of instances
	"instance_get_full",                             // recursion=1 on one instance
	"event_project",                                 // field project of events
	"storage_volume_api_filtering",                  // filter on lists of volumes
	"instance_file_head",                            // HEAD /files
}

// extensions gives a copy of the list.
func extensions() []string { return slices.Clone(apiExtensions) }
