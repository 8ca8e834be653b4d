package store

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"
)

// LocalPrefix begins every host-local key.
const LocalPrefix = "local/"

// Limits that every back-end enforces, below those of etcd and bbolt.
const (
	MaxKey   = 1024    // bytes
	MaxValue = 1 << 20 // bytes
)

// ErrTooOld tells that a watch cannot start at the revision asked for: it is
// before the oldest commit that is still kept, or after the newest one (a
// restored backup). The watcher has to read everything afresh and watch from
// the revision of that read.
var ErrTooOld = errors.New("revision is outside the kept log")

// Rev counts commits. Each commit that changes something or emits an event gets
// the next number; a record's Rev is that of the commit that wrote it last. It
// serves as ETag, in [IfRev] and as a cursor of [Store.Watch]. 0 is before the
// first commit.
type Rev uint64

// Item is a key and its value. Value is shared: it must not be modified.
type Item struct {
	Key   string `json:"k"`
	Value []byte `json:"v"`
	Rev   Rev    `json:"r"`

	memo *memo // decoded value, shared by all copies of this Item
}

// NewItem makes an Item whose decoded value is remembered. For back-ends: they
// hand out copies of one Item for as long as key and rev stay what they are.
func NewItem(key string, value []byte, rev Rev) Item {
	return Item{Key: key, Value: value, Rev: rev, memo: &memo{}}
}

// Event is a message that was stored in the transaction that caused it.
type Event struct {
	Rev     Rev             `json:"rev"`  // set by the commit
	Time    time.Time       `json:"time"` // set by the commit: its Tx.Now
	Project string          `json:"project,omitempty"`
	Type    string          `json:"type"` // api.EventLifecycle
	Payload json.RawMessage `json:"payload"`
}

// Batch is one committed transaction. Its slices are shared: read only.
type Batch struct {
	Rev     Rev       `json:"rev"`
	Time    time.Time `json:"time"`
	Puts    []Item    `json:"puts,omitempty"`    // in key order
	Deletes []string  `json:"deletes,omitempty"` // in key order
	Events  []Event   `json:"events,omitempty"`  // in the order of Emit
}

// Tx is one transaction. It sees a consistent state: that of the commit before
// it, and its own changes. It is used by one goroutine, until the function that
// got it returns.
type Tx interface {
	// Now is the one time of this transaction, in UTC.
	Now() time.Time
	// Rev is the revision of the state that the transaction started from.
	Rev() Rev
	// Get reads one key; the bool tells whether it exists.
	Get(key string) (Item, bool, error)
	// List gives all keys that begin with prefix, in key order. An empty prefix
	// lists both scopes.
	List(prefix string) ([]Item, error)
	// Put writes a value; the store owns the slice from then on. Errors: Invalid
	// for a bad key, TooLarge beyond MaxValue, Internal in a View.
	Put(key string, value []byte) error
	// Delete removes a key; it is no error when there is none.
	Delete(key string) error
	// Emit adds an event to the commit; Rev and Time are set by it.
	Emit(e Event) error
}

// Store is a transactional, ordered store with a log of commits. All methods
// are safe for concurrent use.
//
// Errors of all methods: Unavailable after Close or when the back-end cannot be
// reached, Canceled and Timeout when ctx ends first.
type Store interface {
	// View runs fn with a read-only Tx. It costs microseconds and never waits for
	// a writer.
	View(ctx context.Context, fn func(Tx) error) error
	// Update runs fn with a Tx and commits what it did, durably, before it
	// returns. Nothing is kept when fn returns an error (returned as it is) or
	// panics (the panic goes on). A transaction without changes and events takes
	// no revision. Updates run one after the other. Errors: NoSpace when the disk
	// is full; nothing of the transaction was kept then.
	Update(ctx context.Context, fn func(Tx) error) error
	// Watch sends every commit after revision from, in order, each once, until
	// ctx ends; then, or when the reader is so slow that the next commit has left
	// the log, or when the store closes, the channel is closed. Watch again from
	// the last Batch.Rev to go on. Errors: ErrTooOld.
	Watch(ctx context.Context, from Rev) (<-chan Batch, error)
	// Backup writes a consistent copy of the database, in the back-end's own
	// format, while others read and write.
	Backup(ctx context.Context, w io.Writer) error
	// Close ends all watches and frees the database. Running transactions are
	// waited for.
	Close() error
}

// IsLocal tells whether a key is host-local.
func IsLocal(key string) bool { return strings.HasPrefix(key, LocalPrefix) }

// Describe names what a key stands for: "instance c1", "profile p1 in project
// web", "storage pool default".
func Describe(key string) string {
	parts := strings.Split(strings.TrimPrefix(key, LocalPrefix), "/")
	kind := strings.ReplaceAll(parts[0], "-", " ")
	switch len(parts) {
	case 1:
		return kind
	case 2:
		return kind + " " + parts[1]
	}
	name := kind + " " + strings.Join(parts[2:], "/")
	if parts[1] != "default" {
		name += " in project " + parts[1]
	}
	return name
}
