//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kind is what the bench knows about a daemon program.
type kind struct {
	name    string
	title   string
	letter  string // in container names, which must differ between the daemons: they share the host's cgroups
	binary  string
	dirEnv  string // variable that names the state directory
	drivers string
}

func kinds(o options) map[string]kind {
	return map[string]kind{
		"lxd":   {"lxd", "LXD", "l", o.lxd, "LXD_DIR", o.drivers},
		"incus": {"incus", "Incus", "i", o.incusd, "INCUS_DIR", o.drivers},
		"croft": {"croft", "Croft", "c", o.croftd, "CROFT_DIR", o.croftDrivers},
	}
}

// target is one running daemon with one storage driver.
type target struct {
	kind
	label  string // column of the report
	driver string // asked for, and once the daemon runs the one it has
	pool   string
	prefix string // of its containers' names
	dir    string // state directory
	client string // the stock lxc
	host   *host

	pid        int // the daemon's
	supervisor *exec.Cmd
	lifeline   io.Closer // closing it ends the daemon and all below it
	http       *http.Client
	version    string
	network    string
}

func newTarget(k kind, driver string, index int, o options, h *host) *target {
	t := &target{kind: k, driver: driver, client: o.lxc, host: h, label: k.title, pool: "default"}
	if k.name == "croft" && driver != "overlay" {
		t.pool = "bench" // "default" is made by croftd init
	}
	if index > 0 {
		t.label += " " + driver
	}
	t.prefix = fmt.Sprintf("%s%s%d-", h.token, k.letter, index)
	t.dir = filepath.Join(h.dir, fmt.Sprintf("%s%d", k.name, index))
	sock := filepath.Join(t.dir, "unix.socket")
	t.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", sock)
		},
	}}
	return t
}

// start runs the daemon below a supervisor, waits until it answers and makes its storage pool.
func (t *target) start(ctx context.Context) error {
	if err := os.MkdirAll(t.dir, 0o711); err != nil {
		return err
	}
	if err := t.spawn(); err != nil {
		return err
	}
	if err := t.ready(ctx); err != nil {
		return err
	}
	if t.name == "croft" {
		if err := t.ownCommand(ctx, "waitready", "--timeout", "30"); err != nil {
			return err
		}
		if err := t.ownCommand(ctx, "init", "--auto"); err != nil {
			return err
		}
	}
	if t.name != "croft" || t.pool != "default" {
		if err := t.makePool(ctx); err != nil {
			return err
		}
	}
	var pool struct{ Driver string }
	if err := t.call(ctx, "GET", "/1.0/storage-pools/"+t.pool, nil, &pool); err != nil {
		return err
	}
	t.driver = pool.Driver // croftd init --auto chooses one that works here
	return nil
}

func (t *target) makePool(ctx context.Context) error {
	config := map[string]string{}
	if t.driver == "btrfs" {
		config["size"] = "20GiB" // a sparse loop file in the state directory
	}
	return t.call(ctx, "POST", "/1.0/storage-pools", map[string]any{"name": t.pool, "driver": t.driver, "config": config}, nil)
}

func (t *target) spawn() error {
	log, err := os.Create(t.logPath())
	if err != nil {
		return err
	}
	defer log.Close()
	scratch := t.dir + ".ns"
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, superviseArg, scratch, t.binary, "--group", "root")
	cmd.Env = append(os.Environ(), t.dirEnv+"="+t.dir)
	cmd.Stderr = log
	// Setsid: Ctrl-C is for the bench, which then ends the daemons in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	if t.lifeline, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t.supervisor = cmd
	t.host.onClose(t.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the supervisor ended at once")
	}
	t.pid, err = strconv.Atoi(strings.TrimSpace(line))
	return err
}

// stop ends the daemon and everything below it.
func (t *target) stop() error {
	pid := t.supervisor.Process.Pid
	_ = t.lifeline.Close()
	limit := time.AfterFunc(daemonStopLimit+20*time.Second, func() {
		for _, p := range append(descendants(pid), pid) {
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
	})
	defer limit.Stop()
	if err := t.supervisor.Wait(); err != nil {
		return fmt.Errorf("supervisor of %s: %w", t.label, err)
	}
	return nil
}

// ready waits until the daemon answers and has finished starting.
func (t *target) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var server struct {
			Auth        string
			Environment struct {
				ServerVersion string `json:"server_version"`
			}
		}
		err := t.call(ctx, "GET", "/1.0", nil, &server)
		if err == nil && t.name != "croft" {
			err = t.call(ctx, "GET", "/internal/ready", nil, nil)
		}
		if err == nil {
			if t.name != "croft" { // there it is the version that clients are to take it for
				t.version = server.Environment.ServerVersion
			}
			return nil
		}
		if syscall.Kill(t.pid, 0) != nil {
			return fmt.Errorf("the daemon ended")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready after a minute: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// makeNetwork makes sure that there is a managed bridge and remembers its name.
func (t *target) makeNetwork(ctx context.Context) error {
	if t.name != "croft" {
		t.network = "bench0"
		return t.call(ctx, "POST", "/1.0/networks", map[string]any{"name": t.network, "type": "bridge", "config": map[string]string{}}, nil)
	}
	var networks []struct {
		Name    string
		Managed bool
	}
	if err := t.call(ctx, "GET", "/1.0/networks?recursion=1", nil, &networks); err != nil {
		return err
	}
	for _, n := range networks {
		if n.Managed {
			t.network = n.Name
			return nil
		}
	}
	return fmt.Errorf("croftd init --auto made none")
}

// setProfile puts the root disk and, with a network, eth0 into the default profile and keeps the rest of it.
func (t *target) setProfile(ctx context.Context, network bool) error {
	var profile struct {
		Config      map[string]string            `json:"config"`
		Description string                       `json:"description"`
		Devices     map[string]map[string]string `json:"devices"`
	}
	if err := t.call(ctx, "GET", "/1.0/profiles/default", nil, &profile); err != nil {
		return err
	}
	profile.Devices = map[string]map[string]string{"root": {"type": "disk", "path": "/", "pool": t.pool}}
	if network {
		profile.Devices["eth0"] = map[string]string{"type": "nic", "name": "eth0", "network": t.network}
	}
	return t.call(ctx, "PUT", "/1.0/profiles/default", profile, nil)
}

// ownCommand runs the daemon's own program as a command, such as croftd init.
func (t *target) ownCommand(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.binary, args...)
	cmd.Env = append(os.Environ(), t.dirEnv+"="+t.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", t.binary, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// lxc runs the stock client against this daemon.
func (t *target) lxc(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.client, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.host.dir, "LC_ALL=C.UTF-8",
		"LXD_DIR=" + t.dir, "LXD_CONF=" + filepath.Join(t.host.dir, "client-"+filepath.Base(t.dir))}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lxc %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// timed is lxc with its duration in milliseconds, process start included.
func (t *target) timed(ctx context.Context, args ...string) (float64, error) {
	begin := time.Now()
	err := t.lxc(ctx, args...)
	return milliseconds(begin), err
}

// get reads a path to the last byte on a kept connection and returns how long that took, in milliseconds.
func (t *target) get(ctx context.Context, path string) (body []byte, ms float64, err error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://unix"+path, nil)
	if err != nil {
		return nil, 0, err
	}
	begin := time.Now()
	resp, err := t.http.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	ms = milliseconds(begin)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return body, ms, err
}

// call sends a request that is answered at once and decodes the answer's metadata into out unless that is nil.
func (t *target) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://unix"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Type     string
		Error    string
		Metadata json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if answer.Type != "sync" {
		return fmt.Errorf("%s %s: %s %s %s", method, path, resp.Status, answer.Type, answer.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Metadata, out)
}

func (t *target) logPath() string { return t.dir + ".log" }

// logTail is the end of the daemon's log, for error messages.
func (t *target) logTail() string {
	data, err := os.ReadFile(t.logPath())
	if err != nil {
		return ""
	}
	return string(data[max(0, len(data)-2000):])
}

func milliseconds(since time.Time) float64 {
	return float64(time.Since(since).Microseconds()) / 1000
}
