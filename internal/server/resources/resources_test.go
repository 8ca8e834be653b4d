package resources

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// machine has one socket with two cores of two threads, one of them offline, a
// disk with a partition, a network card and what software makes.
func machine() fstest.MapFS {
	m := fstest.MapFS{}
	file := func(name, content string) { m[name] = &fstest.MapFile{Data: []byte(content + "\n")} }
	link := func(name, target string) {
		m[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	file("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 100 kB\nMemAvailable:    400 kB\nHugePages_Total:   4\nHugePages_Free:    1\nHugepagesize:       2048 kB\nnonsense\nX: y")
	file("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 1000 kB\nNode 0 MemUsed: 700 kB\nNode 0 HugePages_Total: 4\nNode 0 HugePages_Free: 4")
	file("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineX\nmodel name\t: X 1\n\nprocessor\t: 1\nmodel name\t: X 1")
	file("sys/devices/system/cpu/isolated", "1-2")
	for i, core := range []string{"0", "0", "8", "8"} {
		dir := "sys/devices/system/cpu/cpu" + string(rune('0'+i))
		file(dir+"/topology/core_id", core)
		file(dir+"/topology/physical_package_id", "0")
		file(dir+"/node0/x", "")
		if i > 0 {
			file(dir+"/online", map[bool]string{true: "0", false: "1"}[i == 3])
		}
		file(dir+"/cpufreq/scaling_cur_freq", "240000"+string(rune('0'+i)))
	}
	file("sys/devices/system/cpu/cpu0/cache/index0/level", "1")
	file("sys/devices/system/cpu/cpu0/cache/index0/type", "Data")
	file("sys/devices/system/cpu/cpu0/cache/index0/size", "32K")
	file("sys/devices/system/cpu/cpufreq/x", "")

	const pci = "sys/devices/pci0000:00/0000:00:03.0"
	file(pci+"/vendor", "0x1af4")
	file(pci+"/device", "0x0001")
	file(pci+"/numa_node", "-1")
	link("sys/class/net/eth0", "../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0")
	file(pci+"/virtio2/net/eth0/address", "02:fc:00:00:00:01")
	file(pci+"/virtio2/net/eth0/carrier", "1")
	file(pci+"/virtio2/net/eth0/duplex", "unknown")
	file(pci+"/virtio2/net/eth0/device/x", "")
	link(pci+"/virtio2/net/eth0/device/driver", "../../../../bus/virtio/drivers/virtio_net")
	link("sys/class/net/lo", "../../devices/virtual/net/lo")
	file("sys/devices/virtual/net/lo/address", "00:00:00:00:00:00")

	const disk = "sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda"
	link("sys/class/block/vda", "../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda")
	link("sys/class/block/vda1", "../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1")
	link("sys/class/block/loop0", "../../devices/virtual/block/loop0")
	file("sys/devices/virtual/block/loop0/size", "8")
	file(disk+"/dev", "254:0")
	file(disk+"/size", "2048")
	file(disk+"/ro", "0")
	file(disk+"/device/x", "")
	link(disk+"/device/subsystem", "../../../../bus/virtio")
	file(disk+"/vda1/partition", "1")
	file(disk+"/vda1/size", "1024")
	file(disk+"/vda1/dev", "254:1")
	return m
}

func TestRead(t *testing.T) {
	got, err := Read(machine(), "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	thread := func(id int64, n uint64, online, isolated bool) Thread {
		return Thread{ID: id, Thread: n, Online: online, Isolated: isolated}
	}
	want := Resources{
		CPU: CPU{Architecture: "x86_64", Total: 4, Sockets: []Socket{{
			Name: "X 1", Vendor: "GenuineX", Frequency: 2400, Cache: []Cache{{1, "Data", 32 << 10}},
			Cores: []Core{
				{Core: 0, Frequency: 2400, Threads: []Thread{thread(0, 0, true, false), thread(1, 1, true, true)}},
				{Core: 8, Frequency: 2400, Threads: []Thread{thread(2, 0, true, true), thread(3, 1, false, false)}},
			},
		}}},
		Memory: Memory{
			Total: 1000 << 10, Used: 600 << 10, HugepagesSize: 2 << 20, HugepagesTotal: 8 << 20, HugepagesUsed: 6 << 20,
			Nodes: []MemoryNode{{Total: 1000 << 10, Used: 700 << 10, HugepagesTotal: 8 << 20}},
		},
		Network: Network{Total: 1, Cards: []Card{{
			Driver: "virtio_net", PCIAddress: "0000:00:03.0", VendorID: "1af4", ProductID: "0001",
			Ports: []Port{{ID: "eth0", Address: "02:fc:00:00:00:01", Protocol: "ethernet", LinkDetected: true}},
		}}},
		Storage: Storage{Total: 2, Disks: []Disk{{
			ID: "vda", Device: "254:0", Type: "virtio", Size: 1 << 20, PCIAddress: "0000:00:02.0",
			Partitions: []Partition{{ID: "vda1", Device: "254:1", Size: 1 << 19, Partition: 1}},
		}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestReadMissing(t *testing.T) {
	for _, gone := range []string{"proc/meminfo", cpuDir} {
		m := machine()
		for name := range m {
			if name == gone || len(name) > len(gone) && name[:len(gone)+1] == gone+"/" {
				delete(m, name)
			}
		}
		if _, err := Read(m, "x86_64"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without %s: got %v, want not exist", gone, err)
		}
	}
}

// The machine that runs the test has memory and a CPU.
func TestReadHost(t *testing.T) {
	r, err := Read(os.DirFS("/"), "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	if r.CPU.Total == 0 || len(r.CPU.Sockets) == 0 || r.Memory.Total == 0 || r.Memory.Used >= r.Memory.Total {
		raw, _ := json.Marshal(r)
		t.Errorf("got %s", raw)
	}
}
