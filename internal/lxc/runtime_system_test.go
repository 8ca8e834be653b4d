//go:build system

package lxc

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/internal/linux"
)

const testBase = 700000000

// guest makes a busybox root whose init writes to its console and waits.
func guest(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, d := range []string{"bin", "sbin", "dev", "proc", "sys", "etc", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", "/bin/busybox", filepath.Join(root, "bin/busybox")).CombinedOutput(); err != nil {
		t.Fatalf("copy busybox: %v: %s", err, out)
	}
	if out, err := exec.Command("/bin/busybox", "--list-full").Output(); err != nil {
		t.Fatal(err)
	} else {
		for _, name := range strings.Fields(string(out)) {
			link := filepath.Join(root, name)
			os.MkdirAll(filepath.Dir(link), 0o755)
			os.Symlink("/bin/busybox", link)
		}
	}
	os.Remove(filepath.Join(root, "sbin/init"))
	init := "#!/bin/sh\ntrap 'exit 0' PWR TERM\necho booted\nwhile :; do sleep 1000 & wait $!; done\n"
	if err := os.WriteFile(filepath.Join(root, "sbin/init"), []byte(init), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

type fixture struct {
	*Runtime
	dir, name, conf string
	pids            Pids
	cgroups         *linux.Cgroups
	prefix          string
}

func startGuest(t *testing.T) *fixture {
	t.Helper()
	root, dir := guest(t), t.TempDir()
	os.Chmod(dir, 0o711)
	f := &fixture{dir: dir, name: "c1", conf: filepath.Join(dir, "lxc.conf"), prefix: fmt.Sprintf("croft-lxctest-%d", os.Getpid())}
	// The container's root user has to reach the stage; temporary directories are
	// closed to it.
	stage, err := os.MkdirTemp("/run", "croft-lxctest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(stage) })
	os.Chmod(stage, 0o711)
	f.Runtime = &Runtime{Exe: testExe(t), LXCPath: stage, BinDir: filepath.Join(dir, "bin")}
	for _, d := range []string{f.BinDir, stage} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if f.cgroups, err = linux.FindCgroups(); err != nil {
		t.Fatal(err)
	}
	policy, err := Seccomp(SeccompConfig{}, "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	idmap := linux.IDMap{{ContainerID: 0, HostID: testBase, Count: 65536, UID: true, GID: true}}
	text, err := Render(Spec{
		Name: f.name, Hostname: f.name, Architecture: "x86_64", Rootfs: stage + "/rootfs", MountPoint: stage + "/mnt", IDMap: idmap,
		PayloadCgroup: f.prefix + "/c1/payload", MonitorCgroup: f.prefix + "/c1/monitor", PivotCgroup: f.prefix + "/pivot",
		LogFile: dir + "/lxc.log", ConsoleLog: dir + "/console.log", SeccompPolicy: dir + "/seccomp", HybridCgroups: len(f.cgroups.Controllers) > 0,
	})
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(f.conf, []byte(text), 0o600)
	os.WriteFile(dir+"/seccomp", []byte(policy), 0o600)
	lock, err := os.Create(dir + "/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	begin := time.Now()
	f.pids, err = f.Start(t.Context(), StartRequest{
		Name: f.name, Conf: f.conf, PidFile: dir + "/pids", LogFile: dir + "/lxc.log", Lock: lock,
		Keep: []string{"/proc", "/sys", "/dev", stage},
		Stage: func() error {
			ns, err := linux.UserNS(idmap)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Mount("tmpfs", stage, "tmpfs", 0, "mode=0711"); err != nil {
				return err
			}
			os.Mkdir(stage+"/rootfs", 0o755)
			os.Mkdir(stage+"/mnt", 0o755)
			mnt, err := linux.CloneMount(root, false)
			if err != nil {
				return err
			}
			defer mnt.Close()
			if err := linux.SetIDMap(mnt, ns, false); err != nil {
				return err
			}
			return linux.MoveMount(mnt, stage+"/rootfs")
		},
	})
	if err != nil {
		log, _ := os.ReadFile(dir + "/lxc.log")
		t.Fatalf("start: %v\n%s\n%s", err, log, text)
	}
	t.Logf("start took %v", time.Since(begin))
	t.Cleanup(func() { f.stop(t) })
	return f
}

func (f *fixture) stop(t *testing.T) {
	monitor, err := linux.OpenProcess(f.pids.Monitor)
	if err == nil {
		begin := time.Now()
		if init, err := linux.OpenProcess(f.pids.Init); err == nil {
			init.Signal(unix.SIGKILL)
			init.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := monitor.Wait(ctx); err != nil {
			t.Errorf("monitor did not end: %v", err)
		}
		monitor.Close()
		t.Logf("stop took %v", time.Since(begin))
	}
	if empty, err := f.cgroups.Empty(f.prefix + "/c1"); err != nil || !empty {
		t.Errorf("control groups after stop: empty %v, %v", empty, err)
	}
	if err := f.cgroups.Remove(f.prefix); err != nil {
		t.Error(err)
	}
	f.RemoveLock(f.name)
}

func (f *fixture) exec(t *testing.T, stdin string, args ...string) (out, errOut string, code int) {
	t.Helper()
	stdio, err := NewPipes(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s, err := f.Exec(t.Context(), ExecRequest{
		Name: f.name, Conf: f.conf, Socket: filepath.Join(f.dir, "session"), Stdio: stdio,
		Command: Command{Args: args, Cwd: "/root", Env: []Variable{{"PATH", "/bin:/sbin:/usr/bin"}, {"X", "a=b"}}},
	})
	if err != nil {
		t.Fatalf("exec %v: %v", args, err)
	}
	defer s.Done()
	t.Logf("exec took %v", time.Since(begin))
	io.WriteString(s.Files[0], stdin)
	if err := s.CloseInput(); err != nil {
		t.Error(err)
	}
	o, err := io.ReadAll(s.Files[1])
	if err != nil {
		t.Error(err)
	}
	e, _ := io.ReadAll(s.Files[2])
	code, err = s.Wait(t.Context())
	if err != nil {
		t.Error(err)
	}
	t.Logf("all took %v", time.Since(begin))
	return string(o), string(e), code
}

func TestStartExecStop(t *testing.T) {
	f := startGuest(t)
	out, errOut, code := f.exec(t, "typed\n", "sh", "-c", `read v; echo "$v $X $(pwd) $(id -u)"; echo bad >&2; exit 42`)
	if out != "typed a=b /root 0\n" || errOut != "bad\n" || code != 42 {
		t.Errorf("exec gave %q, %q, %d", out, errOut, code)
	}
	out, _, _ = f.exec(t, "", "cat", "/proc/self/uid_map", "/proc/self/cgroup", "/proc/self/status")
	if !strings.Contains(out, "700000000      65536") {
		t.Errorf("the command is not in the container's user namespace:\n%s", out)
	}
	if !strings.Contains(out, "Seccomp:\t2") {
		t.Errorf("the command has no seccomp filter:\n%s", out)
	}
	if _, _, code := f.exec(t, "", "sh", "-c", "kill -9 $$"); code != 137 {
		t.Errorf("a killed command gives %d, want 137", code)
	}
}

func TestTerminalAndAdopt(t *testing.T) {
	f := startGuest(t)
	stdio, err := NewTerminal(f.pids.Init.PID, testBase, testBase, 111, 33)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(f.dir, "session")
	s, err := f.Exec(t.Context(), ExecRequest{
		Name: f.name, Conf: f.conf, Socket: socket, Stdio: stdio,
		Command: Command{Args: []string{"sh", "-c", "stty size; tty; read x; echo again $x; exit 5"}, Cwd: "/", Env: []Variable{{"PATH", "/bin:/usr/bin"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	read := func(file *os.File, want string) {
		t.Helper()
		var all strings.Builder
		buf := make([]byte, 1024)
		file.SetReadDeadline(time.Now().Add(10 * time.Second))
		for !strings.Contains(all.String(), want) {
			n, err := file.Read(buf)
			if err != nil {
				t.Fatalf("waiting for %q, got %q: %v", want, all.String(), err)
			}
			all.Write(buf[:n])
		}
	}
	read(s.Files[0], "33 111\r\n/dev/pts/")
	s.Leave() // as a daemon that dies
	again, err := Adopt(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Done()
	if again.PID != s.PID {
		t.Errorf("adopted pid %d, want %d", again.PID, s.PID)
	}
	io.WriteString(again.Files[0], "adopted\n")
	read(again.Files[0], "again adopted")
	if code, err := again.Wait(t.Context()); code != 5 || err != nil {
		t.Errorf("adopted session ended with %d, %v", code, err)
	}
}

func TestExecFailures(t *testing.T) {
	f := startGuest(t)
	for _, c := range []struct {
		cwd, arg string
		want     string
	}{
		{"/", "nosuchprogram", "not-found"},
		{"/", "/etc", "invalid"},
		{"/nosuchdir", "true", "not-found"},
	} {
		stdio, err := NewPipes(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Exec(t.Context(), ExecRequest{
			Name: f.name, Conf: f.conf, Socket: filepath.Join(f.dir, "session"), Stdio: stdio,
			Command: Command{Args: []string{c.arg}, Cwd: c.cwd, Env: []Variable{{"PATH", "/bin"}}},
		})
		if err == nil || fmt.Sprint(kind(err)) != c.want {
			t.Errorf("exec %q in %q: %v, want %s", c.arg, c.cwd, err, c.want)
		}
	}
}
