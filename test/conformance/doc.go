// Package conformance runs the recorded answers of LXD 5.0.2, which lie beside
// the repository, against croftd with the stock client: the scenarios that
// first-light.list names have to pass on every storage driver.
package conformance
