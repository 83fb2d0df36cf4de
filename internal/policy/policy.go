// Package policy decides how many workers a pipeline should have. It is pure:
// the same function serves the scaler, the laptop mode and any simulation.
package policy

import "time"

// Settings are the thresholds that an operator sets. See the pipeline package
// for their keys, defaults and ranges.
type Settings struct {
	MinWorkers       int
	MaxWorkers       int
	ItemsPerWorker   int           // backlog that one worker should face; at least 1
	ScaleDownWindow  time.Duration // going down takes the most that was wanted within it
	ScaleToZeroAfter time.Duration // one worker stays until nothing was to do for this long
	Freeze           bool          // stay at the current size
	FixedWorkers     int           // exactly that many; negative means not fixed
}

// Queue is what was seen of the queue.
type Queue struct {
	Waiting int
	Leased  int
	Holders int           // workers that hold a lease
	NextDue time.Duration // until the next retry falls due; negative if there is none
}

// Fleet is what was seen of the fleet.
type Fleet struct {
	Wanted int // workers asked for already, running or not
}

// Observation is one reading. A nil part could not be read: unknown, never zero.
type Observation struct {
	Queue *Queue
	Fleet *Fleet
}

// History is what a decision needs of earlier ones. The zero History means that
// nothing is known of the past; the current size then counts for a whole window.
// It may be stored and read back by another process.
type History struct {
	// Wanted holds, of what was wanted within the scale-down window, whatever
	// nothing later was larger than: sizes fall and times rise, so that there is
	// at most one sample for each size.
	Wanted     []Sample
	Active     bool      // something was waiting, leased or about to fall due at the last look
	LastActive time.Time // when that was last so, as far as is known
}

// Sample is one size that was wanted, and when it last was. A size counts as
// wanted until a later look finds another: what happened in between is unknown.
type Sample struct {
	At      time.Time
	Workers int
}

// Code names a rule that changed or held the number.
type Code string

// The rules, in the order in which they apply.
const (
	Unobserved Code = "unobserved"          // something could not be read: hold
	Backlog    Code = "backlog"             // ceil(backlog / items-per-worker)
	Busy       Code = "busy"                // not below the workers that hold a lease
	Fixed      Code = "fixed-workers"       // whatever the backlog
	Frozen     Code = "freeze"              // over fixed-workers too
	DownWindow Code = "scale-down-window"   // held up by what was wanted recently
	KeepOne    Code = "scale-to-zero-after" // too early for zero
	MinWorkers Code = "min-workers"         // the lower bound
	MaxWorkers Code = "max-workers"         // the upper bound
)

// Reason is one step of a decision: the rule and the number after it.
type Reason struct {
	Code    Code `json:"code"`
	Workers int  `json:"workers"`
}

// Decision is how many workers there should be, and why.
type Decision struct {
	Hold    bool     // leave everything as it is; Workers means nothing
	From    int      // workers asked for before
	Workers int      // workers to ask for
	Reasons []Reason // every step that changed the number, in order
	// Recheck is when to decide again if nothing happens before; 0 means no need.
	Recheck time.Duration
}
