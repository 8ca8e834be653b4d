package bolt

import (
	"testing"

	"go.etcd.io/bbolt"
)

// bucketMaker is the part of a bbolt transaction that tests use to write what
// this package would not.
type bucketMaker interface {
	Bucket([]byte) *bbolt.Bucket
	CreateBucket([]byte) (*bbolt.Bucket, error)
	DeleteBucket([]byte) error
}

func withBolt(t *testing.T, path string, fn func(bucketMaker) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.Update(func(tx *bbolt.Tx) error { return fn(tx) }); err != nil {
		t.Fatal(err)
	}
}
