package option

import (
	"strings"

	"github.com/croft-project/croft/api"
)

func bound(n int64) *int64 { return &n }

// Instance is the table of instance and profile keys. The set of keys is that of
// LXD 5.0.2 (reference/instance_options).
var Instance = newTable("instance", checkSyscallLists,
	instanceGeneral, instanceLimits, instanceSecurity, instanceRaw, instanceOther)

var instanceGeneral = []Key{
	{Name: "boot.autostart", Type: TypeBool, Supported: true, Description: "Start the instance with the daemon. Without it the last power state is restored."},
	{Name: "boot.autostart.delay", Type: TypeInt, Default: "0", Min: bound(0), Max: bound(86400), Supported: true, Description: "Seconds to wait after this instance before the next one is started."},
	{Name: "boot.autostart.priority", Type: TypeInt, Default: "0", Supported: true, Description: "Order of starting; the highest value comes first."},
	{Name: "boot.host_shutdown_timeout", Type: TypeInt, Default: "30", Min: bound(0), Max: bound(86400), Live: true, Supported: true, Description: "Seconds that the instance may take to stop when the host shuts down, before it is killed."},
	{Name: "boot.stop.priority", Type: TypeInt, Default: "0", Supported: true, Description: "Order of stopping when the host shuts down; the highest value comes first."},
	{Name: "cloud-init.network-config", Type: TypeText, Supported: true, Description: "Network configuration that templates hand to cloud-init."},
	{Name: "cloud-init.user-data", Type: TypeText, Supported: true, Description: "User data that templates hand to cloud-init."},
	{Name: "cloud-init.vendor-data", Type: TypeText, Supported: true, Description: "Vendor data that templates hand to cloud-init."},
	{Name: "environment.*", Type: TypeString, Live: true, Supported: true, CheckName: checkEnvName, Description: "Environment variable of init and of every exec; a change is seen by the next exec."},
	{Name: "image.*", Type: TypeString, Supported: true, Description: "Property of the image that the instance was made from."},
	{Name: "linux.kernel_modules", Type: TypeString, Live: true, Supported: true, Validate: checkModules, Description: "Kernel modules, separated by commas, that are loaded before the instance starts."},
	{Name: "linux.sysctl.*", Type: TypeString, Description: "Kernel parameter to set in the instance."},
	{Name: "user.*", Type: TypeText, Supported: true, Description: "Free for users; not interpreted."},
	{Name: "volatile.*", Type: TypeString, Supported: true, Description: "State that the daemon keeps about the instance."},
}

var instanceLimits = []Key{
	{Name: "limits.cpu", Type: TypeCPUs, Live: true, Supported: true, Description: "Number of CPUs, or the set of CPUs such as 0-3,5 or 1-1, that the instance may use."},
	{Name: "limits.cpu.allowance", Type: TypeString, Default: "100%", Live: true, Inert: "100%", Validate: checkAllowance, Description: "Share of CPU time: 50% under load, or 25ms of every 100ms at most."},
	{Name: "limits.cpu.priority", Type: TypeInt, Default: "10", Min: bound(0), Max: bound(10), Live: true, Inert: "10", Description: "Precedence among instances that share CPUs."},
	{Name: "limits.disk.priority", Type: TypeInt, Default: "5", Min: bound(0), Max: bound(10), Live: true, Inert: "5", Description: "Precedence of disk access under load."},
	{Name: "limits.hugepages.64KB", Type: TypeSize, Live: true, Description: "Bytes of 64 KB huge pages."},
	{Name: "limits.hugepages.1MB", Type: TypeSize, Live: true, Description: "Bytes of 1 MB huge pages."},
	{Name: "limits.hugepages.2MB", Type: TypeSize, Live: true, Description: "Bytes of 2 MB huge pages."},
	{Name: "limits.hugepages.1GB", Type: TypeSize, Live: true, Description: "Bytes of 1 GB huge pages."},
	{Name: "limits.kernel.*", Type: TypeString, Validate: checkRlimit, Description: "Resource limit of init (nofile, nproc, memlock, …), SOFT:HARD or one number for both."},
	{Name: "limits.memory", Type: TypeMemory, Live: true, Supported: true, Description: "Memory, in bytes with a unit or as a percentage of the host's."},
	{Name: "limits.memory.enforce", Type: TypeEnum, Allowed: []string{"hard", "soft"}, Default: "hard", Live: true, Supported: true, Description: "hard: the limit is never exceeded. soft: only when the host is short of memory."},
	{Name: "limits.memory.hugepages", Type: TypeBool, Default: "false", Inert: "false", Description: "For virtual machines."},
	{Name: "limits.memory.swap", Type: TypeBool, Default: "true", Live: true, Supported: true, Description: "Whether memory of the instance may be swapped out."},
	{Name: "limits.memory.swap.priority", Type: TypeInt, Default: "10", Min: bound(0), Max: bound(10), Live: true, Inert: "10", Description: "The higher, the later the instance is swapped out."},
	{Name: "limits.network.priority", Type: TypeInt, Default: "0", Min: bound(0), Max: bound(10), Live: true, Inert: "0", Description: "Precedence of network traffic under load."},
	{Name: "limits.processes", Type: TypeInt, Min: bound(1), Live: true, Supported: true, Description: "Largest number of processes and threads."},
}

var instanceSecurity = []Key{
	{Name: "security.agent.metrics", Type: TypeBool, Default: "true", Inert: "true", Description: "For virtual machines."},
	{Name: "security.devlxd", Type: TypeBool, Default: "true", Inert: "false", Description: "Whether /dev/lxd is there in the instance."},
	{Name: "security.devlxd.images", Type: TypeBool, Default: "false", Inert: "false", Description: "Whether images can be fetched through /dev/lxd."},
	{Name: "security.idmap.base", Type: TypeInt, Min: bound(1), Max: bound(1<<32 - 2), Description: "First host id of the instance's range."},
	{Name: "security.idmap.isolated", Type: TypeBool, Default: "true", Supported: true, Description: "Whether the instance has ids of its own; every one has, so that false has no effect."},
	{Name: "security.idmap.size", Type: TypeInt, Default: "65536", Min: bound(1), Max: bound(1<<32 - 2), Supported: true, Description: "Number of user and group ids of the instance."},
	{Name: "security.nesting", Type: TypeBool, Default: "false", Live: true, Supported: true, Description: "Allow containers inside the instance."},
	{Name: "security.privileged", Type: TypeBool, Default: "false", Supported: true, Description: "Run without a user namespace: root inside is root of the host."},
	{Name: "security.protection.delete", Type: TypeBool, Default: "false", Live: true, Supported: true, Description: "Refuse to delete the instance."},
	{Name: "security.protection.shift", Type: TypeBool, Default: "false", Live: true, Supported: true, Description: "Refuse to change owners of files at start; Croft never does."},
	{Name: "security.secureboot", Type: TypeBool, Default: "true", Inert: "true", Description: "For virtual machines."},
	{Name: "security.syscalls.allow", Type: TypeLines, Supported: true, Validate: checkSyscalls, Description: "System calls that are allowed, one a line; all others are denied."},
	{Name: "security.syscalls.deny", Type: TypeLines, Supported: true, Validate: checkSyscalls, Description: "System calls that are denied, one a line."},
	{Name: "security.syscalls.deny_compat", Type: TypeBool, Default: "false", Supported: true, Description: "Deny 32-bit system calls on x86_64."},
	{Name: "security.syscalls.deny_default", Type: TypeBool, Default: "true", Supported: true, Description: "Deny what no container needs (kexec_load, open_by_handle_at, …)."},
	{Name: "security.syscalls.whitelist", AliasOf: "security.syscalls.allow", Type: TypeLines, Supported: true, Validate: checkSyscalls, Description: "Older name of security.syscalls.allow."},
	{Name: "security.syscalls.blacklist", AliasOf: "security.syscalls.deny", Type: TypeLines, Supported: true, Validate: checkSyscalls, Description: "Older name of security.syscalls.deny."},
	{Name: "security.syscalls.blacklist_compat", AliasOf: "security.syscalls.deny_compat", Type: TypeBool, Supported: true, Description: "Older name of security.syscalls.deny_compat."},
	{Name: "security.syscalls.blacklist_default", AliasOf: "security.syscalls.deny_default", Type: TypeBool, Supported: true, Description: "Older name of security.syscalls.deny_default."},
	{Name: "security.syscalls.intercept.bpf", Type: TypeBool, Default: "false", Inert: "false", Description: "Handle bpf for the instance."},
	{Name: "security.syscalls.intercept.bpf.devices", Type: TypeBool, Default: "false", Inert: "false", Description: "Let the instance load device programs."},
	{Name: "security.syscalls.intercept.mknod", Type: TypeBool, Default: "false", Inert: "false", Description: "Handle mknod of harmless devices for the instance."},
	{Name: "security.syscalls.intercept.mount", Type: TypeBool, Default: "false", Inert: "false", Description: "Handle mount for the instance."},
	{Name: "security.syscalls.intercept.mount.allowed", Type: TypeString, Live: true, Description: "File systems, separated by commas, that the instance may mount."},
	{Name: "security.syscalls.intercept.mount.fuse", Type: TypeString, Live: true, Description: "File systems that are mounted through FUSE instead, such as ext4=fuse2fs."},
	{Name: "security.syscalls.intercept.mount.shift", Type: TypeBool, Default: "false", Live: true, Inert: "false", Description: "Map owners of what is mounted that way."},
	{Name: "security.syscalls.intercept.sched_setscheduler", Type: TypeBool, Default: "false", Inert: "false", Description: "Handle sched_setscheduler for the instance."},
	{Name: "security.syscalls.intercept.setxattr", Type: TypeBool, Default: "false", Inert: "false", Description: "Handle setxattr of some attributes for the instance."},
	{Name: "security.syscalls.intercept.sysinfo", Type: TypeBool, Default: "false", Inert: "false", Description: "Answer sysinfo from the instance's limits."},
}

var instanceRaw = []Key{
	{Name: "raw.apparmor", Type: TypeLines, Live: true, Description: "Lines that are added to the AppArmor profile."},
	{Name: "raw.idmap", Type: TypeLines, Supported: true, Validate: checkIDMap, Description: "Host ids that the instance may use as its own, such as: both 1000 1000."},
	{Name: "raw.lxc", Type: TypeLines, Supported: true, Description: "Lines that are added to the liblxc configuration."},
	{Name: "raw.qemu", Type: TypeLines, Description: "For virtual machines."},
	{Name: "raw.qemu.conf", Type: TypeLines, Description: "For virtual machines."},
	{Name: "raw.seccomp", Type: TypeLines, Supported: true, Description: "A whole seccomp policy in liblxc's syntax, instead of the generated one."},
}

var instanceOther = []Key{
	{Name: "agent.nic_config", Type: TypeBool, Default: "false", Inert: "false", Description: "For virtual machines."},
	{Name: "cluster.evacuate", Type: TypeEnum, Allowed: []string{"auto", "migrate", "live-migrate", "stop"}, Default: "auto", Inert: "auto", Description: "What happens to the instance when its host is evacuated."},
	{Name: "migration.incremental.memory", Type: TypeBool, Default: "false", Live: true, Inert: "false", Description: "Copy memory in rounds before the instance is stopped."},
	{Name: "migration.incremental.memory.goal", Type: TypeInt, Default: "70", Min: bound(0), Max: bound(100), Live: true, Inert: "70", Description: "Percentage of memory to have copied before the instance is stopped."},
	{Name: "migration.incremental.memory.iterations", Type: TypeInt, Default: "10", Min: bound(0), Live: true, Inert: "10", Description: "Largest number of rounds."},
	{Name: "migration.stateful", Type: TypeBool, Default: "false", Inert: "false", Description: "Prepare the instance for being stopped and moved with its memory."},
	{Name: "nvidia.driver.capabilities", Type: TypeString, Default: "compute,utility", Description: "Parts of the NVIDIA driver that the instance gets."},
	{Name: "nvidia.require.cuda", Type: TypeString, Description: "CUDA version that is needed."},
	{Name: "nvidia.require.driver", Type: TypeString, Description: "Driver version that is needed."},
	{Name: "nvidia.runtime", Type: TypeBool, Default: "false", Inert: "false", Description: "Give the instance the host's NVIDIA libraries."},
	{Name: "snapshots.expiry", Type: TypeString, Description: "When snapshots are deleted, such as 1d 2H."},
	{Name: "snapshots.pattern", Type: TypeString, Default: "snap%d", Inert: "snap%d", Description: "Name of scheduled snapshots."},
	{Name: "snapshots.schedule", Type: TypeString, Description: "When snapshots are taken, as a cron line or @daily."},
	{Name: "snapshots.schedule.stopped", Type: TypeBool, Default: "false", Inert: "false", Description: "Whether a stopped instance is snapshotted too."},
}

// checkSyscallLists refuses an allow list beside a deny list: they contradict
// each other. Source: LXD's reference/instance_options.
func checkSyscallLists(cfg map[string]string) error {
	allow, deny := "", ""
	for _, name := range []string{"security.syscalls.allow", "security.syscalls.whitelist"} {
		if strings.TrimSpace(cfg[name]) != "" {
			allow = name
		}
	}
	for _, name := range []string{"security.syscalls.deny", "security.syscalls.blacklist"} {
		if strings.TrimSpace(cfg[name]) != "" {
			deny = name
		}
	}
	if allow != "" && deny != "" {
		return api.Errorf(api.Invalid, "instance keys %s and %s exclude each other: set one of them", allow, deny)
	}
	return nil
}
