// Package bolt is the embedded store: one bbolt file, made durable commit by
// commit, behind a consistent view in memory.
//
// All records are held in memory as an immutable, sorted snapshot that each
// commit replaces. A View therefore neither takes a lock nor touches the file; a
// List returns a part of the snapshot as it is. An Update collects its changes
// in memory, writes them to the file in one bbolt transaction together with
// their log entry, and swaps the snapshot when that is on disk.
//
// The file has four buckets: "shared" and "local" (key → 8 bytes of revision,
// then the value), "log" (revision → one store.Batch as JSON; the last
// [Options.LogLimit] commits) and "meta" (format, revision).
package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/store"
)

// Options of [Open]. Only Path is required.
type Options struct {
	// Path of the database file, made with mode 0600. Its directory belongs to
	// the store alone: it is made, or set to, mode 0700.
	Path string
	// Log gets what is worth knowing about opening and repair; nil discards.
	Log *slog.Logger
	// Now is the clock of the transactions; nil means time.Now.
	Now func() time.Time
	// LockWait is how long Open waits for another process to let go of the
	// file; 0 means one second.
	LockWait time.Duration
	// LogLimit is how many commits a watcher can be behind; 0 means 1024. Memory
	// and disk use grow with it, up to LogBytes.
	LogLimit int
	// LogBytes bounds the values held for watchers in memory; 0 means 4 MiB.
	LogBytes int
	// Backups is how many copies of the file Open keeps in its directory,
	// taken when it is opened and has changed since the last one; 0 means none.
	Backups int
	// Reserve is how many bytes of disk the file holds beyond its size, so that
	// commits go on for a while when others fill the disk; 0 means none. It is
	// renewed by Open, as far as there is space; file systems that write each
	// block to a new place (btrfs) cannot hold any.
	Reserve int64
	// MaxBytes makes commits fail with NoSpace when the file would outgrow it; 0
	// means no limit.
	MaxBytes int
}

// DB is an open database. It implements store.Store.
type DB struct {
	opts Options
	db   *bbolt.DB
	log  *commitLog
	snap atomic.Pointer[snapshot]

	writer  chan struct{} // holds one token: the right to commit
	closing chan struct{} // closed by Close
	once    sync.Once
	watches sync.WaitGroup
	watchMu sync.Mutex // orders watches.Add before the Wait of Close

	broken error // guarded by writer: set when the file may differ from the snapshot
}

var _ store.Store = (*DB)(nil)

// Open opens or creates the database. Errors: Unavailable when another process
// keeps the file locked; Internal when the file is damaged, with the newest
// backup in the hint; NoSpace.
func Open(ctx context.Context, opts Options) (*DB, error) {
	opts = opts.withDefaults()
	if err := store.ContextError(ctx, "open database"); err != nil {
		return nil, err
	}
	if err := prepareDir(opts.Path); err != nil {
		return nil, err
	}
	d, err := openFile(opts)
	if err != nil {
		return nil, err
	}
	if opts.Backups > 0 {
		if err := d.rotate(ctx); err != nil {
			// A full disk must not keep the daemon from starting.
			opts.Log.Warn("database could not be backed up", "path", opts.Path, "err", err)
		}
	}
	return d, nil
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.LockWait == 0 {
		o.LockWait = time.Second
	}
	if o.LogLimit == 0 {
		o.LogLimit = 1024
	}
	if o.LogBytes == 0 {
		o.LogBytes = 4 << 20
	}
	return o
}

// prepareDir makes the file's directory private, whatever the umask is.
func prepareDir(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ioError("create database directory", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return ioError("protect database directory", err)
	}
	return nil
}

func openFile(opts Options) (*DB, error) {
	var file *os.File // to let go of the lock when bbolt gives up halfway
	bo := &bbolt.Options{
		Timeout:      opts.LockWait,
		FreelistType: bbolt.FreelistMapType,
		MaxSize:      opts.MaxBytes,
		NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	}
	d := &DB{opts: opts, writer: make(chan struct{}, 1), closing: make(chan struct{})}
	err := contain(func() (err error) {
		if d.db, err = bbolt.Open(opts.Path, 0o600, bo); err != nil {
			return err
		}
		return d.load()
	})
	if err != nil {
		// Not with bbolt's Close: it may wait for a lock that a panic left taken.
		if file != nil {
			_ = file.Close()
		}
		return nil, openError(opts.Path, err)
	}
	if err := protect(opts.Path, file); err != nil {
		_ = d.db.Close()
		return nil, err
	}
	if opts.Reserve > 0 {
		if err := reserve(file, opts.Reserve); err != nil {
			opts.Log.Warn("disk space could not be reserved for the database", "path", opts.Path, "err", err)
		}
	}
	return d, nil
}

// reserve allocates the file's holes and extra bytes behind its end.
// FALLOC_FL_KEEP_SIZE: bbolt takes the size of the file for its own to set.
// Source: fallocate(2).
func reserve(file *os.File, extra int64) error {
	fi, err := file.Stat()
	if err != nil {
		return ioError("inspect database", err)
	}
	return ioError("reserve disk space", unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, fi.Size()+extra))
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return api.Errorf(api.Unavailable, "database %s is locked by another process", path).
			WithHint("is another croftd using this state directory? see: fuser %s", path)
	case isIO(err), errors.Is(err, berrors.ErrMaxSizeReached):
		return ioError("open database "+path, err)
	}
	return damaged(path, err)
}

// protect narrows the mode of a file that somebody has widened, and makes the
// name of a new file as durable as its contents.
func protect(path string, file *os.File) error {
	if err := file.Chmod(0o600); err != nil {
		return ioError("protect database", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return ioError("sync database directory", err)
	}
	defer func() { _ = f.Close() }()
	return ioError("sync database directory", f.Sync())
}

// View runs fn on the newest snapshot. See store.Store.
func (d *DB) View(ctx context.Context, fn func(store.Tx) error) error {
	if err := d.usable(ctx, "read database"); err != nil {
		return err
	}
	tx := &viewTx{snap: d.snap.Load(), now: d.opts.Now().UTC()}
	defer func() { tx.done = true }()
	return fn(tx)
}

// Update runs fn and commits its changes. See store.Store.
func (d *DB) Update(ctx context.Context, fn func(store.Tx) error) error {
	if err := d.usable(ctx, "write database"); err != nil {
		return err
	}
	select {
	case d.writer <- struct{}{}:
	case <-ctx.Done():
		return store.ContextError(ctx, "wait to write database")
	case <-d.closing:
		return d.usable(ctx, "write database")
	}
	defer func() { <-d.writer }()
	if err := d.usable(ctx, "write database"); err != nil {
		return err
	}
	if d.broken != nil {
		return api.Errorf(api.Unavailable, "database %s takes no changes after a failed write: %w", d.opts.Path, d.broken).
			WithHint("check the disk, then restart croftd")
	}
	tx := &updateTx{viewTx: viewTx{snap: d.snap.Load(), now: d.opts.Now().UTC()}}
	defer func() { tx.done = true }()
	if err := fn(tx); err != nil {
		return err
	}
	batch, next, changed := tx.finish()
	if !changed {
		return nil
	}
	return d.commit(batch, next)
}

// Watch follows the log of commits. See store.Store.
func (d *DB) Watch(ctx context.Context, from store.Rev) (<-chan store.Batch, error) {
	d.watchMu.Lock()
	defer d.watchMu.Unlock()
	if err := d.usable(ctx, "watch database"); err != nil {
		return nil, err
	}
	if first, last := d.log.bounds(); from > last || from+1 < first {
		return nil, api.Errorf(api.Unavailable, "watch from revision %d (kept: %d to %d): %w", from, first, last, store.ErrTooOld)
	}
	out := make(chan store.Batch)
	d.watches.Go(func() {
		defer close(out)
		d.follow(ctx, from+1, out)
	})
	return out, nil
}

func (d *DB) follow(ctx context.Context, next store.Rev, out chan<- store.Batch) {
	for {
		b, more, ok := d.log.at(next)
		if !ok {
			return // the reader was too slow
		}
		if more != nil {
			select {
			case <-more:
				continue
			case <-ctx.Done():
				return
			case <-d.closing:
				return
			}
		}
		select {
		case out <- b:
			next++
		case <-ctx.Done():
			return
		case <-d.closing:
			return
		}
	}
}

// Backup writes a copy of the file, which Open accepts. See store.Store.
func (d *DB) Backup(ctx context.Context, w io.Writer) error {
	if err := d.usable(ctx, "back up database"); err != nil {
		return err
	}
	err := d.db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(ctxWriter{ctx, w})
		return err
	})
	if cerr := store.ContextError(ctx, "back up database"); err != nil && cerr != nil {
		return cerr
	}
	return ioError("back up database", err)
}

// Close ends all watches, waits for the running Update and closes the file.
func (d *DB) Close() error {
	var err error
	d.once.Do(func() {
		d.watchMu.Lock()
		close(d.closing)
		d.watchMu.Unlock()
		d.watches.Wait()
		d.writer <- struct{}{}
		defer func() { <-d.writer }()
		err = ioError("close database", d.db.Close())
	})
	return err
}

// usable is nil while the database is open and ctx goes on.
func (d *DB) usable(ctx context.Context, doing string) error {
	select {
	case <-d.closing:
		return api.Errorf(api.Unavailable, "%s: database %s is closed", doing, d.opts.Path)
	default:
		return store.ContextError(ctx, doing)
	}
}

// ctxWriter ends a long copy when ctx ends.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c ctxWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// ioError gives err the kind that its cause asks for; nil stays nil.
func ioError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, berrors.ErrMaxSizeReached):
		return api.Errorf(api.NoSpace, "%s: %w", doing, err).WithHint("free some space on the disk of the state directory")
	}
	return api.Errorf(api.Internal, "%s: %w", doing, err)
}

// isIO tells a refusal by the operating system from damaged contents.
func isIO(err error) bool {
	var e syscall.Errno
	return errors.As(err, &e)
}

func damaged(path string, err error) error {
	e := api.Errorf(api.Internal, "database %s is damaged: %w", path, err)
	if backups := listBackups(path); len(backups) > 0 {
		return e.WithHint("put the newest copy, %s, in its place, or run croftd recover", backups[0].path)
	}
	return e.WithHint("move it away and run croftd recover")
}

// errFault is what a panic inside bbolt becomes: it panics on pages that make
// no sense.
type errFault struct{ value any }

func (e errFault) Error() string { return fmt.Sprintf("%v", e.value) }
