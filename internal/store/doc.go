// Package store keeps the daemon's records: JSON documents under ordered keys
// with one revision counter. The interface is what an embedded database and a
// replicated one have in common, so that the rest of the daemon does not know
// which of the two it talks to.
//
// # Keys
//
// A key is KIND/PROJECT/NAME, or KIND/NAME for what has no project, for example
// "instance/default/c1". [Describe] turns one into words for messages.
//
// Keys come in two scopes. Those that begin with [LocalPrefix] are host-local:
// facts about what runs on this host (power state, volatile keys), which are
// never replicated and can be written while no other member answers. All others
// are shared. One Update may write both. A back-end that keeps the scopes in two
// databases commits the shared part first, counts their revisions separately,
// and cannot make the pair atomic: write a local record so that it is merely out
// of date when the other half is there without it, and never compare revisions
// across scopes.
//
// # Transactions
//
// [Store.View] and [Store.Update] take a function that gets a [Tx]. It may run
// more than once, so it must have no side effects besides the Tx; it must not
// keep the Tx, nor start another transaction on the same store.
//
// # Records
//
// [Get] and [List] decode a record once per revision and hand the same value to
// everyone: it is read-only. Take [Edit] to get a private copy to change.
//
//	err := s.Update(ctx, func(tx store.Tx) error {
//		inst, rev, err := store.Edit[model.Instance](tx, key)
//		if err != nil {
//			return err
//		}
//		inst.Description = text
//		return store.Put(tx, key, inst, store.IfRev(rev))
//	})
//
// # Events
//
// What a transaction emits with [Tx.Emit] is stored with it and handed to
// watchers in the same [Batch]: an event is seen if and only if its cause was
// committed, in commit order.
package store
