package scale

import "context"

// Size is a fleet's size as the platform sees it now.
type Size struct {
	Wanted  int // workers asked for
	Ready   int // running, and not barred
	Pending int // asked for, not running yet
	Other   int // running but not ready: barred, or on their way out
}

// Fleet runs the workers of one pipeline. Implementations are safe for
// concurrent use by one controller at a time.
type Fleet interface {
	// Observe reads the size. An error means unknown, which is never zero.
	Observe(ctx context.Context) (Size, error)
	// Resize asks for n workers if the fleet still wants from of them, and fails
	// otherwise. Going down it removes workers that are pending or not ready
	// before any that is ready, and never more than from-n. Safe to repeat.
	Resize(ctx context.Context, from, n int) error
}
