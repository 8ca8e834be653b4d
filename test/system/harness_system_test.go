//go:build system

package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/instance"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/test/systest"
)

// patience bounds everything that is waited for. Reaching it is a failure.
const patience = 60 * time.Second

// The programs under test.
var croft, croftd string

// debianCache keeps the Debian image between runs: building it takes half a
// minute and the network. A week later it is built anew.
const debianCache = "/var/cache/croft-test/debian12"

func TestMain(m *testing.M) {
	os.Exit(systest.Main(m, buildDebian, func(dir string) (err error) {
		if croft, err = systest.Program(dir, "croft"); err != nil {
			return err
		}
		croftd, err = systest.Program(dir, "croftd")
		return err
	}))
}

func buildDebian() error {
	if st, err := os.Stat(filepath.Join(debianCache, "rootfs.squashfs")); err == nil && time.Since(st.ModTime()) < 7*24*time.Hour {
		return nil
	}
	req, err := image.ParseBuild("debian/12")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(debianCache), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(debianCache), ".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := (&image.Builder{}).Build(context.Background(), req, tmp); err != nil {
		return err
	}
	if err := os.RemoveAll(debianCache); err != nil {
		return err
	}
	return os.Rename(tmp, debianCache)
}

// host is a croftd with a state directory of its own, driven by croft.
type host struct {
	t   *testing.T
	dir string
	log string
	cmd *exec.Cmd
}

// newHost starts a daemon with a pool of the given driver, a bridge, and the
// image busybox. At the end nothing of it may be left on the host.
func newHost(t *testing.T, driver string) *host {
	t.Helper()
	top, err := os.MkdirTemp("/var/tmp", "croft-system-") // not a tmpfs: images would fill the memory
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o711); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: filepath.Join(top, "state"), log: filepath.Join(top, "log")}
	t.Cleanup(func() { h.cleanUp(top) })
	h.start()
	h.daemon("init", "--auto", "--storage-backend="+driver)
	h.ok("image", "build", "busybox")
	return h
}

func (h *host) start() {
	h.t.Helper()
	log, err := os.OpenFile(h.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.cmd = exec.Command(croftd, "--verbose")
	h.cmd.Env = append(os.Environ(), "CROFT_DIR="+h.dir)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	// Descriptors that whoever starts the daemon has left open: no container may see them.
	h.cmd.ExtraFiles = slices.Repeat([]*os.File{log}, 10)
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.daemon("waitready", "--timeout", "30")
}

// kill ends the daemon without asking it.
func (h *host) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

// term asks the daemon alone to end.
func (h *host) term() {
	h.t.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		h.t.Fatal(err)
	}
	if err := h.cmd.Wait(); err != nil {
		h.t.Errorf("the daemon ended with %v", err)
	}
}

func (h *host) cleanUp(top string) {
	if h.t.Failed() {
		text, _ := os.ReadFile(h.log)
		h.t.Logf("log of the daemon:\n%s", text)
	}
	h.daemon("shutdown", "--timeout", "60")
	_ = h.cmd.Wait()
	if err := os.RemoveAll(top); err != nil {
		h.t.Errorf("remove the state directory: %v", err)
	}
	h.nothingLeft()
}

// nothingLeft looks for what a daemon could leave on its host.
func (h *host) nothingLeft() {
	h.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.t.Fatal(err)
	}
	if strings.Contains(string(mounts), h.dir) {
		h.t.Errorf("mounts are left:\n%s", mounts)
	}
	cgroups, err := linux.FindCgroups()
	if err != nil {
		h.t.Fatal(err)
	}
	group := instance.CgroupPrefix(h.dir)
	for _, root := range cgroups.Roots() {
		entries, _ := os.ReadDir(filepath.Join(root, group))
		for _, e := range entries {
			if e.IsDir() && e.Name() != "lxc.pivot" {
				h.t.Errorf("control group %s/%s/%s is left", root, group, e.Name())
			}
		}
	}
	_ = cgroups.Remove(group) // liblxc's pivot stays otherwise
	for _, thing := range append(h.processes(), h.files()...) {
		h.t.Errorf("%s is left", thing)
	}
	_ = os.Remove(instance.LXCPath(h.dir)) // not if something is in it, which has been reported
	links, err := linux.HostLinks(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range links {
		if l.Kind == "veth" {
			h.t.Errorf("interface %s is left", l.Name)
		}
	}
}

// run runs croft and returns its outputs and exit code.
func (h *host) run(stdin string, args ...string) (out, errOut string, code int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, croft, args...)
	cmd.Env = append(os.Environ(), "CROFT_DIR="+h.dir, "CROFT_CONF="+filepath.Join(h.dir, "client"))
	cmd.Stdin = strings.NewReader(stdin)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		h.t.Fatalf("croft %s: %v\n%s", strings.Join(args, " "), err, e.String())
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// ok runs croft, which has to succeed, and returns what it prints.
func (h *host) ok(args ...string) string {
	h.t.Helper()
	out, errOut, code := h.run("", args...)
	if code != 0 {
		h.t.Fatalf("croft %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return strings.TrimSuffix(out, "\n")
}

// refused runs croft, which has to fail with all of the words in its error.
func (h *host) refused(args []string, words ...string) {
	h.t.Helper()
	_, errOut, code := h.run("", args...)
	if code == 0 {
		h.t.Errorf("croft %s: succeeded", strings.Join(args, " "))
	}
	for _, w := range words {
		if !strings.Contains(errOut, w) {
			h.t.Errorf("croft %s: error %q does not say %q", strings.Join(args, " "), errOut, w)
		}
	}
}

// sh runs a shell command in a container and returns its standard output.
func (h *host) sh(name, script string) string {
	h.t.Helper()
	return h.ok("exec", name, "--", "sh", "-c", script)
}

// halt makes a busybox guest shut down, which may end the command first.
func (h *host) halt(name string) {
	h.t.Helper()
	h.run("", "exec", name, "--", "kill", "-PWR", "1")
}

func (h *host) daemon(args ...string) {
	h.t.Helper()
	cmd := exec.Command(croftd, args...)
	cmd.Env = append(os.Environ(), "CROFT_DIR="+h.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		log, _ := os.ReadFile(h.log)
		h.t.Fatalf("croftd %s: %v\n%s\n%s", strings.Join(args, " "), err, out, log)
	}
}

func (h *host) status(name string) string {
	h.t.Helper()
	return h.ok("list", "^"+name+"$", "-f", "csv", "-c", "s")
}

func (h *host) state(name string) api.InstanceState {
	h.t.Helper()
	var s api.InstanceState
	h.query("/1.0/instances/"+name+"/state", &s)
	return s
}

func (h *host) query(path string, into any) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.ok("query", path)), into); err != nil {
		h.t.Fatalf("%s: %v", path, err)
	}
}

// await repeats check until it says nothing.
func (h *host) await(what string, check func() string) {
	h.t.Helper()
	var last string
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if last = check(); last == "" {
			return
		}
	}
	h.t.Fatalf("waited in vain for %s: %s", what, last)
}

func (h *host) awaitStatus(name, want string) {
	h.t.Helper()
	h.await(name+" to be "+want, func() string {
		if got := h.status(name); got != want {
			return fmt.Sprintf("it is %q", got)
		}
		return ""
	})
}

// importDebian makes the image debian available.
func (h *host) importDebian() {
	h.t.Helper()
	h.ok("image", "import", filepath.Join(debianCache, "metadata.tar.xz"), filepath.Join(debianCache, "rootfs.squashfs"), "--alias", "debian")
}
