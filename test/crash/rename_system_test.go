//go:build system

package crash

import (
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/croft-project/croft/api"
)

// Somebody makes an instance of the very name that another one is about to get.
// One of the two is refused, and nothing of the other is touched.
func TestRenameMeetsCreate(t *testing.T) {
	d := newDaemon(t)
	for range 40 {
		d.create(subject)
		d.setState(subject, "start")
		d.exec(subject, 0, "touch", "/treasure")
		d.setState(subject, "stop")
		var renameErr, createErr error
		g := errgroup.Group{}
		g.Go(func() error {
			op, err := d.c.RenameInstance(d.ctx(), subject, renamed)
			renameErr = wait(d.ctx(), op, err)
			return nil
		})
		g.Go(func() error {
			op, err := d.c.CreateInstance(d.ctx(), fromImage(renamed))
			createErr = wait(d.ctx(), op, err)
			return nil
		})
		_ = g.Wait()
		treasure := renamed
		switch {
		case (renameErr == nil) == (createErr == nil):
			t.Fatalf("rename: %v, create: %v; want one refused", renameErr, createErr)
		case renameErr != nil:
			treasure = subject
			if kind := api.KindOf(renameErr); kind != api.Conflict {
				t.Errorf("rename: %v, of kind %s", renameErr, kind)
			}
		case api.KindOf(createErr) != api.Conflict:
			t.Errorf("create: %v, of kind %s", createErr, api.KindOf(createErr))
		}
		d.setState(treasure, "start")
		d.exec(treasure, 0, "test", "-e", "/treasure")
		d.setState(treasure, "stop")
		for _, n := range d.names() {
			d.delete(n)
		}
	}
}
