//go:build system

package crash

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
	"github.com/croft-project/croft/internal/instance"
	"github.com/croft-project/croft/internal/linux"
)

const (
	renamed      = "renamed"
	otherPool    = "other"
	otherNetwork = "crashbr1"
)

// The same as TestKill for what else takes several steps.
func TestKillMore(t *testing.T) {
	k := newKiller(t)
	k.maxWait = 5 * maxWait // some of it takes longer
	files := k.otherImage()
	k.run([]attempt{
		renameAttempt(), restartAttempt(), limitAttempt(),
		importAttempt(files), deleteImageAttempt(files),
		createPoolAttempt(), deletePoolAttempt(), createNetworkAttempt(), deleteNetworkAttempt(),
	}, 90)
}

// What an ephemeral container does at its end is finished: it is deleted.
func TestKillEphemeral(t *testing.T) {
	newKiller(t).run([]attempt{{
		"stop", func(d *croftDaemon) {
			post := fromImage(subject)
			post.Ephemeral = true
			op, err := d.c.CreateInstance(d.ctx(), post)
			d.finish("create "+subject, op, err)
			d.setState(subject, "start")
		}, changeState("stop"), func(d *croftDaemon) {
			if slices.Contains(d.names(), subject) {
				i, _, err := d.c.Instance(d.ctx(), subject)
				if err != nil || i.StatusCode != api.Running {
					d.t.Errorf("the ephemeral instance has stopped and is still there: %s, error %v", i.Status, err)
				}
				d.setState(subject, "stop")
			}
			d.create(subject)
			d.delete(subject)
		},
	}}, 25)
}

func renameAttempt() attempt {
	return attempt{"rename", func(d *croftDaemon) { d.create(subject) }, func(ctx context.Context, c *client.Client) error {
		op, err := c.RenameInstance(ctx, subject, renamed)
		return wait(ctx, op, err)
	}, func(d *croftDaemon) {
		names := d.names()
		if slices.Contains(names, subject) == slices.Contains(names, renamed) {
			d.t.Errorf("after a rename there are %v", names)
		}
		for _, n := range []string{subject, renamed} {
			d.settleSubject(n, api.Stopped)
		}
	}}
}

func restartAttempt() attempt {
	return attempt{"restart", func(d *croftDaemon) { d.create(subject); d.setState(subject, "start") }, changeState("restart"), func(d *croftDaemon) {
		d.mustExist(subject)
		d.await("the restarted instance to run", func() error {
			i, _, err := d.c.Instance(d.ctx(), subject)
			if err == nil && i.StatusCode != api.Running {
				err = fmt.Errorf("it is %s", i.Status)
			}
			return err
		})
		d.settleSubject(subject, api.Running)
	}}
}

// limitAttempt changes a limit of a running container: it is what the record
// says, in the kernel too.
func limitAttempt() attempt {
	set := func(ctx context.Context, c *client.Client, limit string) error {
		i, etag, err := c.Instance(ctx, subject)
		if err != nil {
			return err
		}
		i.Config["limits.memory"] = limit
		op, err := c.UpdateInstance(ctx, subject, i.InstancePut, etag)
		return wait(ctx, op, err)
	}
	return attempt{"limit", func(d *croftDaemon) { d.create(subject); d.setState(subject, "start") }, func(ctx context.Context, c *client.Client) error {
		return errors.Join(set(ctx, c, "512MiB"), set(ctx, c, ""))
	}, func(d *croftDaemon) {
		i, _, err := d.c.Instance(d.ctx(), subject)
		if err != nil {
			d.t.Fatal(err)
		}
		groups, err := linux.FindCgroups()
		if err != nil {
			d.t.Fatal(err)
		}
		file := "memory.limit_in_bytes"
		if groups.V2("memory") {
			file = "memory.max"
		}
		got := readFile(filepath.Join(groups.Path("memory", instance.CgroupPrefix(d.dir)+"/"+subject), file))
		if limited := got == "536870912\n"; limited != (i.Config["limits.memory"] != "") {
			d.t.Errorf("limits.memory is %q, %s is %s", i.Config["limits.memory"], file, got)
		}
		d.settleSubject(subject, api.Running)
	}}
}

// otherImage writes the files of one more image: the root of the one that is
// there, with metadata of its own.
func (k *killer) otherImage() []string {
	k.t.Helper()
	alias, _, err := k.c.ImageAlias(k.ctx(), image)
	if err != nil {
		k.t.Fatal(err)
	}
	dir := k.t.TempDir()
	files := []string{filepath.Join(dir, "meta.tar"), filepath.Join(dir, "rootfs")}
	err = k.c.ExportImage(k.ctx(), alias.Target, func(p client.ImagePart) error {
		if p.Field != "rootfs" {
			return nil
		}
		f, err := os.Create(files[1])
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, p.Body)
		return err
	})
	if err == nil {
		err = writeMetadata(files[0])
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return files
}

func writeMetadata(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text := "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: other\n"
	w := tar.NewWriter(f)
	if err := w.WriteHeader(&tar.Header{Name: "metadata.yaml", Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return w.Close()
}

func upload(ctx context.Context, c *client.Client, files []string) error {
	var parts [2]*os.File
	for i, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		parts[i] = f
	}
	op, err := c.UploadImage(ctx, client.ImageUpload{Meta: parts[0], MetaName: "meta", Rootfs: parts[1], RootfsName: "rootfs"})
	return wait(ctx, op, err)
}

func importAttempt(files []string) attempt {
	return attempt{"import image", func(*croftDaemon) {}, func(ctx context.Context, c *client.Client) error {
		return upload(ctx, c, files)
	}, settleImage}
}

func deleteImageAttempt(files []string) attempt {
	return attempt{"delete image", func(d *croftDaemon) {
		if err := upload(d.ctx(), d.c, files); err != nil {
			d.t.Fatal(err)
		}
		post := fromImage(subject)
		post.Source = api.InstanceSource{Type: "image", Fingerprint: d.newImage()}
		op, err := d.c.CreateInstance(d.ctx(), post)
		d.finish("create "+subject, op, err)
	}, func(ctx context.Context, c *client.Client) error {
		all, err := c.Images(ctx)
		if err != nil {
			return err
		}
		op, err := c.DeleteImage(ctx, newOf(all))
		return wait(ctx, op, err)
	}, func(d *croftDaemon) {
		d.mustExist(subject)
		d.settleSubject(subject, api.Stopped) // needs nothing but the pool
		settleImage(d)
	}}
}

// newImage is the fingerprint of the image that was uploaded, or "".
func (d *croftDaemon) newImage() string {
	d.t.Helper()
	all, err := d.c.Images(d.ctx())
	if err != nil {
		d.t.Fatal(err)
	}
	return newOf(all)
}

func newOf(all []api.Image) string {
	for _, i := range all {
		if !slices.ContainsFunc(i.Aliases, func(a api.ImageAlias) bool { return a.Name == image }) {
			return i.Fingerprint
		}
	}
	return ""
}

// settleImage checks that the uploaded image, if it is there, can be used; and
// that nothing of it is left when it is deleted.
func settleImage(d *croftDaemon) {
	if f := d.newImage(); f != "" {
		post := fromImage(subject)
		post.Source = api.InstanceSource{Type: "image", Fingerprint: f}
		op, err := d.c.CreateInstance(d.ctx(), post)
		d.finish("create an instance of the uploaded image", op, err)
		d.settleSubject(subject, api.Stopped)
		op, err = d.c.DeleteImage(d.ctx(), f)
		d.finish("delete the uploaded image", op, err)
	}
	d.await("the files of images to be whole", func() error {
		return errors.Join(
			count("images", dirNames(d.dir, "images"), 2),
			count("images in the pool", dirNames(d.dir, "storage-pools/default/images"), 1),
		)
	})
}

func count(what string, names []string, want int) error {
	if len(names) != want {
		return fmt.Errorf("%s: %v, want %d", what, names, want)
	}
	return nil
}

func createPool(ctx context.Context, c *client.Client) error {
	return c.CreateStoragePool(ctx, api.StoragePoolsPost{Name: otherPool, Driver: "dir"})
}

func createPoolAttempt() attempt {
	return attempt{"create pool", func(*croftDaemon) {}, createPool, settlePool}
}

func deletePoolAttempt() attempt {
	return attempt{"delete pool", func(d *croftDaemon) {
		if err := createPool(d.ctx(), d.c); err != nil {
			d.t.Fatal(err)
		}
	}, func(ctx context.Context, c *client.Client) error { return c.DeleteStoragePool(ctx, otherPool) }, settlePool}
}

// settlePool checks that the pool is there as a whole or not at all.
func settlePool(d *croftDaemon) {
	p, _, err := d.c.StoragePool(d.ctx(), otherPool)
	switch {
	case client.IsGone(err):
		if dir := filepath.Join(d.dir, "storage-pools", otherPool); exists(dir) {
			d.t.Errorf("there is no pool, but its directory is there")
		}
		if err := createPool(d.ctx(), d.c); err != nil {
			d.t.Error(err)
		}
	case err != nil || p.Status != "Created":
		d.t.Errorf("the pool is %s, error %v", p.Status, err)
	}
	post := fromImage(subject)
	post.Devices = map[string]map[string]string{"root": {"type": "disk", "path": "/", "pool": otherPool}}
	op, err := d.c.CreateInstance(d.ctx(), post)
	d.finish("create an instance in the other pool", op, err)
	d.delete(subject)
	if err := d.c.DeleteStoragePool(d.ctx(), otherPool); err != nil {
		d.t.Error(err)
	}
}

func createNetwork(ctx context.Context, c *client.Client) error {
	return c.CreateNetwork(ctx, api.NetworksPost{Name: otherNetwork})
}

func createNetworkAttempt() attempt {
	return attempt{"create network", func(*croftDaemon) {}, createNetwork, settleNetwork}
}

func deleteNetworkAttempt() attempt {
	return attempt{"delete network", func(d *croftDaemon) {
		if err := createNetwork(d.ctx(), d.c); err != nil {
			d.t.Fatal(err)
		}
	}, func(ctx context.Context, c *client.Client) error { return c.DeleteNetwork(ctx, otherNetwork) }, settleNetwork}
}

// settleNetwork checks that the network is up or that nothing of it is there.
func settleNetwork(d *croftDaemon) {
	n, _, err := d.c.Network(d.ctx(), otherNetwork)
	switch {
	case client.IsGone(err):
		d.noNetwork()
		if err := createNetwork(d.ctx(), d.c); err != nil {
			d.t.Error(err)
		}
	case err != nil || n.Status != "Created" || !slices.Contains(d.links(), otherNetwork) || len(d.dnsmasq()) != 1:
		d.t.Errorf("the network is %s, error %v; links %v, dnsmasq %v", n.Status, err, d.links(), d.dnsmasq())
	}
	if err := d.c.DeleteNetwork(d.ctx(), otherNetwork); err != nil {
		d.t.Error(err)
	}
	d.noNetwork()
}

func (d *croftDaemon) noNetwork() {
	d.t.Helper()
	d.await("nothing of the network to be left", func() error {
		if left := append(grep(d.links(), otherNetwork), append(d.dnsmasq(), grep(d.files(), otherNetwork)...)...); len(left) > 0 {
			return fmt.Errorf("there is %v", left)
		}
		return nil
	})
}

// dnsmasq are the processes that serve the other network.
func (d *croftDaemon) dnsmasq() []string {
	return slices.DeleteFunc(grep(d.processes(), "/"+otherNetwork+"/"), func(p string) bool { return !strings.Contains(p, "dnsmasq") })
}

// An ephemeral container whose end was on record when the daemon died, but not
// yet its deletion, is deleted by the next one.
func TestEphemeralPastItsEnd(t *testing.T) {
	d := newDaemon(t)
	post := fromImage(subject)
	post.Ephemeral = true
	op, err := d.c.CreateInstance(d.ctx(), post)
	d.finish("create "+subject, op, err)
	d.kill()
	d.start()
	d.mustExist(subject) // it has not run yet
	d.setState(subject, "start")
	st, err := d.c.InstanceState(d.ctx(), subject)
	if err != nil {
		t.Fatal(err)
	}
	d.kill()
	_ = unix.Kill(int(st.Pid), unix.SIGKILL)
	d.await("the container to end", func() error { return count("processes", d.processes(), 1) }) // dnsmasq
	d.editRecord("local", "local/instance/default/"+subject, `"power":"RUNNING"`, `"power":"STOPPED"`)
	d.start()
	if names := d.names(); len(names) > 0 {
		t.Errorf("there are %v", names)
	}
}

// editRecord replaces a text in a record of a dead daemon.
func (d *croftDaemon) editRecord(bucket, key, from, to string) {
	d.t.Helper()
	db, err := bbolt.Open(filepath.Join(d.dir, instance.DatabaseFile), 0o600, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		old := b.Get([]byte(key))
		now := bytes.Replace(old, []byte(from), []byte(to), 1)
		if bytes.Equal(old, now) {
			return fmt.Errorf("record %s has no %s: %s", key, from, old)
		}
		return b.Put([]byte(key), now)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}
