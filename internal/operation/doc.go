// Package operation runs the work that outlives a request.
//
// An [Op] is a function that runs in its own goroutine with a context that ends
// when it is cancelled or the daemon stops, not with the request. Operations
// live in memory, on the member that runs them; every change of one is published
// as an event, and it stays visible for a few seconds after it has ended.
//
//	Pending ─→ Running ─→ Success | Failure
//	              └─→ Cancelling ─→ Cancelled | Success | Failure
//
// [Locks] are keyed locks that an operation holds while it works on an instance
// or a volume, each with its owner and reason, so that whoever is refused or
// waits can be told what for.
package operation
