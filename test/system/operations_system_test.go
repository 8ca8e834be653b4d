//go:build system

package system

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// The events of a life come in its order, and each when it is true.
func TestEvents(t *testing.T) {
	h := newHost(t, "overlay")
	c := h.connect()
	stream, err := c.Events(h.ctx(), client.EventFilter{Types: []string{"lifecycle"}})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	h.ok("launch", "busybox", "c1")
	h.ok("config", "set", "c1", "user.a", "b")
	h.ok("pause", "c1")
	h.ok("start", "c1")
	h.sh("c1", "true")
	h.ok("restart", "-f", "c1")
	h.ok("stop", "-f", "c1")
	h.ok("rename", "c1", "c2")
	h.ok("delete", "c2")
	want := []string{
		"instance-created c1", "instance-started c1", "instance-updated c1", "instance-paused c1", "instance-resumed c1",
		"instance-exec c1", "instance-restarted c1", "instance-stopped c1", "instance-renamed c2", "instance-deleted c2",
	}
	var got []string
	for ctx := h.ctx(); len(got) == 0 || got[len(got)-1] != want[len(want)-1]; {
		e, err := stream.Next(ctx)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		var m api.EventLifecycleMetadata
		if err := json.Unmarshal(e.Metadata, &m); err != nil {
			t.Fatal(err)
		}
		if e.Type != "lifecycle" || e.Timestamp.IsZero() || e.Project != "default" {
			t.Errorf("event %+v", e)
		}
		got = append(got, m.Action+" "+m.Source[strings.LastIndexByte(m.Source, '/')+1:])
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A guest that ignores the order to stop: the operation is listed, a wait for it
// times out, it can be cancelled, and the container runs on.
func TestOperations(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1")
	h.sh("c1", `rm /sbin/init; printf '#!/bin/sh\ntrap "" PWR\nwhile :; do sleep 600; done\n' >/sbin/init; chmod 755 /sbin/init`)
	h.ok("restart", "-f", "c1")
	c := h.connect()
	op, err := c.SetInstanceState(h.ctx(), "c1", api.InstanceStatePut{Action: "stop", Timeout: -1}, "")
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Operations(h.ctx(), false)
	if err != nil || !slices.ContainsFunc(all, func(o api.Operation) bool {
		return o.ID == op.ID() && o.StatusCode == api.Running && slices.Equal(o.Resources["instances"], []string{"/1.0/instances/c1"})
	}) {
		t.Errorf("operations: %+v, %v", all, err)
	}
	begin := time.Now()
	var waited api.Operation
	h.query("/1.0/operations/"+op.ID()+"/wait?timeout=1", &waited)
	if waited.StatusCode != api.Running || time.Since(begin) < time.Second {
		t.Errorf("a wait with a timeout: %v after %v", waited.StatusCode, time.Since(begin))
	}
	h.refused([]string{"delete", "c1"}, "c1")
	if err := op.Cancel(h.ctx()); err != nil {
		t.Errorf("cancel: %v", err)
	}
	last, err := op.Wait(h.ctx())
	if !errors.Is(err, api.Canceled) || last.StatusCode != api.Cancelled {
		t.Errorf("a cancelled operation ends with %v, %v", last.StatusCode, err)
	}
	if got := h.status("c1"); got != "RUNNING" {
		t.Errorf("after the cancel: %s", got)
	}
	h.refused([]string{"stop", "c1", "--timeout", "1"}, "c1")
	h.sh("c1", "true")
	h.ok("stop", "-f", "c1")
	h.ok("delete", "c1")
}

// What the kernel knows about a container, and what is logged about it.
func TestStateAndLogs(t *testing.T) {
	h := newHost(t, "overlay")
	h.ok("launch", "busybox", "c1")
	h.ok("wait", "c1", "--ipv4", "--timeout", "60")
	h.sh("c1", "head -c 3000000 /dev/urandom | md5sum >/dev/null; (sleep 600 &) >/dev/null 2>&1 </dev/null")
	s := h.state("c1")
	if s.StatusCode != api.Running || s.Pid < 2 || s.Processes < 2 || s.CPU.Usage == 0 || s.Memory.Usage == 0 || s.Memory.UsagePeak < s.Memory.Usage {
		t.Errorf("running: %+v", s)
	}
	nic := s.Network["eth0"]
	families := ""
	for _, a := range nic.Addresses {
		families += a.Family + "/" + a.Scope + " "
	}
	if !strings.Contains(families, "inet/global") || !strings.Contains(families, "inet6/link") || nic.Hwaddr != h.ok("config", "get", "c1", "volatile.eth0.hwaddr") ||
		nic.HostName == "" || nic.Mtu != 1500 || nic.State != "up" || nic.Counters.PacketsSent == 0 {
		t.Errorf("network: %q %+v", families, nic)
	}
	if lo := s.Network["lo"]; lo.Type != "loopback" {
		t.Errorf("loopback: %+v", lo)
	}
	c := h.connect()
	logs, err := c.InstanceLogs(h.ctx(), "c1")
	if err != nil || !slices.Contains(logs, "lxc.log") {
		t.Fatalf("logs: %q, %v", logs, err)
	}
	r, err := c.InstanceLog(h.ctx(), "c1", "lxc.log")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("lxc.log: %v", err)
	}
	for _, name := range []string{"..%2f..%2fcroft.db", "nosuch.log"} {
		if _, err := c.Raw(h.ctx(), "GET", "/1.0/instances/c1/logs/"+name, nil); err == nil {
			t.Errorf("the log %s can be read", name)
		}
	}
	h.ok("stop", "-f", "c1")
	if s := h.state("c1"); s.StatusCode != api.Stopped || s.Pid != 0 || s.Processes > 0 || s.Network != nil {
		t.Errorf("stopped: %+v", s)
	}
	h.ok("delete", "c1")
}
