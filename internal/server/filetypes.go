package server

import (
	"io"
	"time"
)

// File is a file of an instance.
type File struct {
	Type     string // file, directory or symlink
	UID, GID int64  // as the instance sees them
	Mode     uint32 // permission bits, with set-id and sticky
	Modified time.Time
	Size     int64
	Entries  []string      // names in a directory
	Target   string        // of a symlink
	Content  io.ReadCloser // nil unless Type is file
}

// FilePut says how a file is written.
type FilePut struct {
	Type     string // file, directory or symlink
	UID, GID int64  // -1: not given
	Mode     int    // -1: not given
	Append   bool
	Content  io.Reader
	Target   string
}
