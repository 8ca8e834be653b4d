package linux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroups is the control group layout of the host: pure version 2, or version 1
// controllers with or without a version 2 tree beside them (cgroups(7)).
type Cgroups struct {
	Unified     string            // mount point of the version 2 tree, or ""
	Controllers map[string]string // version 1 controller to its mount point; empty on a pure version 2 host
	v2          map[string]bool   // controllers that the version 2 tree offers
}

// FindCgroups reads the layout from the mount table.
func FindCgroups() (*Cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unified, controllers := "", map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		switch r[0] {
		case "cgroup2":
			if unified == "" {
				unified = l[4]
			}
		case "cgroup":
			for o := range strings.SplitSeq(r[2], ",") {
				if o == "rw" || o == "ro" {
					continue
				}
				if _, have := controllers[o]; !have {
					controllers[o] = l[4]
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return NewCgroups(unified, controllers)
}

// NewCgroups is the layout with the given mount points, either of which may be
// empty; see the fields of [Cgroups].
func NewCgroups(unified string, controllers map[string]string) (*Cgroups, error) {
	c := &Cgroups{Unified: unified, Controllers: controllers, v2: map[string]bool{}}
	if unified == "" {
		return c, nil
	}
	data, err := os.ReadFile(filepath.Join(unified, "cgroup.controllers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for name := range strings.FieldsSeq(string(data)) {
		c.v2[name] = true
	}
	return c, nil
}

// V2 reports whether a controller is managed by the version 2 tree.
func (c *Cgroups) V2(controller string) bool {
	_, v1 := c.Controllers[controller]
	return !v1 && c.v2[controller]
}

// Has reports whether a controller can be used at all.
func (c *Cgroups) Has(controller string) bool {
	_, v1 := c.Controllers[controller]
	return v1 || c.v2[controller]
}

// Path is the directory in which a controller's files for group are, or "" if
// the host lacks the controller.
func (c *Cgroups) Path(controller, group string) string {
	if root, ok := c.Controllers[controller]; ok {
		return filepath.Join(root, group)
	}
	if c.Unified != "" {
		return filepath.Join(c.Unified, group)
	}
	return ""
}

// Roots lists every hierarchy's mount point, each once.
func (c *Cgroups) Roots() []string {
	seen := map[string]bool{}
	var out []string
	for _, root := range c.Controllers {
		if !seen[root] {
			seen[root] = true
			out = append(out, root)
		}
	}
	if c.Unified != "" {
		out = append(out, c.Unified)
	}
	return out
}

// Write sets one file of a group.
func (c *Cgroups) Write(controller, group, file, value string) error {
	dir := c.Path(controller, group)
	if dir == "" {
		return fmt.Errorf("no control group controller %s: %w", controller, fs.ErrNotExist)
	}
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Read gives the content of one file of a group without the final newline.
func (c *Cgroups) Read(controller, group, file string) (string, error) {
	dir := c.Path(controller, group)
	if dir == "" {
		return "", fs.ErrNotExist
	}
	data, err := readSmall(dir + "/" + file)
	return strings.TrimSuffix(string(data), "\n"), err
}

// readSmall reads a pseudo file with three system calls; os.ReadFile makes six.
func readSmall(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	if n < len(buf) {
		return buf[:n], nil
	}
	return os.ReadFile(path)
}

// Empty reports whether no process is in the group or below it, in any
// hierarchy. A group that does not exist is empty.
func (c *Cgroups) Empty(group string) (bool, error) {
	for _, root := range c.Roots() {
		empty, err := emptyTree(filepath.Join(root, group))
		if err != nil || !empty {
			return false, err
		}
	}
	return true, nil
}

func emptyTree(dir string) (bool, error) {
	empty := true
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		data, err := readSmall(path + "/cgroup.procs")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err == nil && len(data) > 0 {
			empty = false
			return filepath.SkipAll
		}
		return err
	})
	return empty, err
}

// Kill sends SIGKILL to every process of the group and below, repeatedly until
// none is left or ctx ends. It thaws the group, since a frozen process of
// version 1 does not die.
func (c *Cgroups) Kill(ctx context.Context, group string) error {
	if c.Unified != "" {
		// cgroup.kill (Linux 5.14) takes the whole tree in one go.
		_ = c.writeUnified(group, "cgroup.kill", "1")
	}
	for round := 0; ; round++ {
		left := 0
		for _, root := range c.Roots() {
			for _, pid := range processes(filepath.Join(root, group)) {
				left++
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		_ = c.Freeze(group, false)
		if left == 0 {
			return nil
		}
		if err := pause(ctx, round); err != nil {
			return err
		}
	}
}

func (c *Cgroups) writeUnified(group, file, value string) error {
	return os.WriteFile(filepath.Join(c.Unified, group, file), []byte(value), 0)
}

func processes(dir string) []int {
	var out []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path + "/cgroup.procs")
		if err != nil {
			return nil
		}
		for f := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				out = append(out, pid)
			}
		}
		return nil
	})
	return out
}

// Freeze stops or resumes every process of a group. It returns when the kernel
// has taken the order; Frozen tells when it has been carried out.
func (c *Cgroups) Freeze(group string, frozen bool) error {
	if _, v1 := c.Controllers["freezer"]; v1 {
		state := "THAWED"
		if frozen {
			state = "FROZEN"
		}
		return c.Write("freezer", group, "freezer.state", state)
	}
	value := "0"
	if frozen {
		value = "1"
	}
	return c.writeUnified(group, "cgroup.freeze", value)
}

// Frozen reports whether all processes of a group are stopped.
func (c *Cgroups) Frozen(group string) bool {
	if _, v1 := c.Controllers["freezer"]; v1 {
		s, err := c.Read("freezer", group, "freezer.state")
		return err == nil && s == "FROZEN"
	}
	s, err := c.Read("", group, "cgroup.events")
	return err == nil && strings.Contains(s, "frozen 1")
}

// Remove deletes a group and all below it in every hierarchy. Absent is fine.
func (c *Cgroups) Remove(group string) error {
	var errs []error
	for _, root := range c.Roots() {
		errs = append(errs, removeTree(filepath.Join(root, group)))
	}
	return errors.Join(errs...)
}

// removeTree deletes directories bottom-up; the files in them are the kernel's.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove control group %s: %w", dir, err)
	}
	return nil
}
