package lxc

import "github.com/croft-project/croft/internal/linux"

// Spec is all that the runtime needs to know of a container, as plain data. The
// engine makes it from the instance's expanded configuration; [Render] turns it
// into liblxc's configuration and nothing else reads it.
type Spec struct {
	Name         string // for liblxc; unique below one LXCPath
	Hostname     string
	Architecture string // kernel name, such as x86_64

	Rootfs     string // directory that is the container's root in the helper's mount namespace
	MountPoint string // empty directory on which liblxc puts it while it sets the container up

	IDMap   linux.IDMap // nil: privileged
	Nesting bool        // allow containers inside

	PayloadCgroup string // control group of the container, below each hierarchy's root
	MonitorCgroup string // control group of liblxc's monitor; each needs its own
	PivotCgroup   string // control group the monitor moves to at its end

	Environment []Variable // of init
	Nics        []Nic
	Mounts      []Mount
	Limits      []Limit

	LogFile       string // liblxc's messages
	ConsoleLog    string // what init and the kernel write to the console
	SeccompPolicy string // file with the policy of [Seccomp]
	AppArmor      bool   // the host has AppArmor
	HybridCgroups bool   // version 1 controllers are mounted
	Raw           string // raw.lxc of the administrator, appended last
}

// Variable is one entry of an environment.
type Variable struct{ Name, Value string }

// Nic is a veth pair, one end of which is in the container.
type Nic struct {
	Name     string // inside
	HostName string // outside
	MAC      string
	Parent   string // bridge the outer end is put on; empty for none
	MTU      string // empty for the bridge's
}

// Mount is a line of fstab(5) in the container. Target is relative to its root.
type Mount struct {
	Source, Target, Type string
	Options              []string
}

// Limit is one value in a control group file of the container.
type Limit struct {
	Controller string // memory, cpuset, pids, ...
	File       string
	Value      string
	V2         bool // which of the two versions the file belongs to
}
