package server

import "net/http"

// The methods, short enough for the table.
const (
	get    = http.MethodGet
	put    = http.MethodPut
	patch  = http.MethodPatch
	post   = http.MethodPost
	remove = http.MethodDelete
)

// routes is the route table. GET serves HEAD as well.
func (s *Server) routes() []route {
	all := []route{
		{get, "/", s.versions, anybody},
		{post, "/", s.versions, anybody}, // LXD answers any method
		{get, "/1.0", s.getServer, anybody},
		{put, "/1.0", s.updateServer, trusted},
		{patch, "/1.0", s.updateServer, trusted},

		{get, "/1.0/profiles", s.listProfiles, trusted},
		{post, "/1.0/profiles", s.createProfile, trusted},
		{get, "/1.0/profiles/{name}", s.getProfile, trusted},
		{put, "/1.0/profiles/{name}", s.updateProfile, trusted},
		{patch, "/1.0/profiles/{name}", s.updateProfile, trusted},
		{post, "/1.0/profiles/{name}", s.renameProfile, trusted},
		{remove, "/1.0/profiles/{name}", s.deleteProfile, trusted},

		{get, "/1.0/images", s.listImages, trusted},
		{post, "/1.0/images", s.createImage, trusted},
		{get, "/1.0/images/{fingerprint}", s.getImage, trusted},
		{put, "/1.0/images/{fingerprint}", s.updateImage, trusted},
		{patch, "/1.0/images/{fingerprint}", s.updateImage, trusted},
		{remove, "/1.0/images/{fingerprint}", s.deleteImage, trusted},
		{get, "/1.0/images/{fingerprint}/export", s.exportImage, trusted},
		{get, "/1.0/images/aliases", s.listAliases, trusted},
		{post, "/1.0/images/aliases", s.createAlias, trusted},
		{get, "/1.0/images/aliases/{name...}", s.getAlias, trusted},
		{put, "/1.0/images/aliases/{name...}", s.updateAlias, trusted},
		{patch, "/1.0/images/aliases/{name...}", s.updateAlias, trusted},
		{post, "/1.0/images/aliases/{name...}", s.renameAlias, trusted},
		{remove, "/1.0/images/aliases/{name...}", s.deleteAlias, trusted},

		{get, "/1.0/storage-pools", s.listPools, trusted},
		{post, "/1.0/storage-pools", s.createPool, trusted},
		{get, "/1.0/storage-pools/{pool}", s.getPool, trusted},
		{put, "/1.0/storage-pools/{pool}", s.updatePool, trusted},
		{patch, "/1.0/storage-pools/{pool}", s.updatePool, trusted},
		{remove, "/1.0/storage-pools/{pool}", s.deletePool, trusted},
		{get, "/1.0/storage-pools/{pool}/resources", s.poolResources, trusted},
		{get, "/1.0/storage-pools/{pool}/volumes", s.listVolumes, trusted},
		{post, "/1.0/storage-pools/{pool}/volumes", unsupported("storage volumes of one's own are"), trusted},
		{get, "/1.0/storage-pools/{pool}/volumes/{type}", s.listVolumes, trusted},
		{post, "/1.0/storage-pools/{pool}/volumes/{type}", unsupported("storage volumes of one's own are"), trusted},
		{get, "/1.0/storage-pools/{pool}/volumes/{type}/{volume}", s.getVolume, trusted},

		{get, "/1.0/networks", s.listNetworks, trusted},
		{post, "/1.0/networks", s.createNetwork, trusted},
		{get, "/1.0/networks/{name}", s.getNetwork, trusted},
		{put, "/1.0/networks/{name}", s.updateNetwork, trusted},
		{patch, "/1.0/networks/{name}", s.updateNetwork, trusted},
		{post, "/1.0/networks/{name}", s.renameNetwork, trusted},
		{remove, "/1.0/networks/{name}", s.deleteNetwork, trusted},
		{get, "/1.0/networks/{name}/leases", s.networkLeases, trusted},
		{get, "/1.0/networks/{name}/state", s.networkState, trusted},

		{get, "/1.0/operations", s.listOperations, trusted},
		{get, "/1.0/operations/{id}", s.getOperation, trusted},
		{remove, "/1.0/operations/{id}", s.cancelOperation, trusted},
		{get, "/1.0/operations/{id}/wait", s.waitOperation, trusted},
		{get, "/1.0/operations/{id}/websocket", s.connectOperation, trusted},
		{get, "/1.0/events", s.streamEvents, trusted},

		{get, "/1.0/projects", s.listProjects, trusted},
		{post, "/1.0/projects", unsupported("further projects are"), trusted},
		{get, "/1.0/projects/{name}", s.getProject, trusted},
		{get, "/1.0/certificates", s.listCertificates, trusted},
		{get, "/1.0/certificates/{fingerprint}", s.noCertificate, trusted},
		{get, "/1.0/warnings", s.listWarnings, trusted},
		{get, "/1.0/warnings/{uuid}", s.noWarning, trusted},
		{put, "/1.0/warnings/{uuid}", s.noWarning, trusted},
		{remove, "/1.0/warnings/{uuid}", s.noWarning, trusted},
		{get, "/1.0/cluster", s.getCluster, trusted},
		{get, "/1.0/resources", s.getResources, trusted},
		{get, "/1.0/virtual-machines", s.listVirtualMachines, trusted},

		{get, "/internal/ready", s.ready, internal},
		{put, "/internal/shutdown", s.shutDown, internal},
	}
	// /1.0/containers is the name that API 2.0 clients know instances by.
	for _, root := range []string{"/1.0/" + instancesName, "/1.0/" + containersName} {
		all = append(all, s.instanceRoutes(root)...)
	}
	return all
}

// instanceRoutes are the routes of instances below root.
func (s *Server) instanceRoutes(root string) []route {
	one := root + "/{name}"
	return []route{
		{get, root, s.listInstances, trusted},
		{post, root, s.createInstance, trusted},
		{put, root, s.setStateAll, trusted},
		{get, one, s.getInstance, trusted},
		{put, one, s.replaceInstance, trusted},
		{patch, one, s.patchInstance, trusted},
		{post, one, s.renameInstance, trusted},
		{remove, one, s.deleteInstance, trusted},
		{get, one + "/state", s.getState, trusted},
		{put, one + "/state", s.setState, trusted},
		{post, one + "/exec", s.exec, trusted},
		{post, one + "/console", unsupported("attaching to a console is"), trusted},
		{get, one + "/files", s.getFile, trusted},
		{post, one + "/files", s.putFile, trusted},
		{remove, one + "/files", s.deleteFile, trusted},
		{get, one + "/logs", s.listLogs, trusted},
		{get, one + "/logs/{file}", s.getLog, trusted},
		{remove, one + "/logs/{file}", s.deleteLog, trusted},
		{get, one + "/metadata", s.getMetadata, trusted},
		{get, one + "/snapshots", s.emptyOfInstance, trusted},
		{post, one + "/snapshots", unsupported("snapshots are"), trusted},
		{get, one + "/backups", s.emptyOfInstance, trusted},
		{post, one + "/backups", unsupported("backups are"), trusted},
	}
}
