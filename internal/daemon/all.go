package daemon

import (
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/storage/dir"
	"github.com/croft-project/croft/internal/storage/overlay"
)

// drivers are the storage drivers that there are. A new one gets a line here.
func drivers() map[string]storage.Constructor {
	return map[string]storage.Constructor{
		"dir":     dir.New,
		"overlay": overlay.New,
	}
}
