// Package command runs a processor author's command on one object: arguments,
// environment, process group, time limit, and what is kept of its output.
//
// # How a run ends
//
// A command is over when the process that was started, its leader, has exited.
// It has a process group of its own; whatever is left in the group then is
// killed. A run is ended early by the context, Run.Kill, Run.Timeout, or a
// failure of Run.Stdin or Run.Stdout: the group gets SIGTERM and, after
// Spec.Grace, SIGKILL. A process that leaves the group (setsid, or a shell with
// job control) escapes; it can't hold a run up, but it lives as long as its
// container does.
//
// # Which cause wins
//
//  1. CauseCanceled, whatever else happened: the item is no longer ours.
//  2. CauseTimeout, CauseInput or CauseOutput, if it made us end the command: a
//     failure at our end must not be charged to the command, whatever exit code
//     it then gave.
//  3. CauseSignal and CauseExit: what the command did by itself.
//  4. CauseOutput, if the rest of what it wrote could not be taken after exit 0.
//  5. CauseOK. A command may leave its standard input unread.
package command

import (
	"errors"
	"io"
	"time"

	"tidemill/internal/item"
)

// ErrKill as the cause of a context (context.WithCancelCause) ends a run with
// SIGKILL at once, without the grace period.
var ErrKill = errors.New("killed without grace")

// ErrHeld marks standard output that some process still held open after the
// command had exited 0: nobody can say whether the result is whole.
var ErrHeld = errors.New("a process that the command left behind still holds standard output: " +
	"let the command wait for it, or redirect its output")

// TailBytes is how much of a command's last output is kept for a failure report.
const TailBytes = 64 << 10

// Spec is what to run, the same for every object of a pipeline.
type Spec struct {
	// Argv is the program, looked up in the worker's PATH, and its arguments.
	// {input} and {output} are replaced anywhere in the arguments, never in the
	// program's name: an upload is data and is not executed.
	Argv []string
	// Grace is the time between SIGTERM and SIGKILL when a run is ended early.
	// With 0 or less there is no SIGTERM.
	Grace time.Duration
	// Scrub lists names of environment variables that the command must not see,
	// besides those this package always removes. A trailing * matches a prefix.
	Scrub []string
	// Log receives the command's output line by line, without line ends; it may
	// be nil. It is called from one goroutine at a time for each run, and never
	// after Run has returned. The stream is "stdout" or "stderr". The line is
	// valid UTF-8; one longer than 8 KiB comes in pieces, and "[...]" marks where
	// they were cut. A Log that blocks holds the command up, and Run too.
	Log func(stream, line string)
}

// Run is one object's part.
type Run struct {
	Item     item.Item
	Attempt  int
	Pipeline string
	Timeout  time.Duration // hard limit; 0 means none

	// Kill, once closed, ends the run with SIGKILL at once, also during the
	// grace period of an earlier end. The cause is CauseCanceled. It may be nil.
	Kill <-chan struct{}

	// Input and Output are absolute paths, for io "files"; either may be empty.
	Input  string
	Output string
	// Stdin and Stdout are for io "stream". A nil Stdin is /dev/null. A nil
	// Stdout makes standard output part of the log, as standard error always is.
	//
	// After the command is over, Run waits 2 s for a Read in progress, and after
	// an early end 2 s for a Write: bind both to a context that is canceled when
	// Run has returned, and don't reuse them.
	Stdin  io.Reader
	Stdout io.Writer
}

// Result says how a run ended.
type Result struct {
	Cause    Cause
	ExitCode int    // as the command gave it; -1 if it did not exit by itself
	Signal   string // name of the signal that ended it, e.g. SIGKILL; empty if none
	Tail     []byte // the last TailBytes of what it logged, raw, in order of arrival
	Took     time.Duration
	Timeout  time.Duration // with CauseTimeout: the limit that was over
	// Err says what went wrong with CauseStart, CauseInput and CauseOutput, and
	// why with CauseCanceled: the context's cause, or ErrKill after Run.Kill.
	Err error
}

// Cause classifies the end of a run.
type Cause string

// The ways a run can end.
const (
	CauseOK       Cause = "ok"          // exit 0, and its output was taken whole
	CauseExit     Cause = "exit"        // exit code other than 0
	CauseSignal   Cause = "signal"      // ended by a signal that was not ours
	CauseTimeout  Cause = "timeout"     // ended by us: Timeout was over
	CauseCanceled Cause = "canceled"    // ended by us: the context was done, or Kill closed
	CauseStart    Cause = "not-started" // could not be executed: a fault of the environment
	CauseInput    Cause = "input"       // ended by us: reading Stdin failed
	CauseOutput   Cause = "output"      // Stdout refused what it wrote, or ErrHeld
)
