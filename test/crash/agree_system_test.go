//go:build system

package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
	"github.com/croft-project/croft/internal/instance"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
)

// agree checks that API and kernel say the same of every instance. What is in
// the middle of its end when the daemon comes back may take a moment.
func (k *killer) agree() {
	k.t.Helper()
	k.await("API and kernel to agree", func() error {
		all, err := k.c.InstancesFull(k.ctx(), client.InstanceFilter{})
		if err != nil {
			return err
		}
		var errs []error
		for _, i := range all {
			errs = append(errs, k.agreeOn(i))
		}
		return errors.Join(errs...)
	})
	for name, pid := range k.inits {
		st, err := k.c.InstanceState(k.ctx(), name)
		if err != nil || st.StatusCode != api.Running || st.Pid != pid {
			k.t.Errorf("%s, which ran beside with pid %d, is %s with pid %d, error %v", name, pid, st.Status, st.Pid, err)
		}
	}
	st, err := k.c.InstanceState(k.ctx(), "resting")
	if err != nil || st.StatusCode != api.Stopped {
		k.t.Errorf("resting is %s, error %v", st.Status, err)
	}
}

func (k *killer) agreeOn(i api.InstanceFull) error {
	pidFile := filepath.Join(k.dir, "run", i.Name+".pids")
	members := k.groupMembers(i.Name)
	if i.StatusCode != api.Running {
		if i.StatusCode != api.Stopped || i.State.Pid != 0 || len(members) > 0 || exists(pidFile) {
			return fmt.Errorf("%s: is %s with pid %d, has processes %v, record of processes: %v", i.Name, i.Status, i.State.Pid, members, exists(pidFile))
		}
		return nil
	}
	pids, err := lxc.ParsePids(readFile(pidFile))
	if err != nil {
		return fmt.Errorf("%s: %w", i.Name, err)
	}
	init, parent, err := linux.ReadProcess(int(i.State.Pid))
	switch {
	case err != nil:
		return fmt.Errorf("%s: init: %w", i.Name, err)
	case init != pids.Init || parent != pids.Monitor.PID:
		return fmt.Errorf("%s: init is %v below %d, on record are %v below %v", i.Name, init, parent, pids.Init, pids.Monitor)
	case !slices.Contains(members, init.PID):
		return fmt.Errorf("%s: init %d is not in its control group, which has %v", i.Name, init.PID, members)
	case i.State.Network["eth0"].HostName == "":
		return fmt.Errorf("%s: the host's end of eth0 is not known: %+v", i.Name, i.State.Network)
	}
	monitor, _, err := linux.ReadProcess(pids.Monitor.PID)
	if err != nil || monitor != pids.Monitor {
		return fmt.Errorf("%s: monitor is %v, on record is %v, error %w", i.Name, monitor, pids.Monitor, err)
	}
	return nil
}

// groupMembers are the processes in an instance's control groups, in any
// hierarchy.
func (d *croftDaemon) groupMembers(name string) []int {
	seen := map[int]bool{}
	for _, dir := range d.cgroupDirs() {
		if !strings.Contains(dir+"/", "/"+instance.CgroupPrefix(d.dir)+"/"+name+"/") {
			continue
		}
		for p := range strings.FieldsSeq(readFile(dir + "/cgroup.procs")) {
			pid, _ := strconv.Atoi(p)
			seen[pid] = true
		}
	}
	var out []int
	for pid := range seen {
		out = append(out, pid)
	}
	slices.Sort(out)
	return out
}

// whole checks that nothing half-made is in the state directory: records,
// volumes, links and files of the same instances. Deleted data goes in the
// background, so that may take a moment.
func (k *killer) whole() {
	k.t.Helper()
	names := k.names()
	var running []string
	for n := range k.inits {
		running = append(running, n)
	}
	k.await("the state directory to be whole", func() error {
		return errors.Join(
			same("containers", dirNames(k.dir, "containers"), names),
			same("volumes", dirNames(k.dir, "storage-pools/default/containers"), names),
			same("entries of the pool", dirNames(k.dir, "storage-pools/default"), []string{"containers", "images"}),
			subset("logs", dirNames(k.dir, "logs"), names),
			subset("devices", dirNames(k.dir, "devices"), running),
			subset("records of processes", suffixed(dirNames(k.dir, "run"), ".pids"), running),
			subset("locks", suffixed(dirNames(k.dir, "run"), ".lock"), names),
			subset("records of limits", suffixed(dirNames(k.dir, "run"), ".limits"), running),
			subset("sessions", dirNames(k.dir, "sessions"), nil),
			subset("uploads", dirNames(k.dir, "uploads"), nil),
		)
	})
	for _, n := range names {
		target, err := os.Readlink(filepath.Join(k.dir, "containers", n))
		if want := filepath.Join(k.dir, "storage-pools/default/containers", n); err != nil || target != want {
			k.t.Errorf("containers/%s leads to %q, want %q; error %v", n, target, want, err)
		}
	}
}

func dirNames(parts ...string) []string {
	entries, _ := os.ReadDir(filepath.Join(parts...))
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func suffixed(names []string, suffix string) []string {
	var out []string
	for _, n := range names {
		if rest, ok := strings.CutSuffix(n, suffix); ok {
			out = append(out, rest)
		}
	}
	return out
}

func same(what string, got, want []string) error {
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s are %v, want %v", what, got, want)
	}
	return nil
}

func subset(what string, got, of []string) error {
	for _, g := range got {
		if !slices.Contains(of, g) {
			return fmt.Errorf("%s: %s belongs to nothing; instances are %v", what, g, of)
		}
	}
	return nil
}

// phase tells in which part of its work the daemon has died, from what is on
// disk. The daemon is dead; helpers that it has left may still be at work.
func (k *killer) phase(attempt string) string {
	records := k.records()
	var inst model.Instance
	record := "no record"
	if v, ok := records["instance/default/"+subject]; ok && json.Unmarshal(v, &inst) == nil {
		record = "record " + string(inst.Phase)
	}
	var local model.Local
	if v, ok := records["local/instance/default/"+subject]; ok && json.Unmarshal(v, &local) == nil {
		record += " " + strings.ToLower(string(local.Power))
	}
	facts := []string{record}
	add := func(is bool, text string) {
		if is {
			facts = append(facts, text)
		}
	}
	volumes := dirNames(k.dir, "storage-pools/default/containers")
	switch attempt {
	case "create", "delete":
		add(slices.Contains(volumes, subject), "volume")
		add(slices.ContainsFunc(volumes, func(n string) bool { return strings.HasPrefix(n, ".tmp-") }), "volume being made")
		add(slices.ContainsFunc(volumes, func(n string) bool { return strings.HasPrefix(n, ".del-") }), "volume being removed")
		add(slices.Contains(dirNames(k.dir, "containers"), subject), "link")
	case "start", "stop", "restart":
		run := dirNames(k.dir, "run")
		add(slices.Contains(run, subject+".lock"), "lock")
		add(len(k.groupMembers(subject)) > 0, "processes")
		add(slices.Contains(run, subject+".pids"), "pids on record")
	case "rename":
		add(slices.Contains(volumes, subject), "old volume")
		add(slices.Contains(volumes, renamed), "new volume")
		add(slices.Contains(dirNames(k.dir, "containers"), renamed), "new link")
	case "import image", "delete image":
		n := 0
		for key := range records {
			if strings.HasPrefix(key, "image/default/") {
				n++
			}
		}
		facts = []string{fmt.Sprintf("%d records, %d uploads, %d files, %d in the pool", n, len(dirNames(k.dir, "uploads")),
			len(dirNames(k.dir, "images")), len(dirNames(k.dir, "storage-pools/default/images")))}
	case "limit":
		facts = []string{fmt.Sprintf("limits.memory is %q on record, limits are noted: %v", inst.Config["limits.memory"], exists(filepath.Join(k.dir, "run", subject+".limits")))}
	default:
		facts = nil
		for key, v := range records {
			var obj struct{ Phase model.Phase }
			if key == "pool/other" || key == "network/"+otherNetwork {
				_ = json.Unmarshal(v, &obj)
				facts = append(facts, "record "+string(obj.Phase))
			}
		}
		add(exists(filepath.Join(k.dir, "storage-pools/other")), "directory")
		add(slices.Contains(k.links(), otherNetwork), "link")
	}
	return strings.Join(facts, ", ")
}

// records reads the database of a dead daemon.
func (d *croftDaemon) records() map[string][]byte {
	d.t.Helper()
	db, err := bbolt.Open(filepath.Join(d.dir, instance.DatabaseFile), 0o600, &bbolt.Options{ReadOnly: true, Timeout: 5 * time.Second})
	if err != nil {
		d.t.Fatal(err)
	}
	defer db.Close()
	out := map[string][]byte{}
	err = db.View(func(tx *bbolt.Tx) error {
		for _, name := range []string{"shared", "local"} {
			err := tx.Bucket([]byte(name)).ForEach(func(k, v []byte) error {
				out[string(k)] = slices.Clone(v[8:]) // after the revision
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}
