package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

func TestLogHandler(t *testing.T) {
	h := runHub(t, Options{Store: openStore(t, t.TempDir())})
	var out bytes.Buffer
	next := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})
	log := slog.New(NewLogHandler(h, next))

	log.Info("nobody listens", "n", 1)
	if out.Len() != 0 || log.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("record below the level was handled")
	}
	sub := subscribe(t, h, Filter{Types: []string{api.EventLogging}})
	log = log.With("operation", "o1", "trust_password", "hunter2").WithGroup("req").With("id", 7)
	log.Debug("d", "x", "y")
	log.Warn("w", slog.Group("client", "token", "s3cret", "addr", "@"), "err", errors.New("bad"), slog.Group("", "flat", true), "keyboard", "us")

	want := []api.EventLoggingMetadata{
		{Message: "d", Level: "debug", Context: map[string]string{"operation": "o1", "trust_password": "***", "req.id": "7", "req.x": "y"}},
		{Message: "w", Level: "warning", Context: map[string]string{
			"operation": "o1", "trust_password": "***", "req.id": "7", "req.client.token": "***", "req.client.addr": "@",
			"req.err": "bad", "req.flat": "true", "req.keyboard": "us",
		}},
	}
	for _, w := range want {
		m, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got api.EventLoggingMetadata
		if err := json.Unmarshal(m.Metadata, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(w, got); diff != "" {
			t.Error(diff)
		}
	}
	if got := out.String(); strings.Contains(got, "msg=d") || !strings.Contains(got, "msg=w") || !strings.Contains(got, "req.client.addr=@") {
		t.Errorf("inner handler wrote %q", got)
	}
	sub.Close()
	if log.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("still enabled for a subscriber that has gone")
	}
}

func TestLevelName(t *testing.T) {
	for level, want := range map[slog.Level]string{-8: "debug", slog.LevelDebug: "debug", 0: "info", 2: "info", 4: "warning", 8: "error", 12: "error"} {
		if got := levelName(level); got != want {
			t.Errorf("%d: got %s, want %s", level, got, want)
		}
	}
}
