//go:build system

package storagetest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/storage"
)

// Benchmark measures what a driver adds to the life of an instance.
func Benchmark(b *testing.B, driver storage.Constructor) {
	f := newFixture(b, driver)
	ref := func(i int) storage.Ref { return storage.Ref{Name: fmt.Sprint("b", i)} }
	ctx := b.Context()
	b.Run("UserNS", func(b *testing.B) {
		for b.Loop() {
			ns, err := linux.UserNS(idmap)
			must(b, err)
			ns.Close()
		}
	})
	b.Run("PrivateNS", func(b *testing.B) {
		for b.Loop() {
			must(b, linux.PrivateNS(ctx, func() error { return nil }))
		}
	})
	must(b, f.pool.EnsureImage(ctx, f.squashfs))
	b.Run("Clone", func(b *testing.B) {
		i := 0
		for b.Loop() {
			must(b, f.pool.Clone(ctx, ref(i), f.squashfs))
			i++
		}
		for i--; i >= 0; i-- {
			must(b, f.pool.DeleteVolume(ctx, ref(i)))
		}
		must(b, f.pools.Flush(ctx))
	})
	b.Run("DeleteVolume", func(b *testing.B) {
		for i := range b.N {
			must(b, f.pool.Clone(ctx, ref(i), f.squashfs))
		}
		b.ResetTimer()
		for i := range b.N {
			must(b, f.pool.DeleteVolume(ctx, ref(i)))
		}
		b.StopTimer()
		must(b, f.pools.Flush(ctx))
	})
	must(b, f.pool.Clone(ctx, c1, f.squashfs))
	for name, detach := range map[string]bool{"Stage": false, "StageDetach": true} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				must(b, f.stage(b, c1, storage.StageOptions{}, func(root string) error {
					if !detach {
						return nil
					}
					return linux.DetachHostMounts([]string{"/proc", "/sys", "/dev", filepath.Dir(root)})
				}))
			}
		})
	}
	b.Run("OpenRoot", func(b *testing.B) {
		for b.Loop() {
			tree, err := f.pool.OpenRoot(ctx, c1)
			must(b, err)
			tree.Close()
		}
	})
}
