package storage

import (
	"context"
	"log/slog"
	"sync"

	"github.com/croft-project/croft/internal/linux"
)

// Trash removes directory trees in the background, one at a time. What it is
// given must already be out of the way (renamed), so that a crash only means that
// [Driver.Recover] finds it again.
type Trash struct {
	log    *slog.Logger
	ctx    context.Context // ends when Close stops waiting
	cancel context.CancelFunc

	mu      sync.Mutex
	queue   []string
	running bool
	closed  bool
	idle    chan struct{} // closed when the queue is empty; replaced when it fills
}

// NewTrash makes an empty queue. [Trash.Close] ends it.
func NewTrash(log *slog.Logger) *Trash {
	ctx, cancel := context.WithCancel(context.Background())
	idle := make(chan struct{})
	close(idle)
	return &Trash{log: log, ctx: ctx, cancel: cancel, idle: idle}
}

// Put has path removed, soon. After Close it does nothing: Recover will.
func (t *Trash) Put(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.queue = append(t.queue, path)
	if !t.running {
		t.running = true
		t.idle = make(chan struct{})
		go t.work(t.idle)
	}
}

// work removes until the queue is empty. A goroutine that ends costs nothing
// while nobody deletes.
func (t *Trash) work(idle chan struct{}) {
	for {
		t.mu.Lock()
		if len(t.queue) == 0 || t.ctx.Err() != nil {
			t.running = false
			close(idle)
			t.mu.Unlock()
			return
		}
		path := t.queue[0]
		t.queue = t.queue[1:]
		t.mu.Unlock()
		if err := linux.RemoveAll(t.ctx, path); err != nil && t.ctx.Err() == nil {
			t.log.Warn("cannot remove deleted data; trying again at the next start", "path", path, "error", err)
		}
	}
}

// Flush waits until all that was put is removed, or ctx ends.
func (t *Trash) Flush(ctx context.Context) error {
	t.mu.Lock()
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close takes no more, and waits as long as ctx lets it for what is queued. What
// is left then stays for Recover. When Close returns nothing is running.
func (t *Trash) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	err := t.Flush(ctx)
	t.cancel()
	t.mu.Lock()
	idle := t.idle
	t.mu.Unlock()
	<-idle
	return err
}
