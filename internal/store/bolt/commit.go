package bolt

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/croft-project/croft/internal/store"
)

// commit makes batch durable and then visible. The caller holds the writer
// token.
func (d *DB) commit(batch store.Batch, next *snapshot) error {
	entry, err := json.Marshal(batch)
	if err != nil {
		return fmt.Errorf("encode log entry: %w", err)
	}
	err = contain(func() error {
		return d.db.Update(func(tx *bbolt.Tx) error { return write(tx, batch, entry, d.opts.LogLimit) })
	})
	if err != nil {
		if rev, rerr := d.fileRev(); rerr != nil || rev != next.rev-1 {
			// It is not known whether the commit will be there after a restart,
			// and what bbolt thinks of its free pages may be wrong. Go on reading,
			// write no more.
			d.broken = err
		}
		return ioError(fmt.Sprintf("write revision %d to the database", batch.Rev), err)
	}
	d.snap.Store(next)
	d.log.append(batch)
	return nil
}

func write(tx *bbolt.Tx, batch store.Batch, entry []byte, logLimit int) error {
	for _, key := range batch.Deletes {
		if err := bucketOf(tx, key).Delete([]byte(key)); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
	}
	for _, it := range batch.Puts {
		v := make([]byte, 8, 8+len(it.Value))
		binary.BigEndian.PutUint64(v, uint64(it.Rev))
		if err := bucketOf(tx, it.Key).Put([]byte(it.Key), append(v, it.Value...)); err != nil {
			return fmt.Errorf("write %s: %w", it.Key, err)
		}
	}
	log := tx.Bucket(bucketLog)
	if err := putUintKey(log, uint64(batch.Rev), entry); err != nil {
		return err
	}
	if err := trim(log, uint64(batch.Rev), logLimit); err != nil {
		return err
	}
	return putUint(tx.Bucket(bucketMeta), keyRev, uint64(batch.Rev))
}

// trim removes the entries that fall out of the log: one per commit, more when
// the limit was lowered.
func trim(log *bbolt.Bucket, rev uint64, limit int) error {
	if rev <= uint64(limit) {
		return nil
	}
	c := log.Cursor()
	for k, _ := c.First(); k != nil && len(k) == 8 && binary.BigEndian.Uint64(k) <= rev-uint64(limit); k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return fmt.Errorf("trim log: %w", err)
		}
	}
	return nil
}

func bucketOf(tx *bbolt.Tx, key string) *bbolt.Bucket {
	if store.IsLocal(key) {
		return tx.Bucket(bucketLocal)
	}
	return tx.Bucket(bucketShared)
}

func putUintKey(b *bbolt.Bucket, key uint64, v []byte) error {
	return b.Put(binary.BigEndian.AppendUint64(nil, key), v)
}

// fileRev asks the file, not the snapshot, for its revision.
func (d *DB) fileRev() (store.Rev, error) {
	var rev store.Rev
	err := contain(func() error {
		return d.db.View(func(tx *bbolt.Tx) error {
			rev = store.Rev(getUint(tx.Bucket(bucketMeta), keyRev))
			return nil
		})
	})
	return rev, err
}

// commitLog keeps the last commits for watchers. Revisions have no gaps, so an
// entry is found by arithmetic.
type commitLog struct {
	limit, maxBytes int

	mu      sync.Mutex
	entries []store.Batch
	bytes   int           // of the values in entries
	last    store.Rev     // of the newest commit, with or without an entry
	more    chan struct{} // closed and replaced at every append
}

func newCommitLog(last store.Rev, limit, maxBytes int) *commitLog {
	return &commitLog{limit: limit, maxBytes: maxBytes, last: last, more: make(chan struct{})}
}

// append adds the newest commit and wakes the watchers.
func (l *commitLog) append(b store.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = b.Rev
	l.addLocked(b)
	close(l.more)
	l.more = make(chan struct{})
}

// prime adds an entry read from disk; last is known already.
func (l *commitLog) prime(b store.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(b)
}

func (l *commitLog) addLocked(b store.Batch) {
	l.entries = append(l.entries, b)
	l.bytes += size(b)
	for len(l.entries) > 1 && (len(l.entries) > l.limit || l.bytes > l.maxBytes) {
		l.bytes -= size(l.entries[0])
		l.entries[0] = store.Batch{} // let the values go at once
		l.entries = l.entries[1:]
	}
}

func size(b store.Batch) int {
	n := 64
	for _, it := range b.Puts {
		n += len(it.Key) + len(it.Value)
	}
	for _, e := range b.Events {
		n += len(e.Payload)
	}
	return n
}

// bounds gives the revisions of the first entry and of the newest commit. With
// no entries, first is the one after last.
func (l *commitLog) bounds() (first, last store.Rev) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last + 1 - store.Rev(len(l.entries)), l.last
}

// at gives the entry of a revision, or a channel that is closed at the next
// append when there is none yet. ok is false when the entry has been dropped.
func (l *commitLog) at(rev store.Rev) (b store.Batch, more <-chan struct{}, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.last + 1 - store.Rev(len(l.entries))
	switch {
	case rev < first:
		return store.Batch{}, nil, false
	case rev > l.last:
		return store.Batch{}, l.more, true
	}
	return l.entries[rev-first], nil, true
}
