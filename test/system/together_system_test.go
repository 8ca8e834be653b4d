//go:build system

package system

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/croft-project/croft/api"
)

// Of many who want the same name, one gets it.
func TestSameNameAtOnce(t *testing.T) {
	h := newHost(t, "overlay")
	c := h.connect()
	for round := range 5 {
		var made, refused atomic.Int32
		var g sync.WaitGroup
		for range 8 {
			g.Go(func() {
				op, err := c.CreateInstance(h.ctx(), api.InstancesPost{Name: "c1", Source: api.InstanceSource{Type: "image", Alias: "busybox"}})
				if err == nil {
					_, err = op.Wait(h.ctx())
				}
				switch {
				case err == nil:
					made.Add(1)
				case errors.Is(err, api.Conflict):
					refused.Add(1)
				default:
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		g.Wait()
		if made.Load() != 1 || refused.Load() != 7 {
			t.Errorf("round %d: %d made, %d refused", round, made.Load(), refused.Load())
		}
		h.ok("delete", "c1")
	}
}

// Many containers come and go at once; each has its own of everything.
func TestManyAtOnce(t *testing.T) {
	h := newHost(t, "overlay")
	const many, atOnce = 24, 6
	names := make(chan string, many)
	for i := range many {
		names <- fmt.Sprintf("m%d", i)
	}
	close(names)
	var mu sync.Mutex
	seen := map[string]string{} // what only one may have, and who has it
	var g sync.WaitGroup
	for range atOnce {
		g.Go(func() {
			for name := range names {
				if _, errOut, code := h.run("", "launch", "busybox", name); code != 0 {
					t.Errorf("launch %s: %s", name, errOut)
					continue
				}
				out, errOut, code := h.run("", "exec", name, "--", "sh", "-c", "cat /sys/class/net/eth0/address /proc/self/uid_map; hostname")
				own := strings.Split(strings.TrimSpace(out), "\n")
				if code != 0 || len(own) != 3 || own[2] != name {
					t.Errorf("%s: %q, %s", name, out, errOut)
					continue
				}
				mu.Lock()
				for _, thing := range own {
					if other := seen[thing]; other != "" {
						t.Errorf("%s and %s have the same: %s", name, other, thing)
					}
					seen[thing] = name
				}
				mu.Unlock()
			}
		})
	}
	g.Wait()
	if got := strings.Count(h.ok("list", "-f", "csv", "-c", "s"), "RUNNING"); got != many {
		t.Errorf("%d containers run, want %d", got, many)
	}
	for i := range atOnce {
		g.Go(func() {
			for j := i; j < many; j += atOnce {
				if _, errOut, code := h.run("", "delete", "-f", fmt.Sprintf("m%d", j)); code != 0 {
					t.Errorf("delete m%d: %s", j, errOut)
				}
			}
		})
	}
	g.Wait()
	if got := h.ok("list", "-f", "csv"); got != "" {
		t.Errorf("left after delete: %s", got)
	}
}

// Starts and stops of one container that come at once end in one state, which
// the kernel and the API agree on, and which can be left again.
func TestContraryOrders(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("init", "busybox", "c1")
	c := h.connect()
	for range 5 {
		var g sync.WaitGroup
		for i := range 12 {
			action := []string{"start", "stop", "restart", "freeze", "unfreeze", "stop"}[i%6]
			g.Go(func() {
				op, err := c.SetInstanceState(h.ctx(), "c1", api.InstanceStatePut{Action: action, Force: action == "stop" || action == "restart"}, "")
				if err == nil {
					_, err = op.Wait(h.ctx())
				}
				if k := api.KindOf(err); err != nil && k != api.BadState && k != api.Busy && k != api.Invalid && k != api.Canceled {
					t.Errorf("%s: %v (%s)", action, err, k)
				}
			})
		}
		g.Wait()
		if s := h.state("c1"); (s.StatusCode == api.Stopped) != (s.Pid == 0) {
			t.Errorf("%s with pid %d", s.Status, s.Pid)
		}
	}
	if h.status("c1") != "STOPPED" {
		h.ok("stop", "-f", "c1")
	}
	h.ok("start", "c1")
	h.sh("c1", "true")
	h.ok("delete", "-f", "c1")
}

// A container that exchanges folders and links while files are written and read
// through them does not lead the daemon out of it.
func TestFilesWhileLinksChange(t *testing.T) {
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"overlay", "dir"} {
		h := newHost(t, driver)
		h.ok("launch", "busybox", "c1")
		// The path of the canary exists inside too, up to a part that changes.
		parent, last := filepath.Split(outside)
		h.sh("c1", fmt.Sprintf(`mkdir -p %[1]sreal/deep %[1]sup; echo inside >%[1]sreal/canary; cd %[1]s
(while :; do ln -s real %[2]s; rm -r %[2]s; ln -s ../../../../../../../../..%[3]s %[2]s; rm -r %[2]s; mkdir %[2]s; rm -r %[2]s; done) >/dev/null 2>&1 </dev/null &`, parent, last, outside))
		for i := range 60 {
			h.run("evil", "file", "push", "-", "c1"+canary)
			h.run("evil", "file", "push", "-p", "-", fmt.Sprintf("c1%s/new%d", outside, i))
			if out, _, code := h.run("", "file", "pull", "c1"+canary, "-"); code == 0 && strings.Contains(out, "untouched") {
				t.Fatalf("%s: the host's file was read", driver)
			}
			h.run("", "file", "delete", "c1"+canary)
		}
		h.ok("delete", "-f", "c1")
		data, err := os.ReadFile(canary)
		if err != nil || string(data) != "untouched" {
			t.Errorf("%s: the host's file is %q, %v", driver, data, err)
		}
		entries, err := os.ReadDir(outside)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: the host's folder has %v, %v", driver, entries, err)
		}
	}
}

// Daemons that are set up at the same time each get a bridge and addresses of
// their own.
func TestSetUpAtOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{}
	t.Run("daemons", func(t *testing.T) {
		for i := range 4 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				h := newHost(t, "dir")
				var networks []api.Network
				h.query("/1.0/networks?recursion=1", &networks)
				mu.Lock()
				defer mu.Unlock()
				for _, n := range networks {
					if !n.Managed {
						continue
					}
					for _, key := range []string{"ipv4.address", "ipv6.address"} {
						if other := seen[n.Config[key]]; other != "" {
							t.Errorf("daemons %s and %s have the address %s", other, t.Name(), n.Config[key])
						}
						seen[n.Config[key]] = t.Name()
					}
				}
			})
		}
	})
	if len(seen) != 8 {
		t.Errorf("addresses of four daemons: %v", seen)
	}
}
