//go:build system

package crash

import (
	"os"
	"testing"

	"github.com/croft-project/croft/test/systest"
)

// croftd is the daemon under test.
var croftd string

// TestMain runs the tests in network and mount namespaces of their own.
func TestMain(m *testing.M) {
	os.Exit(systest.Main(m, nil, func(dir string) (err error) {
		croftd, err = systest.Program(dir, "croftd")
		return err
	}))
}
