package resources

import (
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Network is the network cards: interfaces with a device behind them.
type Network struct {
	Cards []Card `json:"cards"`
	Total uint64 `json:"total"`
}

// Card is a network card. This version shows each interface as a card of its own.
type Card struct {
	Driver        string `json:"driver,omitempty"`
	DriverVersion string `json:"driver_version,omitempty"`
	Ports         []Port `json:"ports"`
	NUMANode      uint64 `json:"numa_node"`
	PCIAddress    string `json:"pci_address,omitempty"`
	VendorID      string `json:"vendor_id,omitempty"`
	ProductID     string `json:"product_id,omitempty"`
}

// Port is an interface of a network card.
type Port struct {
	ID            string `json:"id"` // name of the interface
	Address       string `json:"address,omitempty"`
	Port          uint64 `json:"port"`
	Protocol      string `json:"protocol"`
	LinkDetected  bool   `json:"link_detected"`
	LinkSpeed     uint64 `json:"link_speed,omitempty"` // Mbit/s
	LinkDuplex    string `json:"link_duplex,omitempty"`
	AutoNegotiate bool   `json:"auto_negotiation"`
}

// Storage is the disks.
type Storage struct {
	Disks []Disk `json:"disks"`
	Total uint64 `json:"total"` // disks and partitions, as LXD counts
}

// Disk is a block device with a device behind it.
type Disk struct {
	ID         string      `json:"id"`
	Device     string      `json:"device"` // MAJOR:MINOR
	Model      string      `json:"model,omitempty"`
	Type       string      `json:"type,omitempty"` // bus or driver
	ReadOnly   bool        `json:"read_only"`
	Size       uint64      `json:"size"`
	Removable  bool        `json:"removable"`
	WWN        string      `json:"wwn,omitempty"`
	NUMANode   uint64      `json:"numa_node"`
	BlockSize  uint64      `json:"block_size"`
	Serial     string      `json:"serial,omitempty"`
	Partitions []Partition `json:"partitions"`
	PCIAddress string      `json:"pci_address,omitempty"`
}

// Partition is a part of a disk.
type Partition struct {
	ID        string `json:"id"`
	Device    string `json:"device"`
	ReadOnly  bool   `json:"read_only"`
	Size      uint64 `json:"size"`
	Partition uint64 `json:"partition"`
}

// sector is the unit of the size files of block devices, whatever the disk's own.
const sector = 512

// pciAddress is the form of a PCI device's directory.
var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// pci gives the directory and the address of the PCI device that a device is on,
// from the way that the link in a class directory takes; "" when there is none.
func (h host) pci(class string) (dir, address string) {
	target, err := fs.ReadLink(h.root, class)
	if err != nil {
		return "", ""
	}
	dir = path.Join(path.Dir(class), target)
	for ; dir != "." && dir != "/"; dir = path.Dir(dir) {
		if pciAddress.MatchString(path.Base(dir)) {
			return dir, path.Base(dir)
		}
	}
	return "", ""
}

// Source: Documentation/ABI/testing/sysfs-class-net of the kernel.
func (h host) network() Network {
	n := Network{Cards: []Card{}}
	for _, name := range h.entries("sys/class/net") {
		dir := "sys/class/net/" + name
		if !h.exists(dir + "/device") {
			continue // made by software
		}
		pci, address := h.pci(dir)
		n.Cards = append(n.Cards, Card{
			Driver: h.link(dir + "/device/driver"), DriverVersion: h.text(dir + "/device/driver/module/version"),
			NUMANode: h.node(pci), PCIAddress: address,
			VendorID: strings.TrimPrefix(h.id(pci, "vendor"), "0x"), ProductID: strings.TrimPrefix(h.id(pci, "device"), "0x"),
			Ports: []Port{{
				ID: name, Address: h.text(dir + "/address"), Port: h.number(dir + "/dev_port"), Protocol: "ethernet",
				LinkDetected: h.text(dir+"/carrier") == "1", LinkSpeed: h.number(dir + "/speed"), LinkDuplex: known(h.text(dir + "/duplex")),
			}},
		})
	}
	n.Total = uint64(len(n.Cards))
	return n
}

func known(s string) string {
	if s == "unknown" {
		return ""
	}
	return s
}

func (h host) id(pci, name string) string {
	if pci == "" {
		return ""
	}
	return h.text(pci + "/" + name)
}

// node is the NUMA node of a PCI device; the kernel says -1 when there is none.
func (h host) node(pci string) uint64 {
	if pci == "" {
		return 0
	}
	return h.number(pci + "/numa_node")
}

// Source: Documentation/ABI/stable/sysfs-block of the kernel.
func (h host) storage() Storage {
	s := Storage{Disks: []Disk{}}
	for _, name := range h.entries("sys/class/block") {
		dir := "sys/class/block/" + name
		if !h.exists(dir+"/device") || h.exists(dir+"/partition") {
			continue // made by software, or a part of a disk
		}
		pci, address := h.pci(dir)
		d := Disk{
			ID: name, Device: h.text(dir + "/dev"), Model: h.text(dir + "/device/model"), Type: h.diskType(name, dir),
			ReadOnly: h.text(dir+"/ro") == "1", Removable: h.text(dir+"/removable") == "1", Size: h.number(dir+"/size") * sector,
			WWN: h.text(dir + "/wwid"), Serial: h.text(dir + "/device/serial"), BlockSize: h.number(dir + "/queue/physical_block_size"),
			NUMANode: h.node(pci), PCIAddress: address, Partitions: h.partitions(name, dir),
		}
		s.Disks = append(s.Disks, d)
		s.Total += 1 + uint64(len(d.Partitions))
	}
	return s
}

// diskType is the bus that a disk is on, nvme or mmc by name where the bus says
// less.
func (h host) diskType(name, dir string) string {
	if strings.HasPrefix(name, "nvme") {
		return "nvme"
	}
	return h.link(dir + "/device/subsystem")
}

func (h host) partitions(disk, dir string) []Partition {
	out := []Partition{}
	for _, name := range h.entries(dir) {
		if !strings.HasPrefix(name, disk) || !h.exists(dir+"/"+name+"/partition") {
			continue
		}
		at := dir + "/" + name
		n, _ := strconv.ParseUint(h.text(at+"/partition"), 10, 32)
		out = append(out, Partition{
			ID: name, Device: h.text(at + "/dev"), ReadOnly: h.text(at+"/ro") == "1", Size: h.number(at+"/size") * sector, Partition: n,
		})
	}
	return out
}
