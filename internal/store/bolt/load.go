package bolt

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sort"

	"go.etcd.io/bbolt"

	"github.com/croft-project/croft/internal/store"
)

// format of the file. A file of a later format is refused.
const format = 1

var (
	bucketShared = []byte("shared")
	bucketLocal  = []byte("local")
	bucketLog    = []byte("log")
	bucketMeta   = []byte("meta")
	keyFormat    = []byte("format")
	keyRev       = []byte("rev")
)

// contain runs fn and turns a panic or a memory fault in it (a damaged or
// truncated file is read through a memory map) into an error.
func contain(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = errFault{p}
		}
	}()
	return fn()
}

// load creates the buckets of a new file, checks an old one from end to end and
// fills the snapshot and the log.
func (d *DB) load() error {
	fresh := false
	err := d.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			k, _ := tx.Cursor().First()
			if fresh = k == nil; !fresh {
				return fmt.Errorf("it is not a Croft database")
			}
			return nil
		}
		if f := getUint(meta, keyFormat); f != format {
			return fmt.Errorf("it has format %d, this version reads %d", f, format)
		}
		if err := d.read(tx, meta); err != nil {
			return err
		}
		return firstError(tx.Check())
	})
	if err != nil || !fresh {
		return err
	}
	d.snap.Store(&snapshot{})
	d.log = newCommitLog(0, d.opts.LogLimit, d.opts.LogBytes)
	return d.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketShared, bucketLocal, bucketLog, bucketMeta} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		if err := putUint(tx.Bucket(bucketMeta), keyRev, 0); err != nil {
			return err
		}
		return putUint(tx.Bucket(bucketMeta), keyFormat, format)
	})
}

// firstError drains a check; its goroutine would hang otherwise.
func firstError(ch <-chan error) error {
	var first error
	for err := range ch {
		if first == nil {
			first = err
		}
	}
	return first
}

func (d *DB) read(tx *bbolt.Tx, meta *bbolt.Bucket) error {
	snap := &snapshot{rev: store.Rev(getUint(meta, keyRev))}
	for _, name := range [][]byte{bucketShared, bucketLocal} {
		b := tx.Bucket(name)
		if b == nil {
			return fmt.Errorf("bucket %s is missing", name)
		}
		err := b.ForEach(func(k, v []byte) error {
			if len(v) < 8 {
				return fmt.Errorf("record %q is cut short", k)
			}
			rev := store.Rev(binary.BigEndian.Uint64(v))
			if rev > snap.rev {
				return fmt.Errorf("record %q has revision %d, the database %d", k, rev, snap.rev)
			}
			// The map goes away with the transaction: copy.
			snap.items = append(snap.items, store.NewItem(string(k), append([]byte(nil), v[8:]...), rev))
			return nil
		})
		if err != nil {
			return err
		}
	}
	sort.Slice(snap.items, func(i, j int) bool { return snap.items[i].Key < snap.items[j].Key })
	d.snap.Store(snap)
	d.log = newCommitLog(snap.rev, d.opts.LogLimit, d.opts.LogBytes)
	return d.readLog(tx, snap)
}

// readLog takes over the entries that lead up to the present revision without
// a gap. The log is a convenience of watchers: what is unreadable is dropped.
func (d *DB) readLog(tx *bbolt.Tx, snap *snapshot) error {
	b := tx.Bucket(bucketLog)
	if b == nil {
		return fmt.Errorf("bucket %s is missing", bucketLog)
	}
	var batches []store.Batch
	c := b.Cursor()
	want := snap.rev
	for k, v := c.Last(); k != nil && len(batches) < d.opts.LogLimit; k, v = c.Prev() {
		var batch store.Batch
		if len(k) != 8 || store.Rev(binary.BigEndian.Uint64(k)) != want || json.Unmarshal(v, &batch) != nil || batch.Rev != want {
			d.opts.Log.Warn("log of commits has a gap", "revision", want)
			break
		}
		for i, it := range batch.Puts {
			if cur, ok := snap.get(it.Key); ok && cur.Rev == it.Rev {
				batch.Puts[i] = cur // share the memory
			} else {
				batch.Puts[i] = store.NewItem(it.Key, it.Value, it.Rev)
			}
		}
		batches = append(batches, batch)
		want--
	}
	for i := len(batches) - 1; i >= 0; i-- {
		d.log.prime(batches[i])
	}
	return nil
}

func getUint(b *bbolt.Bucket, key []byte) uint64 {
	v := b.Get(key)
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func putUint(b *bbolt.Bucket, key []byte, n uint64) error {
	return b.Put(key, binary.BigEndian.AppendUint64(nil, n))
}
