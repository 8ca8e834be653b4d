// Package storagetest is the suite that every storage driver passes, with the
// benchmarks that compare them. It makes real mounts, so it needs root and is
// built with the tag "system":
//
//	go test -tags system ./internal/storage/...
package storagetest
