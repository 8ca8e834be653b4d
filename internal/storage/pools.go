package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// Options are what [NewPools] needs.
type Options struct {
	Dir      string                 // where pools live: <state>/storage-pools
	StageDir string                 // an existing directory; see [StageOptions]
	Drivers  map[string]Constructor // by the name that the API uses
	Log      *slog.Logger
}

// PoolConfig is the part of a pool's record that matters here.
type PoolConfig struct {
	Name   string
	Driver string
	// Source is a directory elsewhere that holds the pool; the default is a
	// directory of the pool's name under [Options.Dir].
	Source string
}

// Pools are the open pools of a daemon. All methods are safe for concurrent use.
type Pools struct {
	Options
	trash *Trash

	mu   sync.Mutex
	open map[string]*Pool
}

// Pool is an open pool: its driver, and what needs no driver.
type Pool struct {
	Driver
	PoolConfig
	Dir      string // where its data is
	stageDir string
}

// NewPools makes an empty set. [Pools.Close] ends its background work.
func NewPools(o Options) *Pools {
	return &Pools{Options: o, trash: NewTrash(o.Log), open: map[string]*Pool{}}
}

// DriverNames lists the drivers that there are, sorted.
func (p *Pools) DriverNames() []string {
	return slices.Sorted(maps.Keys(p.Drivers))
}

// Create makes a new pool and opens it. A source directory must exist and be
// empty.
//
// Errors: Invalid for the name, the driver or the source; Conflict; Unsupported
// when the driver does not work there.
func (p *Pools) Create(ctx context.Context, c PoolConfig) (*Pool, error) {
	pool, err := p.prepare(c)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[c.Name] != nil || c.Source == "" && !emptyOrAbsent(pool.Dir) {
		return nil, api.Errorf(api.Conflict, "storage pool %s: already exists", c.Name)
	}
	undo, err := p.makeDir(pool)
	if err == nil {
		err = pool.Check(ctx)
		if err == nil {
			err = pool.Driver.Create(ctx)
		}
	}
	if err != nil {
		undo()
		return nil, err
	}
	p.open[c.Name] = pool
	return pool, nil
}

// makeDir makes the pool's directory, or the link to its source.
func (p *Pools) makeDir(pool *Pool) (undo func(), err error) {
	link := filepath.Join(p.Options.Dir, pool.Name)
	undo = func() { _ = os.Remove(link) } // an empty directory or a link
	if pool.Source == "" {
		if err := os.MkdirAll(link, 0o711); err != nil {
			return undo, wrap("create storage pool "+pool.Name, err)
		}
		return undo, nil
	}
	if st, err := os.Stat(pool.Source); err != nil || !st.IsDir() || !emptyOrAbsent(pool.Source) {
		return func() {}, api.Errorf(api.Invalid, "storage pool %s: source %q must be an existing, empty directory", pool.Name, pool.Source)
	}
	// The link is for people and scripts that look for pools in one place.
	if err := os.MkdirAll(p.Options.Dir, 0o711); err != nil {
		return func() {}, wrap("create storage pool "+pool.Name, err)
	}
	if err := os.Symlink(pool.Source, link); err != nil && !errors.Is(err, os.ErrExist) {
		return func() {}, wrap("create storage pool "+pool.Name, err)
	}
	return undo, nil
}

func emptyOrAbsent(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	return len(entries) == 0 || len(entries) == 1 && entries[0].Name() == "lost+found"
}

// Open opens a pool that exists and cleans up after a crash. An open pool is
// returned as it is.
//
// Errors: Invalid for the record; NotFound when its directory is gone (a disk
// that is not mounted); Unsupported when the driver does not work here.
func (p *Pools) Open(ctx context.Context, c PoolConfig) (*Pool, error) {
	pool, err := p.prepare(c)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.open[c.Name]; known != nil {
		return known, nil
	}
	if !exists(pool.Dir) {
		return nil, api.Errorf(api.NotFound, "storage pool %s: its directory %s is missing", c.Name, pool.Dir)
	}
	if err := pool.Check(ctx); err != nil {
		return nil, err
	}
	if err := pool.Recover(ctx); err != nil {
		return nil, err
	}
	p.open[c.Name] = pool
	return pool, nil
}

func (p *Pools) prepare(c PoolConfig) (*Pool, error) {
	if c.Name == "" || strings.ContainsAny(c.Name, "/\x00") || strings.HasPrefix(c.Name, ".") || len(c.Name) > 64 {
		return nil, api.Errorf(api.Invalid, "storage pool name %q: must have 1 to 64 characters, no slash and no leading dot", c.Name)
	}
	driver := p.Drivers[c.Driver]
	if driver == nil {
		return nil, api.Errorf(api.Invalid, "storage pool %s: driver %q is not one of %s", c.Name, c.Driver, strings.Join(p.DriverNames(), ", "))
	}
	dir := filepath.Join(p.Options.Dir, c.Name)
	if c.Source != "" {
		if !filepath.IsAbs(c.Source) || filepath.Clean(c.Source) == "/" {
			return nil, api.Errorf(api.Invalid, "storage pool %s: source %q must be an absolute path other than /", c.Name, c.Source)
		}
		dir = filepath.Clean(c.Source)
		if dir == filepath.Join(p.Options.Dir, c.Name) {
			c.Source = "" // the default, spelt out
		}
	}
	pool := &Pool{PoolConfig: c, Dir: dir, stageDir: p.StageDir}
	pool.Driver = driver(Config{Pool: c.Name, Dir: dir, Trash: p.trash, Log: p.Log})
	return pool, nil
}

// Get gives an open pool. Errors: NotFound.
func (p *Pools) Get(name string) (*Pool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pool := p.open[name]; pool != nil {
		return pool, nil
	}
	return nil, api.Errorf(api.NotFound, "storage pool %s: not found", name)
}

// List gives the open pools by name.
func (p *Pools) List() []*Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.open), func(a, b *Pool) int { return strings.Compare(a.Name, b.Name) })
}

// Delete removes an open pool and its data. Errors: NotFound; InUse while there
// are volumes in it.
func (p *Pools) Delete(ctx context.Context, name string) error {
	pool, err := p.Get(name)
	if err != nil {
		return err
	}
	if err := pool.Driver.Delete(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	delete(p.open, name)
	p.mu.Unlock()
	// What others put into a source directory is theirs; ours is empty now.
	err = os.Remove(filepath.Join(p.Options.Dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return wrap("delete storage pool "+name, err)
	}
	return nil
}

// Flush waits until all deleted data is gone.
func (p *Pools) Flush(ctx context.Context) error { return p.trash.Flush(ctx) }

// Close waits for removals in the background, as long as ctx lets it; what is
// left is removed after the next [Pools.Open].
func (p *Pools) Close(ctx context.Context) error {
	if err := p.trash.Close(ctx); err != nil {
		return fmt.Errorf("close storage pools: %w", err)
	}
	return nil
}

// OpenRoot is [OpenRoot] for a volume of the pool.
func (p *Pool) OpenRoot(ctx context.Context, ref Ref) (*os.File, error) {
	root, err := p.Root(ctx, ref)
	if err != nil {
		return nil, err
	}
	return OpenRoot(ctx, root, p.stageDir)
}

// Space tells how many bytes the pool's file system has and how many of them are
// used, and the same for inodes.
type Space struct{ Total, Used, Inodes, InodesUsed uint64 }

// Space asks the file system; statfs(2).
func (p *Pool) Space() (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(p.Dir, &st); err != nil {
		return Space{}, wrap("read the space of storage pool "+p.Name, err)
	}
	block := uint64(st.Bsize)
	return Space{
		Total: st.Blocks * block, Used: (st.Blocks - st.Bfree) * block,
		Inodes: st.Files, InodesUsed: st.Files - st.Ffree,
	}, nil
}
