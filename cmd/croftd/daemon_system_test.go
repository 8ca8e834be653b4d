//go:build system

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
	"github.com/croft-project/croft/internal/daemon"
)

// real is a croftd process on a directory of its own.
type real struct {
	t   *testing.T
	exe string
	dir string
	cmd *exec.Cmd
	log *os.File
}

// newReal builds croftd and starts it. Whatever the test does, nothing of the
// daemon is left on the host afterwards.
func newReal(t *testing.T) *real {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "croftd-test") // short, and where overlays work
	if err != nil {
		t.Fatal(err)
	}
	r := &real{t: t, exe: filepath.Join(t.TempDir(), "croftd"), dir: filepath.Join(dir, "state")}
	t.Setenv("CROFT_DIR", r.dir)
	if out, err := exec.Command("go", "build", "-o", r.exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if r.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.kill()
		r.start()
		r.mustRun("shutdown", "--timeout", "60")
		_ = r.cmd.Wait()
		r.log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(r.log.Name())
			t.Logf("log of the daemon:\n%s", text)
		}
		r.expectNothingLeft()
		os.RemoveAll(dir)
	})
	r.start()
	return r
}

func (r *real) start() {
	r.t.Helper()
	r.cmd = exec.Command(r.exe, "--debug")
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.mustRun("waitready", "--timeout", "30")
}

// kill ends the daemon without asking it.
func (r *real) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

func (r *real) run(args ...string) (string, error) {
	// The test's context has ended when cleaning up.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, r.exe, args...).CombinedOutput()
	return string(out), err
}

func (r *real) mustRun(args ...string) {
	r.t.Helper()
	if out, err := r.run(args...); err != nil {
		r.t.Fatalf("croftd %v: %v\n%s", args, err, out)
	}
}

func (r *real) client() *client.Client {
	r.t.Helper()
	c, err := client.Dial(r.t.Context(), client.Options{Socket: filepath.Join(r.dir, daemon.SocketName)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// bridge is the network that init has made.
func (r *real) bridge() string {
	r.t.Helper()
	networks, err := r.client().Networks(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range networks {
		if n.Managed {
			return n.Name
		}
	}
	r.t.Fatal("no managed network")
	return ""
}

// expectNothingLeft looks for what would survive the daemon's directory.
func (r *real) expectNothingLeft() {
	r.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(r.dir)) {
		r.t.Errorf("mounts are left (%v)", err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range procs {
		if env, err := os.ReadFile(p); err == nil && bytes.Contains(env, []byte("CROFT_DIR="+r.dir+"\x00")) && !strings.Contains(p, "/self/") {
			if name, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline")); !bytes.Contains(name, []byte(".test")) {
				r.t.Errorf("process %s is left: %s", filepath.Dir(p), bytes.ReplaceAll(name, []byte{0}, []byte{' '}))
			}
		}
	}
}

// TestRealDaemon takes a daemon from its first start to its end.
func TestRealDaemon(t *testing.T) {
	r := newReal(t)
	r.mustRun("init", "--auto")
	r.mustRun("init", "--auto")
	bridge := r.bridge()
	if out, err := r.run("--debug"); err == nil || !strings.Contains(out, "locked by another process") {
		t.Errorf("a second daemon: %v\n%s", err, out)
	}

	c := r.client()
	op, err := c.CreateImage(t.Context(), api.ImagesPost{Source: &api.ImagesPostSource{Type: "build", Distribution: "busybox"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	create := api.InstancesPost{Name: "c1", Source: api.InstanceSource{Type: "image", Alias: "busybox"}}
	if op, err = c.CreateInstance(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	if _, err := op.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if op, err = c.SetInstanceState(t.Context(), "c1", api.InstanceStatePut{Action: "start"}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := op.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := c.InstanceState(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}

	r.kill()
	r.start()
	after, err := r.client().InstanceState(t.Context(), "c1")
	if err != nil || after.Pid != before.Pid || after.StatusCode != api.Running {
		t.Errorf("after kill -9: got %v, process %d, %v; want it to run on as %d", after.Status, after.Pid, err, before.Pid)
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if err := syscall.Kill(int(before.Pid), 0); err != nil {
		t.Errorf("SIGTERM to the daemon ended the container: %v", err)
	}
	r.start()

	r.mustRun("shutdown", "--timeout", "60")
	_ = r.cmd.Wait()
	if err := syscall.Kill(int(before.Pid), 0); err == nil {
		t.Error("the container runs after a shutdown")
	}
	if _, err := os.Stat("/sys/class/net/" + bridge); err == nil {
		t.Errorf("bridge %s is there after a shutdown", bridge)
	}
	r.start()
	if _, err := os.Stat("/sys/class/net/" + bridge); err != nil {
		t.Errorf("bridge %s has not come back: %v", bridge, err)
	}
	r.deleteAll()
}

// deleteAll removes everything through the API and looks whether it is gone.
func (r *real) deleteAll() {
	t, ctx := r.t, r.t.Context()
	t.Helper()
	c := r.client()
	bridge := r.bridge()
	stop, err := c.SetInstanceState(ctx, "c1", api.InstanceStatePut{Action: "stop", Force: true}, "")
	if err == nil {
		_, _ = stop.Wait(ctx) // it may not be running
	}
	op, err := c.DeleteInstance(ctx, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	alias, _, err := c.ImageAlias(ctx, "busybox")
	if err != nil {
		t.Fatal(err)
	}
	if op, err = c.DeleteImage(ctx, alias.Target); err != nil {
		t.Fatal(err)
	}
	if _, err := op.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteStoragePool(ctx, "default"); err == nil {
		t.Error("the default profile's pool could be deleted")
	}
	if err := c.UpdateProfile(ctx, "default", api.ProfilePut{}, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteStoragePool(ctx, "default"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteNetwork(ctx, bridge); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{"containers", "devices", "images", "uploads", "storage-pools", "logs"} {
		entries, err := os.ReadDir(filepath.Join(r.dir, dir))
		if err != nil || len(entries) > 0 {
			t.Errorf("%s is not empty: %v, %v", dir, entries, err)
		}
	}
	if _, err := os.Stat("/sys/class/net/" + bridge); err == nil {
		t.Errorf("bridge %s is left", bridge)
	}
}
