//go:build linux

// Command bench measures LXD, Incus and Croft side by side on one machine: same image bytes, same stock client
// (Debian's lxc, pointed at each daemon by LXD_DIR), one run. See README.md for the method and the options.
//
// It is a program for people, not a timed test: a missed budget is a row that says "missed", and the exit code is
// non-zero only when a step failed.
//
// Every daemon runs below a supervisor (this program again, see supervise.go) in its own mount and network
// namespace, so nothing of the host's own daemons is touched and nothing is left behind, even after kill -9.
package main
