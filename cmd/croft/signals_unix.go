//go:build unix

package main

import (
	"os"
	"syscall"
)

// endSignals ask croft to end.
func endSignals() []os.Signal { return []os.Signal{syscall.SIGINT, syscall.SIGTERM} }

// execSignals are those that exec passes on to the command, and the one that
// tells of a new window size.
func execSignals() []os.Signal {
	return []os.Signal{
		syscall.SIGWINCH, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGTSTP, syscall.SIGCONT,
	}
}

// isResize reports whether sig tells of a new window size.
func isResize(sig os.Signal) bool { return sig == syscall.SIGWINCH }

// signalNumber is the number of sig as Linux counts.
func signalNumber(sig os.Signal) int {
	s, _ := sig.(syscall.Signal)
	switch s { // these differ between unix systems
	case syscall.SIGUSR1:
		return 10
	case syscall.SIGUSR2:
		return 12
	case syscall.SIGCONT:
		return 18
	case syscall.SIGTSTP:
		return 20
	case syscall.SIGTTIN:
		return 21
	case syscall.SIGTTOU:
		return 22
	}
	return int(s)
}

// fileOwner is the owner of a local file.
func fileOwner(info os.FileInfo) (uid, gid int64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Uid), int64(st.Gid)
	}
	return 0, 0
}
