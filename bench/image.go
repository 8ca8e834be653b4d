//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// image is the same bytes for every daemon.
type image struct {
	alias string
	files []string // unified tarball, or metadata tarball and squashfs
}

// prepareImages returns the busybox image and, when asked for, the Debian one. They are built here and not by croftd,
// which has no way to a mirror from its network namespace and would not be there in a run without Croft.
func prepareImages(ctx context.Context, o options, dir string, debian bool) ([]image, error) {
	bb := o.busybox
	if bb == "" {
		bb = filepath.Join(dir, "busybox.tar.gz")
		if err := buildBusybox(bb); err != nil {
			return nil, fmt.Errorf("busybox image: %w", err)
		}
	}
	images := []image{{"bb", []string{bb}}}
	if !debian {
		return images, nil
	}
	if o.debianMeta != "" {
		return append(images, image{"deb", []string{o.debianMeta, o.debianRootfs}}), nil
	}
	meta := filepath.Join(o.cache, "debian12", "metadata.tar.gz")
	rootfs := filepath.Join(o.cache, "debian12", "rootfs.squashfs")
	_, merr := os.Stat(meta)
	_, rerr := os.Stat(rootfs)
	if merr != nil || rerr != nil {
		progress("building a Debian 12 image (once; kept in %s)", o.cache)
		if err := buildDebian(ctx, o, dir, meta, rootfs); err != nil {
			return nil, fmt.Errorf("debian image: %w", err)
		}
	}
	return append(images, image{"deb", []string{meta, rootfs}}), nil
}

// The container's init: it only waits, and ends on the signals that mean halt.
const busyboxInit = `#!/bin/sh
hostname "$(cat /etc/hostname)"
ip link set lo up
trap 'exit 0' PWR TERM
while :; do sleep 1000 & wait $!; done
`

// buildBusybox writes a unified image around the host's static busybox.
func buildBusybox(path string) error {
	bin, err := lookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	w := newTarball()
	w.metadata("Busybox")
	for _, d := range []string{"", "bin", "sbin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var"} {
		w.dir(filepath.Join("rootfs", d))
	}
	w.file("rootfs/bin/busybox", 0o755, data)
	for _, applet := range strings.Fields("cat echo hostname ip ls mkdir ps rm sh sleep sync true") {
		w.link("rootfs/bin/"+applet, "busybox")
	}
	w.file("rootfs/sbin/init", 0o755, []byte(busyboxInit))
	w.file("rootfs/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	w.file("rootfs/etc/group", 0o644, []byte("root:x:0:\n"))
	w.file("rootfs/etc/hostname", 0o644, []byte("busybox\n"))
	w.file("rootfs/etc/hosts", 0o644, []byte("127.0.0.1 localhost\n"))
	return w.write(path)
}

// buildDebian makes a small Debian 12 with systemd and DHCP on eth0, as a split image.
func buildDebian(ctx context.Context, o options, dir, meta, rootfs string) error {
	if err := os.MkdirAll(filepath.Dir(rootfs), 0o755); err != nil {
		return err
	}
	tree := filepath.Join(dir, "debian12")
	defer os.RemoveAll(tree)
	network := `printf '[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n' > "$1/etc/systemd/network/eth0.network"`
	partial := rootfs + ".partial"
	defer os.Remove(partial)
	for _, args := range [][]string{
		{"mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,iproute2",
			"--customize-hook=" + network, "--customize-hook=chroot \"$1\" systemctl enable systemd-networkd",
			"bookworm", tree, "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + o.mirror + " bookworm main"},
		{"mksquashfs", tree, partial, "-noappend", "-quiet", "-no-progress", "-comp", "zstd"},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, out[max(0, len(out)-2000):])
		}
	}
	w := newTarball()
	w.metadata("Debian")
	if err := w.write(meta); err != nil {
		return err
	}
	return os.Rename(partial, rootfs)
}

// tarball collects entries; the first error sticks and write returns it.
type tarball struct {
	buf bytes.Buffer
	gz  *gzip.Writer
	tar *tar.Writer
	err error
}

func newTarball() *tarball {
	w := &tarball{}
	w.gz = gzip.NewWriter(&w.buf)
	w.tar = tar.NewWriter(w.gz)
	return w
}

// imageTime is fixed so that the same busybox gives the same image.
var imageTime = time.Unix(1700000000, 0)

func (w *tarball) add(h *tar.Header, data []byte) {
	if w.err != nil {
		return
	}
	h.ModTime, h.Size = imageTime, int64(len(data))
	if w.err = w.tar.WriteHeader(h); w.err == nil {
		_, w.err = w.tar.Write(data)
	}
}

func (w *tarball) dir(name string) {
	w.add(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, nil)
}

func (w *tarball) file(name string, mode int64, data []byte) {
	w.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, data)
}

func (w *tarball) link(name, to string) {
	w.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, nil)
}

func (w *tarball) metadata(os string) {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	w.file("metadata.yaml", 0o644, fmt.Appendf(nil, `architecture: %s
creation_date: %d
properties:
  description: %s of the benchmark
  os: %s
templates:
  /etc/hostname:
    when: [create, copy]
    template: hostname.tpl
`, arch, imageTime.Unix(), os, os))
	w.dir("templates")
	w.file("templates/hostname.tpl", 0o644, []byte("{{ container.name }}\n"))
}

func (w *tarball) write(path string) error {
	if w.err != nil {
		return w.err
	}
	if err := w.tar.Close(); err != nil {
		return err
	}
	if err := w.gz.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, w.buf.Bytes(), 0o644)
}

// fingerprint is the image's identity as the daemons compute it: SHA-256 over its files in order.
func (i image) fingerprint() (string, error) {
	sum := sha256.New()
	for _, path := range i.files {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}
