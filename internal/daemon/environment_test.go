package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAtLeast(t *testing.T) {
	for _, c := range []struct {
		release string
		want    bool
	}{
		{"6.1.0-18-amd64", true}, {"5.5.0", true}, {"5.4.300", false}, {"4.19", false}, {"10.0-rc1", true}, {"", false}, {"x.y", false},
	} {
		if got := atLeast(c.release, 5, 5); got != c.want {
			t.Errorf("atLeast(%q, 5, 5) = %v, want %v", c.release, got, c.want)
		}
	}
}

func TestOSRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "os-release")
	text := "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if name, version := osRelease(path); name != "Debian GNU/Linux" || version != "12" {
		t.Errorf("got %q, %q", name, version)
	}
	if err := os.WriteFile(path, []byte("NAME=Alpine\nVERSION_ID=3.20\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if name, version := osRelease(path); name != "Alpine" || version != "3.20" {
		t.Errorf("without quotes: got %q, %q", name, version)
	}
	if name, version := osRelease(path + ".absent"); name != "" || version != "" {
		t.Errorf("absent: got %q, %q", name, version)
	}
}

func TestKernelFeatures(t *testing.T) {
	got := kernelFeatures("6.1.0", true)
	for _, key := range []string{
		"idmapped_mounts", "netnsid_getifaddrs", "seccomp_listener", "seccomp_listener_continue", "shiftfs", "uevent_injection", "unpriv_fscaps",
	} {
		if v := got[key]; v != "true" && v != "false" {
			t.Errorf("kernel feature %s is %q", key, v)
		}
	}
	if len(got) != 7 {
		t.Errorf("%d kernel features, want the 7 that LXD's clients know", len(got))
	}
}

func TestLogLevels(t *testing.T) {
	for _, c := range []struct {
		verbose, debug bool
		want           string
	}{
		{false, false, "w e"}, {true, false, "i w e"}, {false, true, "d i w e"},
	} {
		var out bytes.Buffer
		log := slog.New(NewLog(&out, c.verbose, c.debug))
		log.Debug("d")
		log.Info("i")
		log.Warn("w")
		log.Error("e")
		var got []string
		for line := range strings.Lines(out.String()) {
			got = append(got, strings.TrimSpace(line[strings.Index(line, "msg=")+4:]))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("verbose %v, debug %v: logged %q, want %q", c.verbose, c.debug, s, c.want)
		}
	}
}
