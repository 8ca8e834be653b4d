package store

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/croft-project/croft/api"
)

// CheckKey refuses keys that not every back-end can hold. Errors: Invalid.
func CheckKey(key string) error {
	switch {
	case key == "" || key == LocalPrefix:
		return api.Errorf(api.Invalid, "store key is empty")
	case len(key) > MaxKey:
		return api.Errorf(api.Invalid, "store key %.40q… has %d bytes, at most %d are allowed", key, len(key), MaxKey)
	case strings.ContainsAny(key, "\x00\n\r"):
		return api.Errorf(api.Invalid, "store key %q holds a control character", key)
	}
	return nil
}

// CheckPut refuses what not every back-end can hold. Errors: Invalid, TooLarge.
func CheckPut(key string, value []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return api.Errorf(api.TooLarge, "record of %s has %d bytes, at most %d are allowed", Describe(key), len(value), MaxValue)
	}
	return nil
}

// CheckEvent refuses an event that could not be stored or sent on. Errors: Invalid.
func CheckEvent(e Event) error {
	if e.Type == "" {
		return api.Errorf(api.Invalid, "event has no type")
	}
	if !json.Valid(e.Payload) {
		return api.Errorf(api.Invalid, "payload of %s event is not JSON", e.Type)
	}
	return nil
}

// ContextError turns the end of ctx into Canceled or Timeout, and gives nil
// while ctx goes on.
func ContextError(ctx context.Context, doing string) error {
	err := ctx.Err()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.Timeout, "%s: %w", doing, err)
	}
	return api.Errorf(api.Canceled, "%s: %w", doing, err)
}
