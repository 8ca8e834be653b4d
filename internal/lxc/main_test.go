package lxc

import (
	"os"
	"testing"

	"github.com/croft-project/croft/api"
)

// The test binary holds the helpers too: helper.c's constructor runs in it.
func testExe(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func kind(err error) api.Kind { return api.KindOf(err) }
