//go:build system

package image

import (
	"archive/tar"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// A version 2 file capability: cap_net_raw=ep. Source: linux/capability.h.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// An access ACL: user::rw- user:1000:rw- group::r-- mask::rw- other::r--.
// Source: linux/posix_acl_xattr.h.
const acl = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\xe8\x03\x00\x00" +
	"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"

// fullTree is an archive with all that a root filesystem can have.
func fullTree() []entry {
	return []entry{
		{name: "./", typ: tar.TypeDir, mode: 0o755},
		{name: "bin/", typ: tar.TypeDir, mode: 0o755},
		{name: "bin/ping", data: "ELF", mode: 0o755, pax: map[string]string{"SCHILY.xattr.security.capability": netRaw}},
		{name: "bin/su", data: "suid", mode: 0o4755},
		{name: "bin/wall", data: "sgid", mode: 0o2755, gid: 5},
		{name: "acl", data: "x", mode: 0o664, uid: 7, pax: map[string]string{
			"SCHILY.xattr.system.posix_acl_access": acl, "SCHILY.xattr.user.note": "hi", "SCHILY.xattr.trusted.overlay.opaque": "y"}},
		{name: "home/", typ: tar.TypeDir, mode: 0o700, uid: 1000, gid: 1001},
		{name: "home/file", data: "mine", mode: 0o600, uid: 1000, gid: 1001},
		{name: "home/big", data: "id", uid: 3_000_000_000, gid: 4_000_000_000},
		{name: "dev/", typ: tar.TypeDir},
		{name: "dev/null", typ: tar.TypeChar, mode: 0o666, major: 1, minor: 3},
		{name: "dev/loop0", typ: tar.TypeBlock, mode: 0o660, gid: 6, major: 7},
		{name: "dev/fifo", typ: tar.TypeFifo, mode: 0o620, uid: 1000},
		{name: "link", typ: tar.TypeSymlink, link: "/etc/shadow", mode: 0o777, uid: 1000},
		{name: "hard", typ: tar.TypeLink, link: "bin/su"},
		{name: "sparse", data: strings.Repeat("\x00", 1<<20) + "x"},
	}
}

// describe lists a tree: every path with type, mode, owner, device, links,
// time, attributes and contents.
func describe(t *testing.T, root string) []string {
	t.Helper()
	out, err := exec.Command("find", root, "-printf", `%P %y %m %U:%G %n %T@ %l\n`).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	for i, line := range lines {
		name, _, _ := strings.Cut(line, " ")
		path := filepath.Join(root, name)
		buf := make([]byte, 4096)
		if n, err := unix.Llistxattr(path, buf); err == nil && n > 0 {
			keys := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
			slices.Sort(keys)
			for _, k := range keys {
				v := make([]byte, 4096)
				n, err := unix.Lgetxattr(path, k, v)
				if err != nil {
					t.Fatal(err)
				}
				lines[i] += " " + k + "=" + strings.ReplaceAll(string(v[:n]), "\x00", "0")
			}
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines[i] += " " + strings.TrimLeft(string(data), "\x00")
		case unix.S_IFCHR, unix.S_IFBLK:
			lines[i] += " " + string(rune('0'+unix.Major(st.Rdev))) + ":" + string(rune('0'+unix.Minor(st.Rdev)))
		}
	}
	slices.Sort(lines)
	return lines
}

func emptyDest(t *testing.T) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "dest")
	if err := os.Mkdir(dest, 0o700); err != nil {
		t.Fatal(err)
	}
	return dest
}

func TestUnpackEverythingConfined(t *testing.T) {
	before := mountTable(t)
	dest := emptyDest(t)
	path := saveFile(t, compressed(t, archiveOf(t, fullTree()...))[XZ])
	stats, err := (&Tools{}).Unpack(t.Context(), path, Everything, dest)
	if err != nil || len(stats.Skipped) != 0 {
		t.Fatalf("%+v, %v", stats, err)
	}
	golden(t, "fulltree.want", strings.Join(describe(t, dest), "\n")+"\n")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dest, "sparse"), &st); err != nil || st.Blocks > 64 {
		t.Errorf("sparse takes %d blocks, %v", st.Blocks, err)
	}
	if after := mountTable(t); after != before {
		t.Errorf("mounts changed:\n%s", after)
	}
}

// The same tree as squashfs comes out the same.
func TestUnpackSquashfsConfined(t *testing.T) {
	first, second := emptyDest(t), emptyDest(t)
	tools := &Tools{}
	if _, err := tools.Unpack(t.Context(), saveFile(t, archiveOf(t, fullTree()...)), Everything, first); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(first, "acl"), "system.posix_acl_access", []byte(acl), 0); err != nil {
		t.Fatal(err)
	}
	// squashfs has no room for ACLs.
	if err := unix.Removexattr(filepath.Join(first, "acl"), "system.posix_acl_access"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(first, "home/file"), "trusted.secret", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "root.squashfs")
	if out, err := exec.Command("mksquashfs", first, image, "-comp", "zstd", "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := unix.Removexattr(filepath.Join(first, "home/file"), "trusted.secret"); err != nil {
		t.Fatal(err)
	}
	stats, err := tools.Unpack(t.Context(), image, Everything, second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("skipped: %q", stats.Skipped)
	if diff := cmp.Diff(wholeSeconds(describe(t, first)), wholeSeconds(describe(t, second))); diff != "" {
		t.Error(diff)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{100, 600} {
		if _, err := tools.Unpack(t.Context(), saveFile(t, data[:cut]), Everything, emptyDest(t)); !errors.Is(err, api.Invalid) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

// wholeSeconds drops the fractions of times, which squashfs has not.
func wholeSeconds(lines []string) []string {
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], ".1230000000", ".0000000000")
	}
	return lines
}

func TestHelpersOfToolsAreConfined(t *testing.T) {
	tools := &Tools{}
	image := saveFile(t, archiveOf(t, unified()...))
	if _, err := tools.Inspect(t.Context(), image, ""); err != nil {
		t.Error(err)
	}
	out, err := tools.Render(t.Context(), []byte("{{ container.name|upper }}"), testContext())
	if string(out) != "C1" || err != nil {
		t.Errorf("Render: %q, %v", out, err)
	}
	// Doubling a string by 64 blocks ends the helper, not the caller.
	bomb := "{% set a = config.big %}" + strings.Repeat("{% set a = a + a %}", 64) + "{{ a }}"
	if _, err := tools.Render(t.Context(), []byte(bomb), testContext()); !errors.Is(err, api.Invalid) {
		t.Errorf("memory bomb: %v", err)
	}
	loop := strings.Repeat("{% for c in config.big %}", 6) + strings.Repeat("{% endfor %}", 6)
	if _, err := tools.Render(t.Context(), []byte(loop), testContext()); !errors.Is(err, api.Invalid) {
		t.Errorf("endless loop: %v", err)
	}
	// As in the daemon, nobody can look into the images' folder but root.
	if err := os.Chmod(filepath.Dir(image), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := tools.Inspect(t.Context(), image, ""); err != nil {
		t.Error(err)
	}
}

func TestApplyTemplatesKeepsOwners(t *testing.T) {
	root := t.TempDir()
	name := filepath.Join(root, "mine")
	if err := errors.Join(os.WriteFile(name, nil, 0o640), os.Chown(name, 1000, 1001), os.Chmod(root, 0o2755|os.ModeSetgid), os.Chown(root, 0, 50)); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	tpl := &api.ImageMetadataTemplate{When: []string{OnStart}, Template: "t"}
	md := &api.ImageMetadata{Templates: map[string]*api.ImageMetadataTemplate{"/mine": tpl, "/new": tpl}}
	if err := (&Tools{}).ApplyTemplates(t.Context(), dir, md, map[string][]byte{"t": []byte("x")}, OnStart, TemplateContext{}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"mine": "640 1000:1001", "new": "644 0:0"} {
		out, err := exec.Command("stat", "-c", "%a %u:%g", filepath.Join(root, file)).Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: %s, want %s, %v", file, out, want, err)
		}
	}
}

// BenchmarkUnpack unpacks $CROFT_BENCH_ROOTFS, a squashfs, and tarballs made of
// it, each in its helper.
func BenchmarkUnpack(b *testing.B) {
	squash := os.Getenv("CROFT_BENCH_ROOTFS")
	if squash == "" {
		b.Skip("CROFT_BENCH_ROOTFS names no squashfs")
	}
	work := b.TempDir()
	tools := &Tools{}
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		b.Fatal(err)
	}
	if _, err := tools.Unpack(b.Context(), squash, Everything, tree); err != nil {
		b.Fatal(err)
	}
	files := map[string]string{"squashfs": squash}
	for name, flag := range map[string]string{"gzip": "-z", "zstd": "--zstd", "xz": "-J"} {
		files[name] = filepath.Join(work, name)
		if out, err := exec.Command("tar", "--numeric-owner", flag, "-cf", files[name], "-C", tree, ".").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	for name, path := range files {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				dest := filepath.Join(work, "dest")
				if err := os.Mkdir(dest, 0o700); err != nil {
					b.Fatal(err)
				}
				if _, err := tools.Unpack(b.Context(), path, Everything, dest); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := os.RemoveAll(dest); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
