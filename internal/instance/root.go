package instance

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/storage"
)

// rootLinger is how long the mount of a stopped instance is kept for the next
// request.
const rootLinger = 3 * time.Second

// openRoot is the mount of a stopped instance's root. It is used under the
// instance's lock and is gone before the instance starts.
type openRoot struct {
	dir   *os.File
	timer *time.Timer
	once  sync.Once
}

func (r *openRoot) close() {
	r.once.Do(func() {
		r.timer.Stop()
		r.dir.Close()
	})
}

// tree is the root of an instance for file work, with the ids that what is made
// there has to have.
type tree struct {
	root  *os.File
	idmap linux.IDMap // nil where files are as the container sees them
	done  func()
}

// as runs fn with the file system identity of the container's root user.
func (t *tree) as(fn func() error) error {
	uid, _ := t.idmap.HostUID(0)
	gid, _ := t.idmap.HostGID(0)
	return linux.AsFSUser(int(uid), int(gid), fn)
}

// ids maps ids of the container to those to give to files.
func (t *tree) ids(uid, gid int64) (int, int, error) { return hostIDs(t.idmap, uid, gid) }

// inside maps ids of files to the container's; unmapped ones are nobody.
func (t *tree) inside(uid, gid uint32) (int64, int64) {
	if t.idmap == nil {
		return int64(uid), int64(gid)
	}
	back := func(id uint32) int64 {
		for _, e := range t.idmap {
			if n := int64(id) - e.HostID; n >= 0 && n < e.Count {
				return e.ContainerID + n
			}
		}
		return 65534
	}
	return back(uid), back(gid)
}

// openTree gives access to an instance's files: through its init's root when it
// runs, through a mount of our own when it is stopped. The caller calls done
// when it has looked up what it needs; files opened by then stay usable.
func (e *Engine) openTree(ctx context.Context, project, name string) (*tree, error) {
	l, err := e.load(ctx, project, name, false)
	if err != nil {
		return nil, err
	}
	if t, err := e.runningTree(project, name); t != nil || err != nil {
		return t, err
	}
	release, err := e.Locks.Acquire(ctx, owner("", "having its files accessed"), lockKey(project, name))
	if err != nil {
		return nil, err
	}
	if t, err := e.runningTree(project, name); t != nil || err != nil {
		release()
		return t, err
	}
	root, err := e.stoppedRoot(ctx, l)
	if err != nil {
		release()
		return nil, err
	}
	return &tree{root: root, done: release}, nil
}

func (e *Engine) runningTree(project, name string) (*tree, error) {
	l := e.liveOf(project, name)
	if l == nil {
		return nil, nil
	}
	l.mu.Lock()
	init := l.init
	l.mu.Unlock()
	root, err := os.OpenFile("/proc/"+strconv.Itoa(init.PID)+"/root", os.O_RDONLY, 0)
	if err != nil {
		return nil, api.Errorf(api.BadState, "the files of instance %s cannot be reached; it is stopping: %w", name, err)
	}
	// The process was this container's init when its root was opened, or its
	// handle says that it has ended.
	if init.Exited() {
		root.Close()
		return nil, api.Errorf(api.BadState, "instance %s is stopping", name)
	}
	return &tree{root: root, idmap: l.idmap, done: func() { root.Close() }}, nil
}

// stoppedRoot mounts the root of a stopped instance, or takes the mount of the
// request before.
func (e *Engine) stoppedRoot(ctx context.Context, l *loaded) (*os.File, error) {
	key := model.InstanceKey(l.Project, l.Name)
	e.mu.Lock()
	r := e.roots[key]
	e.mu.Unlock()
	if r != nil {
		// Also when its time was over just now: it is closed under the instance's
		// lock only, and two mounts on one upper directory would corrupt it.
		r.timer.Reset(rootLinger)
		return r.dir, nil
	}
	driver, err := e.Pools.Pool(ctx, l.Pool)
	if err != nil {
		return nil, err
	}
	plan, err := driver.Root(ctx, storage.Ref{Project: l.Project, Name: l.Name})
	if err != nil {
		return nil, err
	}
	dir, err := storage.OpenRoot(ctx, plan, e.stageDir())
	if err != nil {
		return nil, err
	}
	r = &openRoot{dir: dir}
	r.timer = time.AfterFunc(rootLinger, func() { e.expireRoot(l.Project, l.Name, r) })
	e.mu.Lock()
	e.roots[key] = r
	e.mu.Unlock()
	return dir, nil
}

// expireRoot closes a mount that has not been used for a while, unless a request
// is under way, which then holds the instance's lock.
func (e *Engine) expireRoot(project, name string, r *openRoot) {
	release, err := e.Locks.TryAcquire(owner("", "having its files closed"), lockKey(project, name))
	if err != nil {
		if errors.Is(err, api.Busy) && e.ctx.Err() == nil {
			r.timer.Reset(rootLinger)
		}
		return
	}
	defer release()
	key := model.InstanceKey(project, name)
	e.mu.Lock()
	if e.roots[key] == r {
		delete(e.roots, key)
	}
	e.mu.Unlock()
	r.close()
}

// closeRoot ends the mount of a stopped instance. The caller holds its lock.
func (e *Engine) closeRoot(project, name string) {
	key := model.InstanceKey(project, name)
	e.mu.Lock()
	r := e.roots[key]
	delete(e.roots, key)
	e.mu.Unlock()
	if r != nil {
		r.close()
	}
}
