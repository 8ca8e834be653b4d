package bolt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// backupFile is a copy of the database beside it, named PATH.bak-REVISION.
type backupFile struct {
	path string
	time time.Time
}

// listBackups gives the copies of a database, newest first.
func listBackups(path string) []backupFile {
	names, err := filepath.Glob(escapeGlob(path) + ".bak-*")
	if err != nil {
		return nil
	}
	var out []backupFile
	for _, name := range names {
		if fi, err := os.Lstat(name); err == nil && fi.Mode().IsRegular() {
			out = append(out, backupFile{name, fi.ModTime()})
		}
	}
	slices.SortFunc(out, func(a, b backupFile) int {
		if c := b.time.Compare(a.time); c != 0 {
			return c
		}
		return strings.Compare(b.path, a.path)
	})
	return out
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// rotate copies the database as it was opened and drops the oldest copies. A
// revision that has been copied is not copied again, so that restarting often
// does not push out the copies of better times.
func (d *DB) rotate(ctx context.Context) error {
	target := fmt.Sprintf("%s.bak-%016x", d.opts.Path, uint64(d.snap.Load().rev))
	if _, err := os.Lstat(target); err == nil {
		return nil
	}
	if err := d.copyTo(ctx, target); err != nil {
		return err
	}
	backups := listBackups(d.opts.Path)
	for i := d.opts.Backups; i < len(backups); i++ {
		if err := os.Remove(backups[i].path); err != nil {
			return ioError("remove old backup", err)
		}
	}
	return nil
}

func (d *DB) copyTo(ctx context.Context, target string) (err error) {
	tmp := d.opts.Path + ".tmp"
	// A left-over of a crash; the lock on the database makes it ours.
	_ = os.Remove(tmp)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return ioError("create backup", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	if err := d.Backup(ctx, f); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return ioError("write backup", err)
	}
	if err := f.Close(); err != nil {
		return ioError("write backup", err)
	}
	if err := os.Rename(tmp, target); err != nil {
		return ioError("keep backup", err)
	}
	return syncDir(filepath.Dir(target))
}
