// Package linux holds the mechanisms of the kernel that Croft uses: mounts,
// user namespaces, control groups, process handles, namespaces' interfaces and
// confined path access. It knows nothing of instances or pools; policy is the
// callers' affair.
package linux
