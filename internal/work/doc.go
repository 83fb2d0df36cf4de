// Package work is a worker's loop: lease an item, fetch its object, run the
// command, publish the results, acknowledge, and take the next in the same
// round trip.
//
// # What is fenced
//
// Every object that a worker writes carries the fence (source generation, run,
// lease token) of its lease, and replaces only what carries a lower one, under
// a precondition on the version that was read. A worker that lost its lease
// can therefore finish late without harm: it either loses the race or writes
// what the next holder finds standing and replaces.
//
// # What becomes of a failure
//
//	the command failed (exit code, signal, timeout)    a failed attempt: retry, in the end a dead letter
//	the disk is full of this item alone                likewise
//	a permanent exit code, an unusable result name     a dead letter at once
//	the store or the program is not usable             deferred: no attempt, but a delivery
//	the object is gone or has a newer generation       a counted skip
//	the lease is lost                                  nothing: the item is another worker's
//	the worker is stopping                             released: nothing counted
package work
