package lxc

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/croft-project/croft/internal/linux"
)

// A keeper that does not answer must not keep a daemon from starting.
func TestAdoptSilentKeeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	keeper, err := listenPacket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Adopt(ctx, path); !errors.Is(err, linux.ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
}
