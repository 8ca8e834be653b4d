//go:build system

package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
	"github.com/croft-project/croft/internal/instance"
)

// patience bounds everything that is waited for. Reaching it is a failure.
const patience = 30 * time.Second

// image is the alias of the image that all containers are made of.
const image = "busybox"

// croftDaemon is a croftd process on a state directory of its own. It can be
// killed and started again.
type croftDaemon struct {
	t   *testing.T
	dir string
	log string
	cmd *exec.Cmd
	c   *client.Client
}

// newDaemon starts a daemon and gives it a pool, a bridge and an image. At the
// end everything of it is removed from the host, and nothing may be left.
func newDaemon(t *testing.T) *croftDaemon {
	t.Helper()
	// /var/tmp: an overlay's upper directory cannot be on every tmpfs.
	top, err := os.MkdirTemp("/var/tmp", "croft-crash-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o711); err != nil {
		t.Fatal(err)
	}
	d := &croftDaemon{t: t, dir: filepath.Join(top, "state"), log: filepath.Join(top, "log")}
	t.Cleanup(func() { d.cleanUp(top) })
	d.start()
	d.run("init", "--auto")
	op, err := d.c.CreateImage(d.ctx(), api.ImagesPost{Source: &api.ImagesPostSource{Type: "build", Distribution: image}})
	d.finish("build the image", op, err)
	return d
}

func (d *croftDaemon) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	d.t.Cleanup(cancel)
	return ctx
}

// start runs the daemon and returns when it answers, which is when it has
// recovered.
func (d *croftDaemon) start() {
	d.t.Helper()
	d.launch()
	d.connect()
}

func (d *croftDaemon) launch() {
	d.t.Helper()
	log, err := os.OpenFile(d.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(croftd, "--verbose")
	// A dump of all goroutines when the daemon is told to abort.
	d.cmd.Env = append(os.Environ(), "CROFT_DIR="+d.dir, "GOTRACEBACK=all")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
}

// connect waits until the daemon answers.
func (d *croftDaemon) connect() {
	d.t.Helper()
	d.await("the daemon to answer", func() error {
		if p := fmt.Sprintf("/proc/%d/exe", d.cmd.Process.Pid); !exists(p) {
			d.t.Fatalf("the daemon ended at its start\n%s", d.logTail())
		}
		c, err := client.Dial(d.ctx(), client.Options{Socket: filepath.Join(d.dir, "unix.socket")})
		if err != nil {
			return err
		}
		if _, _, err := c.Server(d.ctx()); err != nil {
			c.Close()
			return err
		}
		if d.c != nil {
			d.c.Close()
		}
		d.c = c
		return nil
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// kill ends the daemon without asking it.
func (d *croftDaemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// await repeats check until it is satisfied.
func (d *croftDaemon) await(what string, check func() error) {
	d.t.Helper()
	var err error
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if err = check(); err == nil {
			return
		}
	}
	d.t.Fatalf("waited in vain for %s: %v\n%s", what, err, d.logTail())
}

// run is a command of croftd itself.
func (d *croftDaemon) run(args ...string) {
	d.t.Helper()
	cmd := exec.CommandContext(d.ctx(), croftd, args...)
	cmd.Env = append(os.Environ(), "CROFT_DIR="+d.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("croftd %v: %v\n%s\n%s", args, err, out, d.logTail())
	}
}

// finish waits for an operation that has to succeed.
func (d *croftDaemon) finish(what string, op *client.Operation, err error) api.Operation {
	d.t.Helper()
	var last api.Operation
	if err == nil {
		last, err = op.Wait(d.ctx())
	}
	if err != nil {
		d.t.Fatalf("%s: %v\n%s", what, err, d.logTail())
	}
	return last
}

func (d *croftDaemon) create(name string) {
	d.t.Helper()
	op, err := d.c.CreateInstance(d.ctx(), fromImage(name))
	d.finish("create "+name, op, err)
}

func fromImage(name string) api.InstancesPost {
	return api.InstancesPost{Name: name, Source: api.InstanceSource{Type: "image", Alias: image}}
}

func (d *croftDaemon) setState(name, action string) {
	d.t.Helper()
	op, err := d.c.SetInstanceState(d.ctx(), name, statePut(action), "")
	d.finish(action+" "+name, op, err)
}

func statePut(action string) api.InstanceStatePut {
	return api.InstanceStatePut{Action: action, Force: action != "start", Timeout: -1}
}

func (d *croftDaemon) delete(name string) {
	d.t.Helper()
	op, err := d.c.DeleteInstance(d.ctx(), name)
	d.finish("delete "+name, op, err)
}

// exec runs a command and expects its exit code.
func (d *croftDaemon) exec(name string, want int, command ...string) {
	d.t.Helper()
	code, err := d.c.Exec(d.ctx(), name, api.InstanceExecPost{Command: command}, client.ExecIO{})
	if code != want {
		d.t.Fatalf("exec %v in %s: code %d, want %d, error %v\n%s", command, name, code, want, err, d.logTail())
	}
}

// logTail is the end of the daemon's log, for failures.
func (d *croftDaemon) logTail() string {
	data, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return "log of the daemon, last lines:\n" + strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// complaints are log lines at level error and reports of the race detector: a
// recovery that could not do its work has some, even if all looks well.
func (d *croftDaemon) complaints() {
	for line := range strings.Lines(readFile(d.log)) {
		switch {
		case strings.Contains(line, "level=ERROR"), strings.Contains(line, "DATA RACE"), strings.HasPrefix(line, "panic:"):
			d.t.Errorf("the daemon's log has: %s", line)
		case strings.Contains(line, "level=WARN"):
			d.t.Logf("the daemon's log has: %s", line)
		}
	}
}

// cleanUp removes all instances through the API, then what that leaves.
func (d *croftDaemon) cleanUp(top string) {
	if d.c != nil {
		d.deleteAll()
		d.c.Close()
	}
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Signal(unix.SIGPWR) // takes the network down too
		timer := time.AfterFunc(patience, func() { _ = d.cmd.Process.Kill() })
		_ = d.cmd.Wait()
		timer.Stop()
	}
	d.complaints()
	for _, p := range d.processes() {
		if pid, _ := strconv.Atoi(strings.Fields(p)[0]); pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL) // recognised by our own program or control group
		}
	}
	for _, dir := range d.cgroupDirs() {
		_ = os.Remove(dir)
	}
	for _, root := range cgroupRoots() {
		_ = removeGroups(filepath.Join(root, instance.CgroupPrefix(d.dir)))
	}
	left, _ := filepath.Glob(instance.LXCPath(d.dir) + "*") // package network's name is a longer one
	for _, dir := range left {
		_ = os.RemoveAll(dir)
	}
	if err := os.RemoveAll(top); err != nil {
		d.t.Error(err)
	}
}

// deleteAll tries to delete every instance. A test that failed may have left
// some that cannot be.
func (d *croftDaemon) deleteAll() {
	all, err := d.c.Instances(d.ctx(), client.InstanceFilter{})
	if err != nil {
		return
	}
	for _, i := range all {
		if i.StatusCode != api.Stopped {
			if op, err := d.c.SetInstanceState(d.ctx(), i.Name, statePut("stop"), ""); err == nil {
				_, _ = op.Wait(d.ctx())
			}
		}
		if op, err := d.c.DeleteInstance(d.ctx(), i.Name); err == nil {
			_, _ = op.Wait(d.ctx())
		}
	}
}

func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeGroups(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(dir))
}

// names are the instances that the API shows.
func (d *croftDaemon) names() []string {
	d.t.Helper()
	all, err := d.c.Instances(d.ctx(), client.InstanceFilter{})
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for _, i := range all {
		out = append(out, i.Name)
	}
	slices.Sort(out)
	return out
}
