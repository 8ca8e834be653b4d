// Package helper runs work in a child process that is the same binary, started
// again with "helper NAME" as its arguments.
//
// A helper exists where a goroutine is not enough: the work handles untrusted
// bytes and must hold few rights, needs a mount namespace of its own, or must
// die for certain when it is cancelled. The program's main function calls
// [Main] first, with the table of all helpers; the parent side calls
// [Runner.Run].
//
//	parent                                   child
//	  write JSON request, newline    fd 3 →    decode, call Func
//	  keep fd 3 open                           end of file on fd 3: the parent
//	                                           is gone, exit
//	  read JSON reply until EOF      ← fd 4    {"reply": …} or {"error": …}
//	  kept as a tail for errors      ← fd 2
//	  files given to Run             fd 5 …    files given to Func, same order
//
// Standard input and output are /dev/null. An error crosses with its kind,
// message and hint, so errors.Is(err, api.NotFound) works in the parent.
//
// Confinement (see [Confine]) is in place before the first instruction of the
// child: it is set on the operating-system thread that forks, which is thrown
// away afterwards. The child therefore needs no second exec, and no thread of
// it ever runs with more rights than the others.
package helper
