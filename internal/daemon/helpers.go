package daemon

import (
	"maps"

	"github.com/croft-project/croft/internal/helper"
	"github.com/croft-project/croft/internal/image"
)

// Helpers are the functions that the daemon runs in processes of their own, for
// helper.Main in the program's main function. A new package with helpers gets a
// line here.
func Helpers() map[string]helper.Func {
	all := map[string]helper.Func{}
	maps.Copy(all, image.Helpers())
	return all
}
