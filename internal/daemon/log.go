package daemon

import (
	"io"
	"log/slog"
)

// NewLog makes the handler of the daemon's own log: text lines for people and
// grep. Warnings and errors are always written, as by LXD.
func NewLog(w io.Writer, verbose, debug bool) slog.Handler {
	level := slog.LevelWarn
	switch {
	case debug:
		level = slog.LevelDebug
	case verbose:
		level = slog.LevelInfo
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
}
