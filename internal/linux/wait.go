package linux

import (
	"context"
	"time"
)

// aLongTimeAgo is a deadline that has passed: it ends a pending read.
var aLongTimeAgo = time.Unix(1, 0)

// pause waits between two looks at something the kernel gives no notice of:
// 1 ms at first, 50 ms at most.
func pause(ctx context.Context, round int) error {
	d := min(time.Millisecond<<min(round, 6), 50*time.Millisecond)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
