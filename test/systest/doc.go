// Package systest is for system tests only: see systest.go, which needs the
// build tag system.
package systest
