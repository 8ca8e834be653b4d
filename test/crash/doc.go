// Package crash holds the tests of what must never be left behind: by a
// container that is gone (leak, soak) and by a daemon that was killed (crash).
// All of them need root and carry the build tag system:
//
//	go test -tags system ./test/crash
//
// The tests run in network and mount namespaces of their own, so that the
// bridges, addresses and packet filters of the daemon under test never meet the
// host's. CROFT_TEST_BIN names the directory of a croftd to test; without
// it one is built.
// CROFT_TEST_SEED repeats the kills of an earlier run.
package crash
