package queue

import (
	"context"
	"errors"
	"time"

	"tidemill/internal/item"
)

// ErrUnavailable marks an error after which the state of the queue is unknown:
// the server could not be reached, refused, or did not answer in time. Callers
// hold what they have and try again; they never read it as an empty queue.
var ErrUnavailable = errors.New("the queue is unavailable")

// ErrFull marks an enqueue that the server refused because its memory is full.
// What is already queued can still be leased and finished.
var ErrFull = errors.New("the queue's memory is full")

// Token fences a lease. Tokens of one item only grow, so whoever holds the
// higher one is the later holder, whatever any worker's clock says.
type Token struct {
	Seq   int64  // microseconds of server time, or the last one plus one
	Nonce string // eight hexadecimal digits; breaks a tie after data loss
}

// Less reports whether t was issued before u.
func (t Token) Less(u Token) bool {
	if t.Seq != u.Seq {
		return t.Seq < u.Seq
	}
	return t.Nonce < u.Nonce
}

// Added says what an enqueue did with one item.
type Added int

// What an enqueue can do with an item.
const (
	AddedNew  Added = iota // the item is waiting now
	AddedLive              // a duplicate: already waiting, leased, delayed or dead
	AddedDone              // a duplicate: already finished, as far back as its tombstone reaches
)

// Producer puts items into a queue.
type Producer interface {
	// Enqueue adds the items that are not known yet and reports, by position,
	// what became of each. It is atomic per item and idempotent: after an error
	// the same call may be made again. Safe for concurrent use.
	Enqueue(ctx context.Context, items []item.Item) ([]Added, error)
}

// Lease is a worker's time-limited right to one item.
type Lease struct {
	Item     item.Item
	Token    Token
	Attempt  int           // 1 for the first run of the command; raised by a failed attempt only
	Delivery int           // 1 for the first hand-out; raised by every hand-out
	Waited   time.Duration // server time since the item was enqueued
	Reason   string        // why the item came back, if it did: the last failed attempt's reason
}

// Kind is what becomes of a leased item.
type Kind string

// The ways to finish a lease.
const (
	Done    Kind = "done"    // results stand; leave a tombstone
	Skip    Kind = "skip"    // superseded or deleted before its turn; leave a tombstone
	Retry   Kind = "retry"   // the attempt failed; come back after Delay
	Bury    Kind = "bury"    // the attempt failed for good: a dead letter
	Defer   Kind = "defer"   // not the item's fault: come back after Delay, the attempt does not count
	Release Kind = "release" // the worker is stopping: back to the head at once, nothing counted
)

// Completion ends one lease.
type Completion struct {
	ID     item.ID
	Token  Token
	Kind   Kind
	Delay  time.Duration // with Retry and Defer
	Reason string        // with Skip, Retry, Bury and Defer: one line for a person
	Busy   time.Duration // time spent on the item, for the measured service time
}

// Verdict is the queue's answer to a Completion.
type Verdict int

// The answers to a completion.
const (
	Finished Verdict = iota // the lease was this worker's, and has ended as asked
	Repeated                // the item had ended already: an earlier try at this call got through
	Refused                 // the lease was lost: another worker holds the item, or it waits again
)

// Turn is one round trip of a worker: finish what it ran, take what comes next.
type Turn struct {
	Worker      string        // unique name; a pod's name
	Completions []Completion  // may be empty
	Want        int           // how many leases to take; 0 takes none
	Lease       time.Duration // how long each lease holds without Extend
}

// Turned is the answer to a Turn.
type Turned struct {
	Verdicts []Verdict // by position of Turn.Completions
	Leases   []Lease   // at most Turn.Want
	Revision int64     // revision of the settings in force for this queue; 0 means none yet
	Barred   bool      // the worker may lease nothing more
}

// Held names a lease for Extend.
type Held struct {
	ID    item.ID
	Token Token
}

// Consumer is a worker's side of a queue.
type Consumer interface {
	// Turn applies the completions, then leases up to Want items. A worker that
	// asked for items, holds none and gets none is registered as idle and is
	// woken by the next enqueue. Completions are idempotent by token; leasing is
	// not: a call whose answer was lost may have leased items, which come back
	// when those leases expire. Implementations never retry a call that leases.
	Turn(ctx context.Context, t Turn) (Turned, error)
	// Extend prolongs leases by d from now (server time) and returns those that
	// are lost. It cannot revive a lost lease. Safe to repeat.
	Extend(ctx context.Context, worker string, d time.Duration, held []Held) (lost []Held, err error)
	// Wait returns when this worker has been woken or d has passed, nil in both
	// cases. The fallback d also bounds a lost wake-up.
	Wait(ctx context.Context, worker string, d time.Duration) error
	// Leave forgets an idle worker that is going away.
	Leave(ctx context.Context, worker string) error
}

// Stats is a consistent reading of one queue at one instant of server time.
type Stats struct {
	Waiting       int64         // leasable now
	Leased        int64         // being worked on
	Delayed       int64         // on retry, all of them
	Due           int64         // on retry and due now (promoted before counting, so usually 0)
	Dead          int64         // dead letters
	OldestWaiting time.Duration // age of the item at the head; 0 if none waits
	NextDue       time.Duration // until the earliest delayed item falls due; negative if none
	NextExpiry    time.Duration // until the earliest lease expires; negative if none
	Holders       int64         // distinct workers that hold a lease
	Idle          int64         // registered idle workers, barred ones included
	Barred        []string      // workers that may lease nothing more, sorted
	Counters      Counters
}

// Counters only grow, except when the server loses its data.
type Counters struct {
	Enqueued   int64
	Duplicates int64
	Done       int64
	Skipped    int64
	Retried    int64 // failed attempts that came back
	Buried     int64
	Deferred   int64
	Released   int64
	Expired    int64 // leases lost
	Busy       time.Duration
}

// Supervisor is the scaler's side of a queue.
type Supervisor interface {
	// Stats also returns expired leases and due retries to the waiting items (a
	// bounded batch), so that a fleet at zero wakes for them.
	Stats(ctx context.Context) (Stats, error)
	// WaitWork returns when the queue has something to tell the scaler (items
	// arrived, or the last one ended) or d has passed, nil in both cases.
	WaitWork(ctx context.Context, d time.Duration) error
	// Bar bars idle workers, longest idle first, until n are barred in all, and
	// returns their names. It is atomic with leasing: a barred worker holds
	// nothing and can lease nothing.
	Bar(ctx context.Context, n int) ([]string, error)
	// Unbar lets the named workers lease again and wakes them; without names, all.
	Unbar(ctx context.Context, workers ...string) error
}

// State is where an item stands.
type State string

// The states of an item. See the package comment for the diagram.
const (
	StateUnknown State = ""
	StateWaiting State = "waiting"
	StateLeased  State = "leased"
	StateDelayed State = "delayed"
	StateDead    State = "dead"
	StateDone    State = "done" // done or skipped, within its tombstone's life
)

// Record is what the queue knows of one item.
type Record struct {
	State  State
	Reason string // of the last failed attempt, or of the dead letter
	Worker string // that holds or last held it
}

// Inspector looks items up.
type Inspector interface {
	// Lookup reports, by position, where each item stands.
	Lookup(ctx context.Context, ids []item.ID) ([]Record, error)
}

// Settings is one accepted revision of all pipelines' settings.
type Settings struct {
	Revision  int64
	Pipelines map[string]map[string]string // pipeline name -> ConfigMap keys as written
}

// SettingsReader reads the settings in force.
type SettingsReader interface {
	// Settings returns the accepted settings; Revision 0 means none were ever accepted.
	Settings(ctx context.Context) (Settings, error)
}

// SettingsStore is the leading scaler's side of the settings.
type SettingsStore interface {
	SettingsReader
	// Accept stores pipelines as the settings in force and returns their
	// revision; an unchanged set keeps its revision. Safe to repeat.
	Accept(ctx context.Context, pipelines map[string]map[string]string) (int64, error)
}
