package image

import (
	"os"
	"testing"

	"github.com/croft-project/croft/internal/helper"
)

// TestMain lets the test binary serve as its own helpers.
func TestMain(m *testing.M) {
	if code, ok := helper.Main(os.Args, Helpers()); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}
