package storage

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// wrap says what was attempted and gives the kind to errors of the system that
// users can do something about. Errors that have a kind keep it.
func wrap(attempt string, err error) error {
	var known *api.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return fmt.Errorf("%s: %w", attempt, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return api.Errorf(api.NoSpace, "%s: %w", attempt, err)
	case errors.Is(err, context.Canceled):
		return api.Errorf(api.Canceled, "%s: %w", attempt, err)
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.Timeout, "%s: %w", attempt, err)
	}
	return fmt.Errorf("%s: %w", attempt, err)
}
