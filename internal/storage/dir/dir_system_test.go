//go:build system

package dir_test

import (
	"testing"

	"github.com/croft-project/croft/internal/storage/dir"
	"github.com/croft-project/croft/internal/storage/storagetest"
)

func TestMain(m *testing.M) { storagetest.Main(m, dir.New) }

func TestSuite(t *testing.T) { storagetest.Run(t, dir.New) }

func BenchmarkSuite(b *testing.B) { storagetest.Benchmark(b, dir.New) }
