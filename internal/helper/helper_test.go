package helper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/croft-project/croft/api"
)

type echo struct{ Text string }

// testHelpers is the table of the test binary; systemHelpers adds to it.
var testHelpers = map[string]Func{
	"echo": Handle(func(_ context.Context, req echo, files []*os.File) (echo, error) {
		for _, f := range files {
			b, err := io.ReadAll(f)
			if err != nil {
				return echo{}, err
			}
			req.Text += string(b)
		}
		return req, nil
	}),
	"refuse": func(context.Context, json.RawMessage, []*os.File) (any, error) {
		return nil, fmt.Errorf("outer: %w", api.Errorf(api.NoSpace, "disk full").WithHint("free some"))
	},
	"crash": func(context.Context, json.RawMessage, []*os.File) (any, error) {
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(7)
		return nil, nil
	},
	"hang": func(context.Context, json.RawMessage, []*os.File) (any, error) {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return nil, errors.Join(os.WriteFile(os.Getenv("PIDFILE")+".tmp", []byte(strconv.Itoa(cmd.Process.Pid)), 0o600),
			os.Rename(os.Getenv("PIDFILE")+".tmp", os.Getenv("PIDFILE")), cmd.Wait())
	},
	"environment": func(context.Context, json.RawMessage, []*os.File) (any, error) {
		return os.Environ(), nil
	},
}

func TestMain(m *testing.M) {
	if code, ok := Main(os.Args, testHelpers); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func TestRunReturnsTheReply(t *testing.T) {
	f, err := os.Open(write(t, "from a file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Call[echo](t.Context(), &Runner{}, "echo", echo{"hello "}, []*os.File{f}, nil)
	if err != nil || got.Text != "hello from a file" {
		t.Errorf("Call = %q, %v", got.Text, err)
	}
}

func TestRunCarriesLargeMessages(t *testing.T) {
	text := strings.Repeat("x", 3<<20)
	got, err := Call[echo](t.Context(), &Runner{}, "echo", echo{text}, nil, nil)
	if err != nil || got.Text != text {
		t.Errorf("got %d bytes, %v", len(got.Text), err)
	}
}

func TestErrorsKeepKindMessageAndHint(t *testing.T) {
	_, err := (&Runner{}).Run(t.Context(), "refuse", nil, nil, nil)
	if !errors.Is(err, api.NoSpace) || err.Error() != "outer: disk full" || api.HintOf(err) != "free some" {
		t.Errorf("got %v (kind %v, hint %q)", err, api.KindOf(err), api.HintOf(err))
	}
}

func TestCrashTellsTheLastWords(t *testing.T) {
	_, err := (&Runner{}).Run(t.Context(), "crash", nil, nil, nil)
	if !errors.Is(err, api.Internal) || !errors.Is(err, ErrDied) || !strings.Contains(err.Error(), "last words") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("got %v", err)
	}
}

func TestUnknownHelperAndBinary(t *testing.T) {
	if _, err := (&Runner{}).Run(t.Context(), "no-such", nil, nil, nil); err == nil || !strings.Contains(err.Error(), "no-such") {
		t.Errorf("unknown name: %v", err)
	}
	r := Runner{Exe: filepath.Join(t.TempDir(), "absent")}
	if _, err := r.Run(t.Context(), "echo", nil, nil, nil); !errors.Is(err, api.Internal) {
		t.Errorf("absent binary: %v", err)
	}
}

func TestCancelKillsTheGroup(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := (&Runner{Env: []string{"PIDFILE=" + pidfile}}).Run(ctx, "hang", nil, nil, nil)
		done <- err
	}()
	pid := waitForPid(t, pidfile)
	cancel()
	if err := <-done; !errors.Is(err, api.Canceled) {
		t.Errorf("Run = %v, want canceled", err)
	}
	waitGone(t, pid)
}

func TestHelperEndsWithItsParent(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	c, err := (&Runner{Env: []string{"PIDFILE=" + pidfile}}).start(t.Context(), "hang", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.reply.Close()
	if _, err := c.request.WriteString(`{"files":0,"request":null}` + "\n"); err != nil {
		t.Fatal(err)
	}
	pid := waitForPid(t, pidfile)
	c.request.Close() // what a killed parent does
	if err := c.cmd.Wait(); err == nil {
		t.Error("helper ended well without its parent")
	}
	waitGone(t, pid)
}

func TestEnvironmentIsFixed(t *testing.T) {
	t.Setenv("SECRET", "1")
	env, err := Call[[]string](t.Context(), &Runner{}, "environment", nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.Join(env, " "), "SECRET") {
		t.Errorf("environment leaks: %v", env)
	}
}

func TestMainIgnoresOtherPrograms(t *testing.T) {
	for _, args := range [][]string{nil, {"croftd"}, {"croftd", "--group", "root"}} {
		if _, ok := Main(args, nil); ok {
			t.Errorf("Main(%q) took over", args)
		}
	}
}

func TestServeRefusesGarbage(t *testing.T) {
	for _, in := range []string{"", "{", "not json\n"} {
		cmd := exec.Command("/proc/self/exe", Arg, "echo")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.ExtraFiles, cmd.Stderr = []*os.File{r, os.Stdout}, &stderr
		go func() { _, _ = io.WriteString(w, in); w.Close() }()
		if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "request") {
			t.Errorf("request %q: %v, %s", in, err, stderr.String())
		}
		r.Close()
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// waitForPid polls because the file appears in another process.
func waitForPid(t *testing.T, file string) int {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(file); err == nil {
			pid, err := strconv.Atoi(string(b))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("helper never started its program")
	return 0
}

// waitGone accepts a zombie: init of the test's container may not reap.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	t.Errorf("process %d outlived the helper", pid)
}
