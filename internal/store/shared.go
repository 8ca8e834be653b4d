package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// CheckShared tells whether the decoded value that readers of it share still
// says what is stored. It finds code that changes what it got from [Get] or
// [List]; for tests.
func CheckShared(it Item) error {
	if it.memo == nil {
		return nil
	}
	p := it.memo.v.Load()
	if p == nil {
		return nil
	}
	got, err := json.Marshal(*p)
	if err != nil {
		return fmt.Errorf("shared value of %s: %w", it.Key, err)
	}
	// What is stored may have been written by another version: compare in the
	// terms of the type that it was decoded into.
	fresh := reflect.New(reflect.TypeOf(*p).Elem()).Interface()
	if err := json.Unmarshal(it.Value, fresh); err != nil {
		return fmt.Errorf("stored value of %s: %w", it.Key, err)
	}
	want, err := json.Marshal(fresh)
	if err != nil {
		return fmt.Errorf("stored value of %s: %w", it.Key, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("shared value of %s was modified: stored %s, now %s", it.Key, want, got)
	}
	return nil
}
