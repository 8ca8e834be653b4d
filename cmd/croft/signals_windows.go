package main

import "os"

// endSignals ask croft to end.
func endSignals() []os.Signal { return []os.Signal{os.Interrupt} }

// execSignals are those that exec passes on to the command.
func execSignals() []os.Signal { return []os.Signal{os.Interrupt} }

// isResize is false: Windows has no signal for a new window size.
func isResize(os.Signal) bool { return false }

// signalNumber is the number of sig as Linux counts; only an interrupt occurs.
func signalNumber(os.Signal) int { return 2 }

// fileOwner is root: files have no numeric owner on Windows.
func fileOwner(os.FileInfo) (uid, gid int64) { return 0, 0 }
