package scale

import "context"

// Size is a fleet's size as the platform sees it now. Workers that have been
// told to go count nowhere, even while they finish.
type Size struct {
	Wanted  int // workers asked for
	Ready   int // running and ready: every worker that may hold an item, but for those just started
	Pending int // asked for, and no worker yet that could hold an item
	Other   int // running or about to, but not ready: barred, starting, crashed, or lost
}

// Fleet runs the workers of one pipeline. Implementations are safe for
// concurrent use by one controller at a time.
//
// A worker is ready unless it is barred or has not started yet; it turns not
// ready for nothing else that it does.
type Fleet interface {
	// Observe reads the size. An error means unknown, which is never zero.
	Observe(ctx context.Context) (Size, error)
	// Resize asks for n workers if the fleet still wants from of them, and fails
	// otherwise. Going down it removes workers that are pending or not ready
	// before any that is ready, and never more than from-n. After an error the
	// order may have been taken or not. Safe to repeat.
	Resize(ctx context.Context, from, n int) error
}
