//go:build system

package system

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const metadata = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  description: made by hand\n" +
	"templates:\n  /etc/made:\n    when: [create, rename]\n    template: made.tpl\n"

// tarball writes a gzipped archive of headers, with the given contents.
func tarball(t *testing.T, path string, entries []tar.Header, contents map[string]string) {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, e := range entries {
		e.ModTime = time.Unix(1700000000, 0)
		e.Size = int64(len(contents[e.Name]))
		if e.Mode == 0 {
			e.Mode = 0o755
		}
		if err := w.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(contents[e.Name])); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{w.Close(), z.Close(), os.WriteFile(path, buf.Bytes(), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// handMade is the smallest unified image with an init: the host's busybox.
func handMade(t *testing.T) ([]tar.Header, map[string]string) {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("busybox is missing; scripts/install-deps run test installs it")
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries := []tar.Header{
		{Name: "metadata.yaml", Typeflag: tar.TypeReg, Mode: 0o644}, {Name: "templates/", Typeflag: tar.TypeDir},
		{Name: "templates/made.tpl", Typeflag: tar.TypeReg, Mode: 0o644}, {Name: "rootfs/", Typeflag: tar.TypeDir},
		{Name: "rootfs/bin/busybox", Typeflag: tar.TypeReg}, {Name: "rootfs/sbin/init", Typeflag: tar.TypeSymlink, Linkname: "/bin/busybox"},
		{Name: "rootfs/etc/group", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 3, Gid: 4},
	}
	for _, d := range []string{"dev", "proc", "sys", "etc", "tmp", "root", "sbin"} {
		entries = append(entries, tar.Header{Name: "rootfs/" + d + "/", Typeflag: tar.TypeDir})
	}
	for _, l := range []string{"sh", "cat", "stat"} {
		entries = append(entries, tar.Header{Name: "rootfs/bin/" + l, Typeflag: tar.TypeSymlink, Linkname: "busybox"})
	}
	return entries, map[string]string{
		"metadata.yaml": metadata, "templates/made.tpl": "{{ container.name }} by {{ trigger }}\n",
		"rootfs/bin/busybox": string(program), "rootfs/etc/group": "root:x:0:\n",
	}
}

func TestUnifiedImage(t *testing.T) {
	entries, contents := handMade(t)
	file := filepath.Join(t.TempDir(), "image.tar.gz")
	tarball(t, file, entries, contents)
	for _, driver := range []string{"overlay", "dir"} {
		h := newHost(t, driver)
		h.ok("image", "import", file, "--alias", "hand")
		h.refused([]string{"image", "import", file}, "already exists")
		h.ok("launch", "hand", "c1")
		if got := h.sh("c1", "cat /etc/made; stat -c '%u:%g %a' /etc/group"); got != "c1 by create\n3:4 640" {
			t.Errorf("%s: template and owner are %q", driver, got)
		}
		h.ok("stop", "-f", "c1")
		h.ok("rename", "c1", "c2")
		h.ok("start", "c2")
		if got := h.sh("c2", "cat /etc/made"); got != "c2 by rename" {
			t.Errorf("%s: the template after a rename is %q", driver, got)
		}
		h.ok("delete", "-f", "c2")
	}
}

// An image that tries to reach the host, in each way that an archive knows,
// leaves the host as it was, whatever becomes of the image.
func TestHostileImages(t *testing.T) {
	top := t.TempDir()
	canary := filepath.Join(top, "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20) + canary[1:]
	attacks := map[string][]tar.Header{
		"dots":          {{Name: "rootfs/" + up, Typeflag: tar.TypeReg}},
		"absolute":      {{Name: canary, Typeflag: tar.TypeReg}},
		"through link":  {{Name: "rootfs/out", Typeflag: tar.TypeSymlink, Linkname: top}, {Name: "rootfs/out/canary", Typeflag: tar.TypeReg}},
		"relative link": {{Name: "rootfs/out", Typeflag: tar.TypeSymlink, Linkname: up}, {Name: "rootfs/out", Typeflag: tar.TypeReg}},
		"hard link":     {{Name: "rootfs/out", Typeflag: tar.TypeLink, Linkname: canary}, {Name: "rootfs/out", Typeflag: tar.TypeReg}},
		"hard link up":  {{Name: "rootfs/out", Typeflag: tar.TypeLink, Linkname: "rootfs/" + up}, {Name: "rootfs/out", Typeflag: tar.TypeReg}},
		"root replaced": {{Name: "rootfs", Typeflag: tar.TypeSymlink, Linkname: top}, {Name: "rootfs/canary", Typeflag: tar.TypeReg}},
		"templates":     {{Name: "templates", Typeflag: tar.TypeSymlink, Linkname: top}, {Name: "templates/canary", Typeflag: tar.TypeReg}},
		"template link": {{Name: "templates/made.tpl", Typeflag: tar.TypeSymlink, Linkname: canary}},
		"target link":   {{Name: "rootfs/etc/made", Typeflag: tar.TypeSymlink, Linkname: canary}},
		"target dir":    {{Name: "rootfs/etc", Typeflag: tar.TypeSymlink, Linkname: top}},
		"metadata link": {{Name: "metadata.yaml", Typeflag: tar.TypeSymlink, Linkname: canary}},
	}
	for _, driver := range []string{"overlay", "dir"} {
		h := newHost(t, driver)
		for name, attack := range attacks {
			entries, contents := handMade(t)
			contents["rootfs/"+up], contents[canary], contents["rootfs/out/canary"], contents["rootfs/out"] = "evil", "evil", "evil", "evil"
			contents["rootfs/canary"], contents["templates/canary"] = "evil", "evil"
			attack = append([]tar.Header(nil), attack...)
			for i := range attack {
				if attack[i].Typeflag != tar.TypeReg {
					delete(contents, attack[i].Name)
				}
			}
			file := filepath.Join(t.TempDir(), "image.tar.gz")
			// Last and first: the image's own directories must not shadow the attack.
			tarball(t, file, withContents(append(entries, attack...), contents), contents)
			_, errOut, code := h.run("", "image", "import", file, "--alias", "evil")
			if code == 0 {
				if _, errOut, code = h.run("", "init", "evil", "c1"); code == 0 {
					_, errOut, code = h.run("", "start", "c1")
					h.ok("delete", "-f", "c1")
				}
				h.ok("image", "delete", "evil")
			}
			t.Logf("%s, %s: exit code %d, %s", driver, name, code, strings.TrimSpace(errOut))
			if data, err := os.ReadFile(canary); err != nil || string(data) != "untouched" {
				t.Fatalf("%s, %s: the host's file is %q, %v", driver, name, data, err)
			}
			if found, _ := os.ReadDir(top); len(found) != 1 {
				t.Fatalf("%s, %s: %d entries are beside the host's file", driver, name, len(found)-1)
			}
		}
		if left, err := os.ReadDir(filepath.Join(h.dir, "containers")); err != nil || len(left) != 0 {
			t.Errorf("%s: left in containers: %v, %v", driver, left, err)
		}
	}
}

// withContents drops regular files that have lost their contents to an attack
// of the same name, which would be written twice.
func withContents(entries []tar.Header, contents map[string]string) []tar.Header {
	var out []tar.Header
	for _, e := range entries {
		if _, ok := contents[e.Name]; ok || e.Typeflag != tar.TypeReg {
			out = append(out, e)
		}
	}
	return out
}
