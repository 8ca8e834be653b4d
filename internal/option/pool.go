package option

// Pool is the table of keys of a storage pool with a driver. For a driver that
// is not known it has the keys that all of them share. Sources: LXD 5.0.2's
// reference/storage_*.
func Pool(driver string) *Table { return newTable("storage pool", nil, poolCommon, poolKeys[driver]) }

var poolCommon = []Key{
	{Name: "source", Type: TypeString, Supported: true, Description: "Where the pool lies; it cannot be changed. Without it a directory of the daemon's own is used."},
	{Name: "rsync.bwlimit", Type: TypeSize, Default: "0", Live: true, Supported: true, Description: "Bytes per second that rsync may send when volumes are copied to another host; 0: no limit."},
	{Name: "rsync.compression", Type: TypeBool, Default: "true", Live: true, Supported: true, Description: "Whether rsync compresses what it sends to another host."},
	{Name: "user.*", Type: TypeText, Live: true, Supported: true, Description: "Free for users; not interpreted."},
	{Name: "volatile.*", Type: TypeString, Supported: true, Description: "State that the daemon keeps about the pool."},
	{Name: "volume.*", Type: TypeString, Live: true, Description: "Default of new volumes' keys."},
}

var poolKeys = map[string][]Key{
	"btrfs": {
		{Name: "size", Type: TypeSize, Description: "Size of the loop file."},
		{Name: "btrfs.mount_options", Type: TypeString, Default: "user_subvol_rm_allowed", Description: "Mount options."},
	},
	"zfs": {
		{Name: "size", Type: TypeSize, Description: "Size of the loop file."},
		{Name: "zfs.clone_copy", Type: TypeString, Default: "true", Description: "Whether copies are clones: true, false or rebase."},
		{Name: "zfs.export", Type: TypeBool, Default: "true", Description: "Whether the pool is exported when it is not used."},
		{Name: "zfs.pool_name", Type: TypeString, Description: "Name of the zpool."},
	},
	"lvm": {
		{Name: "size", Type: TypeSize, Description: "Size of the loop file."},
		{Name: "lvm.thinpool_name", Type: TypeString, Default: "LXDThinPool", Description: "Name of the thin pool."},
		{Name: "lvm.thinpool_metadata_size", Type: TypeSize, Default: "0", Description: "Size of the thin pool's metadata; 0: chosen by LVM."},
		{Name: "lvm.use_thinpool", Type: TypeBool, Default: "true", Description: "Whether volumes are thin."},
		{Name: "lvm.vg.force_reuse", Type: TypeBool, Default: "false", Description: "Use a volume group that is not empty."},
		{Name: "lvm.vg_name", Type: TypeString, Description: "Name of the volume group."},
	},
}
