// Package event fans events out to whoever watches the daemon.
//
// There are two sources. Lifecycle events are stored in the transaction that
// caused them; the [Hub] reads them from the store's watch, so they arrive in
// commit order, none lost and none invented, and a subscriber can resume after
// the last one it saw. Operation and logging events are of the moment: they are
// handed to [Hub.Publish] and exist only for those who listen.
//
// The two are put into one order: a published event comes after all lifecycle
// events that were committed before Publish was called. Who sees that an
// operation has ended has seen what it did.
//
// No subscriber can slow down the hub or another subscriber: each has a bounded
// queue and is cut off with [ErrSlow] when it is full.
package event
