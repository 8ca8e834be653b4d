package api

import "time"

// InstanceTypeContainer is the one instance type that Croft runs.
const InstanceTypeContainer = "container"

// InstancePut is the part of an instance that a client may write.
type InstancePut struct {
	Architecture string                       `json:"architecture" yaml:"architecture"`
	Config       map[string]string            `json:"config" yaml:"config"`
	Devices      map[string]map[string]string `json:"devices" yaml:"devices"`
	Ephemeral    bool                         `json:"ephemeral" yaml:"ephemeral"`
	Profiles     []string                     `json:"profiles" yaml:"profiles"` // nil means not given; empty means none
	Stateful     bool                         `json:"stateful" yaml:"stateful"`
	Description  string                       `json:"description" yaml:"description"`
	Restore      string                       `json:"restore,omitempty" yaml:"restore,omitempty"` // name of a snapshot to go back to; write only
}

// Instance is a container as the API shows it.
type Instance struct {
	InstancePut `yaml:",inline"`

	CreatedAt       time.Time                    `json:"created_at" yaml:"created_at"`
	ExpandedConfig  map[string]string            `json:"expanded_config" yaml:"expanded_config"`
	ExpandedDevices map[string]map[string]string `json:"expanded_devices" yaml:"expanded_devices"`
	Name            string                       `json:"name" yaml:"name"`
	Status          string                       `json:"status" yaml:"status"`
	StatusCode      StatusCode                   `json:"status_code" yaml:"status_code"`
	LastUsedAt      time.Time                    `json:"last_used_at" yaml:"last_used_at"`
	Location        string                       `json:"location" yaml:"location"`
	Type            string                       `json:"type" yaml:"type"`
	Project         string                       `json:"project" yaml:"project"`
}

// InstanceFull is an instance with everything that hangs on it (recursion=2).
type InstanceFull struct {
	Instance `yaml:",inline"`

	Backups   []struct{}     `json:"backups" yaml:"backups"`     // null: backups are not part of this version
	State     *InstanceState `json:"state" yaml:"state"`         // live facts
	Snapshots []struct{}     `json:"snapshots" yaml:"snapshots"` // null: snapshots are not part of this version
}

// InstancesPost creates an instance. An empty Name asks the daemon for one.
type InstancesPost struct {
	InstancePut `yaml:",inline"`

	Name         string         `json:"name" yaml:"name"`
	Source       InstanceSource `json:"source" yaml:"source"`
	InstanceType string         `json:"instance_type" yaml:"instance_type"` // cloud size such as c2-m4, expanded to limits
	Type         string         `json:"type" yaml:"type"`                   // container, or empty for it
}

// InstanceSource says what a new instance is made from.
type InstanceSource struct {
	Type        string            `json:"type" yaml:"type"`               // image, none, copy or migration
	Alias       string            `json:"alias" yaml:"alias"`             // image: by alias
	Fingerprint string            `json:"fingerprint" yaml:"fingerprint"` // image: by full or partial fingerprint
	Properties  map[string]string `json:"properties" yaml:"properties"`

	Server      string `json:"server" yaml:"server"`
	Secret      string `json:"secret" yaml:"secret"`
	Protocol    string `json:"protocol" yaml:"protocol"`
	Certificate string `json:"certificate" yaml:"certificate"`
	Mode        string `json:"mode" yaml:"mode"`

	BaseImage         string            `json:"base-image" yaml:"base-image"`
	Operation         string            `json:"operation" yaml:"operation"`
	Websockets        map[string]string `json:"secrets" yaml:"secrets"`
	Source            string            `json:"source" yaml:"source"` // copy: the instance to copy
	Project           string            `json:"project" yaml:"project"`
	Live              bool              `json:"live" yaml:"live"`
	InstanceOnly      bool              `json:"instance_only" yaml:"instance_only"`
	ContainerOnly     bool              `json:"container_only" yaml:"container_only"`
	Refresh           bool              `json:"refresh" yaml:"refresh"`
	AllowInconsistent bool              `json:"allow_inconsistent" yaml:"allow_inconsistent"`
}

// InstancePost renames or migrates an instance.
type InstancePost struct {
	Name              string              `json:"name"`
	Migration         bool                `json:"migration"`
	Live              bool                `json:"live"`
	InstanceOnly      bool                `json:"instance_only"`
	ContainerOnly     bool                `json:"container_only"`
	Target            *InstancePostTarget `json:"target"`
	Pool              string              `json:"pool"`
	Project           string              `json:"project"`
	AllowInconsistent bool                `json:"allow_inconsistent"`
}

// InstancePostTarget is where a push migration goes.
type InstancePostTarget struct {
	Certificate string            `json:"certificate"`
	Operation   string            `json:"operation"`
	Websockets  map[string]string `json:"secrets"`
}

// InstancesPut changes the state of all instances of a project.
type InstancesPut struct {
	State *InstanceStatePut `json:"state"`
}

// InstanceStatePut asks for a change of power state.
type InstanceStatePut struct {
	Action   string `json:"action"`   // start, stop, restart, freeze, unfreeze
	Timeout  int    `json:"timeout"`  // seconds to wait for a clean stop; below 0 waits without limit
	Force    bool   `json:"force"`    // stop without asking the guest
	Stateful bool   `json:"stateful"` // keep memory and CPU state
}

// InstanceState is what the kernel says about an instance now.
type InstanceState struct {
	Status     string                          `json:"status" yaml:"status"`
	StatusCode StatusCode                      `json:"status_code" yaml:"status_code"`
	Disk       map[string]InstanceStateDisk    `json:"disk" yaml:"disk"`
	Memory     InstanceStateMemory             `json:"memory" yaml:"memory"`
	Network    map[string]InstanceStateNetwork `json:"network" yaml:"network"` // null when stopped
	Pid        int64                           `json:"pid" yaml:"pid"`         // of init as the host sees it; 0 when stopped
	Processes  int64                           `json:"processes" yaml:"processes"`
	CPU        InstanceStateCPU                `json:"cpu" yaml:"cpu"`
}

// InstanceStateDisk is the use of one disk device.
type InstanceStateDisk struct {
	Usage int64 `json:"usage" yaml:"usage"` // bytes
}

// InstanceStateCPU is processor time.
type InstanceStateCPU struct {
	Usage int64 `json:"usage" yaml:"usage"` // nanoseconds since start
}

// InstanceStateMemory is memory use in bytes.
type InstanceStateMemory struct {
	Usage         int64 `json:"usage" yaml:"usage"`
	UsagePeak     int64 `json:"usage_peak" yaml:"usage_peak"`
	SwapUsage     int64 `json:"swap_usage" yaml:"swap_usage"`
	SwapUsagePeak int64 `json:"swap_usage_peak" yaml:"swap_usage_peak"`
}

// InstanceStateNetwork is one interface as seen inside the instance.
type InstanceStateNetwork struct {
	Addresses []InstanceStateNetworkAddress `json:"addresses" yaml:"addresses"`
	Counters  InstanceStateNetworkCounters  `json:"counters" yaml:"counters"`
	Hwaddr    string                        `json:"hwaddr" yaml:"hwaddr"`
	HostName  string                        `json:"host_name" yaml:"host_name"` // the other end on the host, if any
	Mtu       int                           `json:"mtu" yaml:"mtu"`
	State     string                        `json:"state" yaml:"state"` // up or down
	Type      string                        `json:"type" yaml:"type"`   // broadcast, loopback, point-to-point, unknown
}

// InstanceStateNetworkAddress is one address of an interface.
type InstanceStateNetworkAddress struct {
	Family  string `json:"family" yaml:"family"` // inet or inet6
	Address string `json:"address" yaml:"address"`
	Netmask string `json:"netmask" yaml:"netmask"` // prefix length
	Scope   string `json:"scope" yaml:"scope"`     // local, link or global
}

// InstanceStateNetworkCounters are interface counters since it was made.
type InstanceStateNetworkCounters struct {
	BytesReceived          int64 `json:"bytes_received" yaml:"bytes_received"`
	BytesSent              int64 `json:"bytes_sent" yaml:"bytes_sent"`
	PacketsReceived        int64 `json:"packets_received" yaml:"packets_received"`
	PacketsSent            int64 `json:"packets_sent" yaml:"packets_sent"`
	ErrorsReceived         int64 `json:"errors_received" yaml:"errors_received"`
	ErrorsSent             int64 `json:"errors_sent" yaml:"errors_sent"`
	PacketsDroppedOutbound int64 `json:"packets_dropped_outbound" yaml:"packets_dropped_outbound"`
	PacketsDroppedInbound  int64 `json:"packets_dropped_inbound" yaml:"packets_dropped_inbound"`
}

// InstanceExecPost runs a command in an instance.
type InstanceExecPost struct {
	Command      []string          `json:"command"`
	WaitForWS    bool              `json:"wait-for-websocket"`
	Interactive  bool              `json:"interactive"` // allocate a terminal
	Environment  map[string]string `json:"environment"`
	Width        int               `json:"width"`
	Height       int               `json:"height"`
	RecordOutput bool              `json:"record-output"`
	User         uint32            `json:"user"`
	Group        uint32            `json:"group"`
	Cwd          string            `json:"cwd"`
}

// InstanceExecControl is a message on the control websocket of an exec session.
type InstanceExecControl struct {
	Command string            `json:"command"` // window-resize or signal
	Args    map[string]string `json:"args"`    // width and height
	Signal  int               `json:"signal"`
}

// InstanceConsolePost attaches to the console of an instance.
type InstanceConsolePost struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Type   string `json:"type"`
}
