package event

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
)

// publisher is what the log handler needs of a Hub.
type publisher interface {
	Publish(project, eventType string, metadata any)
	LogWanted() bool
}

// LogWanted tells whether somebody listens to logging events.
func (h *Hub) LogWanted() bool { return h.loggers.Load() > 0 }

// logHandler passes records on and shows them to subscribers too.
type logHandler struct {
	next   slog.Handler
	hub    publisher
	prefix string            // open groups, each with a dot
	attrs  map[string]string // of WithAttrs; never changed, copied
}

// NewLogHandler makes a handler that passes records to next as far as its level
// allows, and publishes all of them, whatever the level, as logging events while
// somebody subscribes to those. Attributes become strings; those whose key names
// a secret are masked in the event (next gets them as they are).
func NewLogHandler(h *Hub, next slog.Handler) slog.Handler {
	return &logHandler{next: next, hub: h}
}

func (l *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return l.hub.LogWanted() || l.next.Enabled(ctx, level)
}

func (l *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if l.hub.LogWanted() {
		l.hub.Publish("", api.EventLogging, l.event(r))
	}
	if !l.next.Enabled(ctx, r.Level) {
		return nil
	}
	return l.next.Handle(ctx, r)
}

func (l *logHandler) event(r slog.Record) api.EventLoggingMetadata {
	attrs := make(map[string]string, len(l.attrs)+r.NumAttrs())
	for k, v := range l.attrs {
		attrs[k] = v
	}
	r.Attrs(func(a slog.Attr) bool {
		flatten(attrs, l.prefix, a)
		return true
	})
	return api.EventLoggingMetadata{Message: r.Message, Level: levelName(r.Level), Context: attrs}
}

func (l *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *l
	c.next = l.next.WithAttrs(attrs)
	c.attrs = make(map[string]string, len(l.attrs)+len(attrs))
	for k, v := range l.attrs {
		c.attrs[k] = v
	}
	for _, a := range attrs {
		flatten(c.attrs, l.prefix, a)
	}
	return &c
}

func (l *logHandler) WithGroup(name string) slog.Handler {
	c := *l
	c.next = l.next.WithGroup(name)
	if name != "" {
		c.prefix += name + "."
	}
	return &c
}

// flatten writes an attribute into out, groups as dotted keys.
func flatten(out map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, m := range v.Group() {
			flatten(out, prefix, m)
		}
		return
	}
	if a.Key == "" {
		return
	}
	if isSecret(a.Key) {
		out[prefix+a.Key] = "***"
		return
	}
	out[prefix+a.Key] = v.String()
}

// isSecret tells whether a key names something that must not be shown. It looks
// at the words of the key, so that "tokens" or "trust_password" match and
// "keyboard" does not.
func isSecret(key string) bool {
	words := strings.FieldsFunc(strings.ToLower(key), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
	return slices.ContainsFunc(words, func(w string) bool {
		switch strings.TrimSuffix(w, "s") {
		case "password", "passphrase", "secret", "token", "credential", "authorization", "cookie", "privatekey":
			return true
		}
		return false
	}) || strings.Contains(strings.ToLower(key), "private_key")
}

// levelName gives the level in the words of LXD's logging events.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warning"
	}
	return "error"
}
