package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"croft": main})
}

// TestScripts runs the command scripts of testdata/script, each against a fake
// server of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "croft") // short enough for a socket
			if err != nil {
				return err
			}
			l, err := net.Listen("unix", filepath.Join(dir, "unix.socket"))
			if err != nil {
				return err
			}
			srv := startFake(l)
			env.Defer(func() {
				srv.Close()
				os.RemoveAll(dir)
			})
			env.Setenv("CROFT_DIR", dir)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else every command takes a second longer under the race detector
			env.Setenv("CROFT_CONF", filepath.Join(env.WorkDir, "conf"))
			return nil
		},
	})
}
