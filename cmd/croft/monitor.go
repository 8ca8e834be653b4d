package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

const formatPretty = "pretty"

type monitorOptions struct {
	types       []string
	format      string
	pretty      bool
	logLevel    string
	allProjects bool
}

func newMonitor(g *global) *cobra.Command {
	var o monitorOptions
	cmd := &cobra.Command{
		Use: "monitor [REMOTE:]", Short: "Print what happens on the server", Args: args(0, 1),
		Example: `  croft monitor --type=lifecycle
  croft monitor --pretty --type=logging --loglevel=info`,
		RunE: func(cmd *cobra.Command, args []string) error {
			arg := ""
			if len(args) > 0 {
				arg = args[0]
			}
			return runMonitor(cmd.Context(), g, o, arg)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.types, "type", nil, "type of event: lifecycle, operation or logging; may be repeated")
	f.StringVarP(&o.format, "format", "f", formatYAML, "format: json, pretty or yaml")
	f.BoolVar(&o.pretty, "pretty", false, "the same as --format=pretty")
	f.StringVar(&o.logLevel, "loglevel", "", "least `level` of log messages to print: debug, info, warning or error")
	f.BoolVar(&o.allProjects, "all-projects", false, "events of all projects")
	return cmd
}

// logLevels orders the levels of log messages.
func logLevels() map[string]int {
	return map[string]int{
		"trace": 0, "debug": 1, "dbug": 1, "info": 2, "warn": 3, "warning": 3, "error": 4, "eror": 4, "crit": 5, "fatal": 5, "panic": 5,
	}
}

func runMonitor(ctx context.Context, g *global, o monitorOptions, arg string) error {
	if o.pretty {
		o.format = formatPretty
	}
	switch o.format {
	case formatJSON, formatYAML, formatPretty:
	default:
		return api.Errorf(api.Invalid, "unknown format %q: json, pretty and yaml are possible", o.format)
	}
	if o.logLevel != "" {
		if _, ok := logLevels()[strings.ToLower(o.logLevel)]; !ok {
			return api.Errorf(api.Invalid, "unknown log level %q: debug, info, warning and error are possible", o.logLevel)
		}
	}
	c, _, err := g.target(ctx, arg)
	if err != nil {
		return err
	}
	events, err := c.Events(ctx, client.EventFilter{Types: o.types, AllProjects: o.allProjects})
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		ev, err := events.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return &exitError{code: 130} // Ctrl-C is the way to end it: no message
		case err != nil:
			return err
		}
		text, err := formatEvent(ev, o)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(g.stdout, text); err != nil {
			return err
		}
	}
}

// formatEvent gives the text of an event, empty if it is not to be shown.
func formatEvent(ev api.Event, o monitorOptions) (string, error) {
	if ev.Type == api.EventLogging && o.logLevel != "" {
		var log api.EventLoggingMetadata
		if json.Unmarshal(ev.Metadata, &log) == nil && logLevels()[log.Level] < logLevels()[strings.ToLower(o.logLevel)] {
			return "", nil
		}
	}
	if o.format == formatPretty {
		return prettyEvent(ev), nil
	}
	raw, err := json.Marshal(ev)
	if err != nil {
		return "", err
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", err
	}
	if o.format == formatJSON {
		raw, err = json.Marshal(doc)
		return string(raw) + "\n\n", err
	}
	raw, err = yamlBytes(doc)
	return string(raw) + "\n\n", err
}

// prettyEvent is an event as one line of key=value pairs.
func prettyEvent(ev api.Event) string {
	level, msg, fields := "info", "", map[string]string{}
	switch ev.Type {
	case api.EventLogging:
		var log api.EventLoggingMetadata
		_ = json.Unmarshal(ev.Metadata, &log) // an odd event is shown as far as it goes
		level, msg, fields = log.Level, log.Message, orEmpty(log.Context)
	case api.EventLifecycle:
		var l api.EventLifecycleMetadata
		_ = json.Unmarshal(ev.Metadata, &l)
		msg = fmt.Sprintf("Action: %s, Source: %s", l.Action, l.Source)
		for k, v := range l.Context {
			fields[k] = fmt.Sprint(v)
		}
		if r := l.Requestor; r != nil {
			msg += fmt.Sprintf(", Requestor: %s/%s (%s)", r.Protocol, r.Username, r.Address)
		}
	case api.EventOperation:
		var op api.Operation
		_ = json.Unmarshal(ev.Metadata, &op)
		msg = fmt.Sprintf("ID: %s, Class: %s, Description: %s", op.ID, op.Class, op.Description)
		fields = map[string]string{
			"CreatedAt": op.CreatedAt.String(), "UpdatedAt": op.UpdatedAt.String(), "Err": op.Err, "Location": op.Location,
			"MayCancel": fmt.Sprint(op.MayCancel), "Metadata": fmt.Sprint(op.Metadata), "Resources": fmt.Sprint(op.Resources),
			"Status": op.Status, "StatusCode": op.StatusCode.String(),
		}
	default:
		msg = ev.Type + ": " + string(ev.Metadata)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "time=%q level=%s msg=%q", ev.Timestamp.Format("2006-01-02T15:04:05Z07:00"), level, msg)
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(&b, " %s=%s", k, quoteIfNeeded(fields[k]))
	}
	return b.String() + "\n"
}

// quoteIfNeeded quotes values that would not read back as one word.
func quoteIfNeeded(s string) string {
	for _, r := range s {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._/@^+", r)
		if !plain {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}
