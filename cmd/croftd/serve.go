package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/daemon"
)

type serveOptions struct{ group string }

// runServe is the daemon.
func runServe(ctx context.Context, g globals, o serveOptions) (err error) {
	if os.Geteuid() != 0 {
		return api.Errorf(api.Forbidden, "croftd has to be started by root")
	}
	dir, err := stateDir()
	if err != nil {
		return err
	}
	out := os.Stderr
	if g.logFile != "" {
		out, err = os.OpenFile(g.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return fmt.Errorf("open log file: %w", err)
		}
		defer out.Close()
	}
	inherited, err := inheritedSocket()
	if err != nil {
		return err
	}
	// From here on a signal is a wish, not the end: opening may take a moment.
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT)
	defer stop()
	power := make(chan os.Signal, 1)
	signal.Notify(power, unix.SIGPWR)
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)

	d, err := daemon.Open(ctx, daemon.Options{
		StateDir: dir, Group: o.group, Log: daemon.NewLog(out, g.verbose, g.debug), Inherited: inherited,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-power:
			d.Shutdown(false)
		case <-done:
		}
	}()
	return d.Run(ctx)
}

// inheritedSocket is the listening socket that the service manager passed, or
// nil; sd_listen_fds(3).
func inheritedSocket() (net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take over the service manager's sockets: %w", err)
	}
	var first net.Listener
	for _, l := range all {
		switch {
		case l == nil: // not a stream socket
		case first == nil && l.Addr().Network() == "unix":
			first = l
		default:
			l.Close()
		}
	}
	return first, nil
}
