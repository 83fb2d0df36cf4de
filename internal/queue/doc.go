// Package queue is the contract between ingest, workers and the scaler: a
// queue of items with leases, fenced by tokens.
//
// # States
//
//	           Enqueue
//	              |
//	              v         lease          Done, Skip
//	due +----> waiting ---------------> leased ----------> done (tombstone)
//	    |         ^                      | | |
//	    |         |  Release, lease      | | |  Bury
//	    |         +--expired-------------+ | +-----------> dead
//	    |                                  |
//	    +--------- delayed <---------------+
//	                         Retry, Defer
//
// # Who owns what
//
// A waiting, delayed or dead item belongs to the queue. A leased item belongs
// to the worker that holds its newest token until the lease expires: only that
// token can finish or extend it. Expiry is decided by the queue server alone,
// when anyone's call finds the lease past its time; a worker that cannot reach
// the server stops its work once its lease must have run out.
//
// # Clocks
//
// Only the queue server's clock counts. Delays and lease durations are sent as
// durations; workers measure elapsed time with their own monotonic clocks and
// compare no wall clocks.
//
// # Repeating calls
//
// Enqueue, Extend, completions, Bar, Unbar and Accept may be repeated after an
// error. Leasing may not: a lost answer costs that lease's duration, so
// implementations send such a call once.
//
// # Attempts and deliveries
//
// A delivery is any hand-out of the item; an attempt is a run that the command
// itself failed. A lost worker costs a delivery, a failed command both, a
// Release neither. The worker that leases an item compares both with its
// pipeline's limits, so that the dead letter of an item that keeps killing its
// workers is written by one that is alive.
package queue
