//go:build system

package helper

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

type attempt struct {
	WriteOutside, WriteInside, LinkAcross, ReadSecret, ReadGranted, ReadSystem, Mount string
	Links                                                                             int
	UID                                                                               int
	CapEff, NoNewPrivs                                                                string
	Pid                                                                               int
	OpenFiles                                                                         uint64
}

type attemptRequest struct{ Dir, Outside, Secret, Granted string }

func init() {
	testHelpers["attempt"] = Handle(func(_ context.Context, req attemptRequest, _ []*os.File) (attempt, error) {
		var a attempt
		a.WriteOutside = text(os.WriteFile(filepath.Join(req.Outside, "x"), nil, 0o600))
		a.WriteInside = text(os.WriteFile(filepath.Join(req.Dir, "x"), []byte("in"), 0o644))
		_ = os.Mkdir(filepath.Join(req.Dir, "d"), 0o755)
		a.LinkAcross = text(os.Link(filepath.Join(req.Dir, "x"), filepath.Join(req.Dir, "d/y")))
		_, err := os.ReadFile(req.Secret)
		a.ReadSecret = text(err)
		_, err = os.ReadFile(req.Granted)
		a.ReadGranted = text(err)
		_, err = os.ReadFile("/usr/bin/env")
		a.ReadSystem = text(err)
		a.Mount = text(unix.Mount("none", req.Dir, "tmpfs", 0, ""))
		if ifs, err := net.Interfaces(); err == nil {
			a.Links = len(ifs)
		}
		a.UID, a.Pid = os.Getuid(), os.Getpid()
		a.CapEff, a.NoNewPrivs = status("CapEff"), status("NoNewPrivs")
		var lim unix.Rlimit
		_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
		a.OpenFiles = lim.Max
		return a, nil
	})
	testHelpers["exec-true"] = func(ctx context.Context, _ json.RawMessage, _ []*os.File) (any, error) {
		return nil, nil
	}
}

func text(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

func status(key string) string {
	b, _ := os.ReadFile("/proc/thread-self/status")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestConfinement(t *testing.T) {
	inside, outside := t.TempDir(), t.TempDir()
	secret, granted := write(t, "secret"), write(t, "granted")
	for _, uid := range []uint32{0, 65534} {
		if err := errors.Join(os.Chmod(inside, 0o777), os.Chmod(granted, 0o644), os.Chmod(filepath.Dir(granted), 0o755),
			os.RemoveAll(inside+"/x"), os.RemoveAll(inside+"/d")); err != nil {
			t.Fatal(err)
		}
		got, err := Call[attempt](t.Context(), &Runner{}, "attempt", attemptRequest{inside, outside, secret, granted}, nil, &Confine{
			UID: uid, GID: uid, Caps: []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE}, NoNetwork: true, PIDs: true, Files: true,
			Writable: []string{inside}, Readable: []string{granted}, Limits: map[int]uint64{unix.RLIMIT_NOFILE: 99},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.WriteInside != "ok" || got.LinkAcross != "ok" || got.ReadGranted != "ok" || got.ReadSystem != "ok" {
			t.Errorf("uid %d: allowed things fail: %+v", uid, got)
		}
		if got.WriteOutside == "ok" || got.ReadSecret == "ok" || got.Mount == "ok" {
			t.Errorf("uid %d: forbidden things work: %+v", uid, got)
		}
		if got.UID != int(uid) || got.CapEff != "0000000000000003" || got.NoNewPrivs != "1" || got.Pid != 1 || got.Links != 1 || got.OpenFiles != 99 {
			t.Errorf("uid %d: wrong identity: %+v", uid, got)
		}
	}
	if _, err := os.Stat(filepath.Join(outside, "x")); err == nil {
		t.Error("file written outside")
	}
}

func TestConfinementLeavesTheParentAlone(t *testing.T) {
	before := status("CapBnd") + status("NoNewPrivs")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	c := &Confine{NoNetwork: true, PIDs: true, Files: true, Writable: []string{t.TempDir()}}
	for range 20 {
		if _, err := (&Runner{}).Run(t.Context(), "exec-true", nil, nil, c); err != nil {
			t.Fatal(err)
		}
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != string(mounts) || before != status("CapBnd")+status("NoNewPrivs") {
		t.Error("the parent's mounts or rights changed")
	}
}

func BenchmarkRun(b *testing.B) {
	for name, c := range map[string]*Confine{"plain": nil, "confined": {NoNetwork: true, PIDs: true, Files: true}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := (&Runner{}).Run(b.Context(), "exec-true", nil, nil, c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
