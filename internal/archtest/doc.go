// Package archtest holds the tests of the architecture: which package may import
// which, and what no package may do. The rules are data with their reasons; see
// docs/ARCHITECTURE.md. A rule that is in the way is changed here, in the open,
// not worked around.
package archtest
