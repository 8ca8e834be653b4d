// Package systest gives tests a daemon of their own that runs real containers:
//
//	func TestMain(m *testing.M) { os.Exit(systest.Main(m)) }
//
//	func TestRestartKeepsAddress(t *testing.T) {
//		t.Parallel()
//		d := systest.Daemon(t, systest.WithNetwork())
//		c := d.Launch(t, systest.Busybox)
//		want := c.IPv4(t)
//		c.Restart(t)
//		if got := c.IPv4(t); got != want {
//			t.Errorf("address after restart: got %v, want %v", got, want)
//		}
//	}
//
// The tests run in network and mount namespaces of their own, so that bridges
// and rules never meet the host's. Each daemon has its own state directory,
// socket, pool and, if wanted, bridge. When its test ends, everything is deleted
// through the API and the host is searched for what is left: processes, mounts,
// control groups, links, loop devices, files and descriptors of the daemon.
// **Anything that is left fails the test.**
//
// The images are made once by the product's own builder and kept as files in
// /var/cache/croft-test. The daemon and the client under test are built from the
// checkout, or are those that CROFT_TEST_BIN names: a directory that holds
// croft and croftd, or the path of croftd.
//
// Everything but this text needs the build tag "system", root, and the packages
// that scripts/install-deps installs for the groups build, run and test. A
// missing facility fails the tests; nothing is skipped.
package systest
