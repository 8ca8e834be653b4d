package option

import (
	"fmt"
	"net/netip"
	"strings"
)

// Server is the table of server keys. The set is that of LXD 5.0.2
// (server.md), plus the id range of design.md 2.1.
var Server = newTable("server", nil, serverCore, serverImages, serverOther)

var serverCore = []Key{
	{Name: "core.bgp_address", Type: TypeString, Scope: "local", Validate: checkListen, Description: "Address of the BGP server."},
	{Name: "core.bgp_asn", Type: TypeString, Scope: "global", Description: "Autonomous system number of the BGP server."},
	{Name: "core.bgp_routerid", Type: TypeString, Scope: "local", Description: "Identifier of the BGP server, an IPv4 address."},
	{Name: "core.debug_address", Type: TypeString, Scope: "local", Validate: checkListen, Description: "Address of the profiling server."},
	{Name: "core.dns_address", Type: TypeString, Scope: "local", Validate: checkListen, Description: "Address of the DNS server for network zones."},
	{Name: "core.https_address", Type: TypeString, Scope: "local", Live: true, Validate: checkListen, Description: "Address of the API for other hosts; without it nothing listens."},
	{Name: "core.https_allowed_credentials", Type: TypeBool, Scope: "global", Inert: "false", Description: "Whether browsers of other origins may send credentials."},
	{Name: "core.https_allowed_headers", Type: TypeString, Scope: "global", Description: "Headers that browsers of other origins may send."},
	{Name: "core.https_allowed_methods", Type: TypeString, Scope: "global", Description: "Methods that browsers of other origins may use."},
	{Name: "core.https_allowed_origin", Type: TypeString, Scope: "global", Description: "Origins whose pages may use the API."},
	{Name: "core.https_trusted_proxy", Type: TypeString, Scope: "global", Description: "Addresses of proxies that announce the client's address."},
	{Name: "core.idmap_base", Type: TypeInt, Default: "1000000", Min: bound(65536), Max: bound(1<<32 - 2), Scope: "local", Description: "First host id of those that instances get their ranges from. Instances keep the ranges they have."},
	{Name: "core.idmap_size", Type: TypeInt, Default: "1000000000", Min: bound(65536), Max: bound(1<<32 - 2), Scope: "local", Description: "Number of host ids that instances get their ranges from."},
	{Name: "core.metrics_address", Type: TypeString, Scope: "local", Validate: checkListen, Description: "Address of the metrics server."},
	{Name: "core.metrics_authentication", Type: TypeBool, Default: "true", Scope: "global", Inert: "true", Description: "Whether metrics need a client certificate."},
	{Name: "core.proxy_http", Type: TypeString, Scope: "global", Description: "Proxy for HTTP; without it that of the environment."},
	{Name: "core.proxy_https", Type: TypeString, Scope: "global", Description: "Proxy for HTTPS; without it that of the environment."},
	{Name: "core.proxy_ignore_hosts", Type: TypeString, Scope: "global", Description: "Hosts that are reached without a proxy."},
	{Name: "core.remote_token_expiry", Type: TypeString, Scope: "global", Description: "How long a token for adding a client is good."},
	{Name: "core.shutdown_timeout", Type: TypeInt, Default: "5", Min: bound(0), Max: bound(1440), Live: true, Scope: "global", Supported: true, Description: "Minutes that running operations may take when the daemon stops."},
	{Name: "core.trust_ca_certificates", Type: TypeBool, Scope: "global", Inert: "false", Description: "Whether clients with a certificate of the CA are trusted at once."},
	{Name: "core.trust_password", Type: TypeString, Scope: "global", Secret: true, Description: "Password with which a client adds its certificate."},
}

var serverImages = []Key{
	{Name: "images.auto_update_cached", Type: TypeBool, Default: "true", Scope: "global", Live: true, Inert: "false", Description: "Whether images that were fetched for an instance are kept up to date."},
	{Name: "images.auto_update_interval", Type: TypeInt, Default: "6", Min: bound(0), Scope: "global", Live: true, Inert: "0", Description: "Hours between looks for newer images; 0 never looks."},
	{Name: "images.compression_algorithm", Type: TypeEnum, Allowed: compressions, Default: "gzip", Scope: "global", Live: true, Description: "How new images are compressed."},
	{Name: "images.default_architecture", Type: TypeString, Scope: "global", Description: "Architecture of images in a mixed cluster."},
	{Name: "images.remote_cache_expiry", Type: TypeInt, Default: "10", Min: bound(0), Scope: "global", Live: true, Inert: "0", Description: "Days after which an unused fetched image is deleted."},
}

// compressions is the whole list: no free text ever reaches a command line.
var compressions = []string{"bzip2", "gzip", "lzma", "xz", "zstd", "none"}

var serverOther = []Key{
	{Name: "backups.compression_algorithm", Type: TypeEnum, Allowed: compressions, Default: "gzip", Scope: "global", Live: true, Description: "How backups are compressed."},
	{Name: "candid.api.key", Type: TypeString, Scope: "global", Description: "Public key of the Candid server."},
	{Name: "candid.api.url", Type: TypeString, Scope: "global", Description: "URL of the Candid server."},
	{Name: "candid.domains", Type: TypeString, Scope: "global", Description: "Candid domains that are accepted."},
	{Name: "candid.expiry", Type: TypeInt, Default: "3600", Scope: "global", Description: "Seconds that a Candid token is good."},
	{Name: "cluster.https_address", Type: TypeString, Scope: "local", Validate: checkListen, Description: "Address for traffic among members."},
	{Name: "cluster.images_minimal_replica", Type: TypeInt, Default: "3", Scope: "global", Description: "Number of members that keep a copy of an image; -1: all."},
	{Name: "cluster.join_token_expiry", Type: TypeString, Default: "3H", Scope: "global", Description: "How long a join token is good."},
	{Name: "cluster.max_standby", Type: TypeInt, Default: "2", Min: bound(0), Max: bound(5), Scope: "global", Description: "Number of stand-by database members."},
	{Name: "cluster.max_voters", Type: TypeInt, Default: "3", Min: bound(3), Scope: "global", Description: "Number of voting database members, odd."},
	{Name: "cluster.offline_threshold", Type: TypeInt, Default: "20", Min: bound(10), Scope: "global", Description: "Seconds after which a silent member counts as offline."},
	{Name: "maas.api.key", Type: TypeString, Scope: "global", Secret: true, Description: "Key of the MAAS server."},
	{Name: "maas.api.url", Type: TypeString, Scope: "global", Description: "URL of the MAAS server."},
	{Name: "maas.machine", Type: TypeString, Scope: "local", Description: "Name of this host in MAAS."},
	{Name: "network.ovn.integration_bridge", Type: TypeString, Default: "br-int", Scope: "global", Description: "Bridge of OVN networks."},
	{Name: "network.ovn.northbound_connection", Type: TypeString, Scope: "global", Description: "Address of OVN's northbound database."},
	{Name: "rbac.agent.private_key", Type: TypeString, Scope: "global", Secret: true, Description: "Private key of the RBAC agent."},
	{Name: "rbac.agent.public_key", Type: TypeString, Scope: "global", Description: "Public key of the RBAC agent."},
	{Name: "rbac.agent.url", Type: TypeString, Scope: "global", Description: "URL of the RBAC agent."},
	{Name: "rbac.agent.username", Type: TypeString, Scope: "global", Description: "User name of the RBAC agent."},
	{Name: "rbac.api.expiry", Type: TypeInt, Scope: "global", Description: "Seconds that an RBAC token is good."},
	{Name: "rbac.api.key", Type: TypeString, Scope: "global", Description: "Public key of the RBAC server."},
	{Name: "rbac.api.url", Type: TypeString, Scope: "global", Description: "URL of the RBAC server."},
	{Name: "storage.backups_volume", Type: TypeString, Scope: "local", Description: "Volume for backups, POOL/VOLUME."},
	{Name: "storage.images_volume", Type: TypeString, Scope: "local", Description: "Volume for images, POOL/VOLUME."},
	{Name: "user.*", Type: TypeText, Scope: "global", Live: true, Supported: true, Description: "Free for users; not interpreted."},
}

// checkListen accepts what a listener can be bound to: an IP address, with or
// without a port, or a port of all addresses.
func checkListen(s string) error {
	addr := s
	if port, ok := strings.CutPrefix(s, ":"); ok && !strings.Contains(port, ":") {
		addr = "0.0.0.0:" + port
	}
	if _, err := netip.ParseAddrPort(addr); err == nil {
		return nil
	}
	if _, err := netip.ParseAddr(strings.Trim(addr, "[]")); err == nil {
		return nil
	}
	return fmt.Errorf("allowed are :8443, an IP address, 192.0.2.1:8443 or [2001:db8::1]:8443")
}
