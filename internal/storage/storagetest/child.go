//go:build system

package storagetest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/internal/storage"
)

type syscallIDMap = syscall.SysProcIDMap

func userNSAttr(ids []syscallIDMap) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Uid: 0, Gid: 0},
	}
}

// imageFile is what a child process is told of an image.
type imageFile struct {
	Fingerprint, File string
	Squashfs          bool
}

func (f imageFile) image() storage.Image {
	img := storage.Image{Fingerprint: f.Fingerprint, RootfsFile: f.File, Squashfs: f.Squashfs}
	if !f.Squashfs {
		img.Unpack = untar(f.File)
	}
	return img
}

func untar(file string) func(context.Context, string) error {
	return func(ctx context.Context, dest string) error {
		return exec.CommandContext(ctx, "tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", dest, "-xpf", file).Run()
	}
}

// Main is the TestMain of a driver's tests: some of the suite's tests run the test
// binary again, as the root of a container or as a daemon to be killed.
func Main(m *testing.M, driver storage.Constructor) {
	var err error
	switch os.Getenv("CROFT_STORAGETEST") {
	case "":
		os.Exit(m.Run())
	case "container":
		err = inContainer(os.Args[1], os.Args[2], os.Args[3:])
	case "churn":
		err = churn(os.Args[1], os.Args[2], driver)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// inContainer does one file operation below root.
func inContainer(op, root string, args []string) error {
	at := func(i int) string { return filepath.Join(root, args[i]) }
	switch op {
	case "write":
		return os.WriteFile(at(0), []byte(args[1]), 0o644)
	case "mkdir":
		return os.MkdirAll(at(0), 0o755)
	case "rename":
		return unix.Rename(at(0), at(1)) // EXDEV without redirect_dir
	case "remove":
		return os.RemoveAll(at(0))
	case "link":
		return os.Link(at(0), at(1))
	case "open":
		f, err := os.OpenFile(at(0), os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err
	case "chown":
		id, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return os.Lchown(at(0), id, id)
	}
	return fmt.Errorf("unknown operation %q", op)
}

// churn makes, copies and deletes volumes until it is killed.
func churn(dir, images string, driver storage.Constructor) error {
	var all []imageFile
	if err := json.Unmarshal([]byte(images), &all); err != nil {
		return err
	}
	ctx := context.Background()
	pool, err := openPools(dir, driver).Open(ctx, poolConfig)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for i := 0; ; i++ {
		img := all[i%len(all)].image()
		a, b := storage.Ref{Name: fmt.Sprint("a", i)}, storage.Ref{Name: fmt.Sprint("b", i)}
		for _, step := range []func() error{
			func() error { return pool.Clone(ctx, a, img) },
			func() error { return pool.Copy(ctx, a, b) },
			func() error { return pool.DeleteVolume(ctx, a) },
			func() error { return pool.Rename(ctx, b, a) },
			func() error { return pool.DeleteImage(ctx, img.Fingerprint) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
		if i%2 == 0 {
			if err := pool.DeleteVolume(ctx, a); err != nil {
				return err
			}
		}
	}
}
