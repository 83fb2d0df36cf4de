package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Run runs the command once. It returns when the command's leader has exited,
// its process group has been killed, and its output has been taken; see the
// package comment for which cause wins. A context that is already done starts
// nothing.
func (s Spec) Run(ctx context.Context, r Run) Result {
	began := time.Now()
	res := s.run(ctx, r)
	res.Took = time.Since(began)
	return res
}

func (s Spec) run(ctx context.Context, r Run) Result {
	if err := stopped(ctx, r.Kill); err != nil {
		return Result{Cause: CauseCanceled, ExitCode: -1, Err: err}
	}
	argv, err := expand(s.Argv, r)
	if err != nil {
		return Result{Cause: CauseStart, ExitCode: -1, Err: err}
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = environ(os.Environ(), s.Scrub, r)
	pipes, err := openPipes(cmd, r.Stdin != nil)
	if err != nil {
		return Result{Cause: CauseStart, ExitCode: -1, Err: err}
	}
	defer pipes.close()
	p, err := start(cmd)
	pipes.closeTheirs()
	if err != nil {
		return Result{Cause: CauseStart, ExitCode: -1, Err: err}
	}
	x := &execution{process: p, pipes: pipes, run: r, grace: s.Grace, out: &output{log: s.Log}}
	x.copy()
	x.wait(ctx)
	return x.finish(ctx)
}

// stopped returns why the run is to be ended, or nil.
func stopped(ctx context.Context, kill <-chan struct{}) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-kill:
		return ErrKill
	default:
		return nil
	}
}

// execution is one run of a started command.
type execution struct {
	*process
	pipes *pipes
	run   Run
	grace time.Duration

	out    *output
	logs   sync.WaitGroup // the goroutines that read logged streams
	fed    chan copied    // gets one value when feeding Stdin is over; nil if there is none or it is read
	taken  chan copied    // the same for taking Stdout
	expire <-chan time.Time

	// ending is why we end the run, empty while the command is let alone, and
	// err the reason with it. Both are set once, but CauseCanceled overrides.
	ending Cause
	err    error
	alone  bool // the leader had exited before that
}

// copied says how moving a stream ended. Late is a failure after the leader had
// exited: what the leader did can't come from it.
type copied struct {
	err  error
	late bool
}

func (x *execution) closing(err error) copied { return copied{err, err != nil && x.over()} }

// copy starts the goroutines that move the command's input and output.
func (x *execution) copy() {
	if x.run.Stdin != nil {
		x.fed = make(chan copied, 1)
		go func(fed chan<- copied) { fed <- x.closing(feed(x.pipes.stdin, x.run.Stdin)) }(x.fed)
	}
	x.logged("stderr", x.pipes.stderr)
	if x.run.Stdout == nil {
		x.logged("stdout", x.pipes.stdout)
		return
	}
	x.taken = make(chan copied, 1)
	go func(taken chan<- copied) {
		taken <- x.closing(take(x.pipes.stdout, func(p []byte) error {
			n, err := x.run.Stdout.Write(p)
			if err == nil && n < len(p) {
				err = io.ErrShortWrite
			}
			if err != nil {
				return fmt.Errorf("passing on standard output: %w", err)
			}
			return nil
		}))
		// Only now, so that a failure is known before the command can notice it.
		closeAll(x.pipes.stdout)
	}(x.taken)
}

func (x *execution) logged(stream string, f *os.File) {
	x.logs.Go(func() {
		s := &splitter{emitLine: func(line string) { x.out.log(stream, line) }}
		// An error is a process that holds the stream and is none of ours any
		// more, or a pipe that broke: the log ends here either way.
		_ = take(f, func(p []byte) error { x.out.write(s, p); return nil })
		x.out.end(s)
	})
}

// wait returns when the leader has exited and, unless the run was ended, the
// whole of its output has been passed on or somebody still holds it.
func (x *execution) wait(ctx context.Context) {
	exited, done, kill := x.exited, ctx.Done(), x.run.Kill
	var limit <-chan time.Time
	if x.run.Timeout > 0 {
		t := time.NewTimer(x.run.Timeout)
		defer t.Stop()
		limit = t.C
	}
	for exited != nil || x.taken != nil && x.ending == "" {
		select {
		case <-exited:
			exited = nil
			x.leaderGone()
		case <-done:
			done = nil
			err := context.Cause(ctx)
			x.end(CauseCanceled, err, errors.Is(err, ErrKill))
		case <-kill:
			kill = nil
			x.end(CauseCanceled, ErrKill, true)
		case <-limit:
			if exited != nil {
				x.end(CauseTimeout, nil, false)
			} else {
				x.end(CauseOutput, fmt.Errorf("standard output was not passed on within the time limit of %s", x.run.Timeout), true)
			}
		case <-x.expire:
			x.signal(syscall.SIGKILL)
		case c := <-x.fed:
			x.inputOver(c)
		case c := <-x.taken:
			x.outputOver(c)
		}
	}
}

// leaderGone looks at what happened before the leader exited, and lets nothing
// wait for it any longer.
func (x *execution) leaderGone() {
	select {
	case c := <-x.fed:
		x.inputOver(c)
	default:
	}
	select {
	case c := <-x.taken:
		x.outputOver(c)
	default:
	}
	if x.ending == "" {
		x.alone = true
	}
	closeAll(x.pipes.stdin)
	// Whoever else writes standard output, such as the end of a pipeline that
	// its shell didn't wait for, gets this long before it is killed. The limit
	// is on the writers: how long we take to pass on what is there is not in it.
	_ = x.pipes.stdout.SetReadDeadline(time.Now().Add(linger)) // fails if closed
}

func (x *execution) inputOver(c copied) {
	x.fed = nil
	if c.err != nil && !c.late { // a command that is over needs no more of it
		x.end(CauseInput, c.err, false)
	}
}

func (x *execution) outputOver(c copied) {
	x.taken = nil
	if c.err != nil {
		if c.late && x.ending == "" {
			x.alone = true
		}
		x.end(CauseOutput, c.err, false)
	}
}

// end begins to end the run; a later call can only make it quicker, and turn
// its cause into CauseCanceled.
func (x *execution) end(cause Cause, err error, now bool) {
	first := x.ending == ""
	if first || cause == CauseCanceled && x.ending != CauseCanceled {
		x.ending, x.err = cause, err
	}
	switch {
	case now || x.grace <= 0:
		x.signal(syscall.SIGKILL)
	case first:
		x.terminate()
		x.expire = time.After(x.grace)
	}
}

// finish clears up after the leader has exited, and returns the result.
func (x *execution) finish(ctx context.Context) Result {
	status, waitErr := x.reap()
	now := time.Now()
	_ = x.pipes.stderr.SetReadDeadline(now.Add(linger))
	if x.run.Stdout == nil {
		_ = x.pipes.stdout.SetReadDeadline(now.Add(linger))
	} else {
		_ = x.pipes.stdout.SetReadDeadline(now) // what is still unread isn't wanted
	}
	x.logs.Wait()
	x.letGo()
	res := Result{ExitCode: -1, Tail: x.out.last()}
	if status.Signaled() {
		res.Signal = signalName(status.Signal())
	} else if waitErr == nil {
		res.ExitCode = status.ExitStatus()
	}
	switch err := stopped(ctx, x.run.Kill); {
	case x.ending == CauseCanceled:
		res.Cause, res.Err = CauseCanceled, x.err
	case err != nil:
		res.Cause, res.Err = CauseCanceled, err
	case waitErr != nil:
		res.Cause, res.Err = CauseStart, waitErr
	case x.ending != "" && !x.alone:
		res.Cause, res.Err = x.ending, x.err
	case status.Signaled():
		res.Cause = CauseSignal
	case status.ExitStatus() != 0:
		res.Cause = CauseExit
	case x.ending != "":
		res.Cause, res.Err = x.ending, x.err
	default:
		res.Cause = CauseOK
	}
	if res.Cause == CauseTimeout {
		res.Timeout = x.run.Timeout
	}
	return res
}

// letGo waits a little for a Read of Stdin or a Write to Stdout in progress. One
// that doesn't return is left to the context that its owner bound it to.
func (x *execution) letGo() {
	if x.fed == nil && x.taken == nil {
		return
	}
	limit := time.NewTimer(linger)
	defer limit.Stop()
	for x.fed != nil || x.taken != nil {
		select {
		case <-x.fed:
			x.fed = nil
		case <-x.taken:
			x.taken = nil
		case <-limit.C:
			return
		}
	}
}
