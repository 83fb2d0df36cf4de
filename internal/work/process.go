package work

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"go.uber.org/zap"

	"tidemill/internal/bucket"
	"tidemill/internal/command"
	"tidemill/internal/obs"
	"tidemill/internal/pipeline"
	"tidemill/internal/queue"
	"tidemill/internal/result"
)

// Why a run was cut short.
var (
	errLost     = errors.New("the lease was lost")
	errStopping = errors.New("the worker is stopping")
)

// job is one leased item on its way through the worker.
type job struct {
	*Worker
	lease    held
	settings pipeline.Pipeline // in force when it was leased
	fence    result.Fence
	log      *zap.Logger
	started  time.Time
	stop     context.CancelCauseFunc // cuts the work short
}

// outcome is what became of a job; run is there if the command ran.
type outcome struct {
	kind   queue.Kind
	reason string
	run    *command.Result
}

// process works on one lease. ended is false when the item is no longer this
// worker's, so that there is nothing to tell the queue.
func (w *Worker) process(ctx context.Context, lease held) (c queue.Completion, ended bool) {
	id := lease.Item.ID()
	c = queue.Completion{ID: id, Token: lease.Token}
	if ctx.Err() != nil {
		c.Kind = queue.Release
		return c, true
	}
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	j := &job{
		Worker: w, lease: lease, settings: w.settings, started: time.Now(), stop: stop,
		fence: result.FenceOf(lease.Item, lease.Token),
		log: w.Log.With(obs.Label("item", string(id)), zap.Int("attempt", lease.Attempt), zap.Int("delivery", lease.Delivery),
			obs.Trace(lease.Item.Traceparent)),
	}
	w.Metrics.busy.Set(1)
	defer w.Metrics.busy.Set(0)

	var beside sync.WaitGroup
	beside.Go(func() { j.heartbeat(work) })
	beside.Go(func() { j.drain(ctx, work) })
	o, cause := j.end(work)
	stop(nil)
	beside.Wait()

	c.Busy = time.Since(j.started)
	switch {
	case errors.Is(cause, errLost) && o.kind != queue.Done:
		w.Metrics.lost.Inc()
		j.log.Warn("the lease was lost; another worker goes on with the item")
		return c, false
	case errors.Is(cause, errStopping) && o.kind != queue.Done:
		o = outcome{kind: queue.Release, reason: errStopping.Error()}
	}
	w.Metrics.seconds.WithLabelValues(string(o.kind)).Observe(c.Busy.Seconds())
	c.Kind, c.Reason = o.kind, o.reason
	if o.kind == queue.Retry || o.kind == queue.Defer {
		c.Delay = jitter(j.settings.RetryBackoffMin, j.settings.RetryBackoffMax, max(lease.Attempt, lease.Delivery))
	}
	j.logOutcome(o, c)
	return c, true
}

// drain stops the work some time after the worker was told to stop.
func (j *job) drain(ctx, work context.Context) {
	select {
	case <-ctx.Done():
	case <-work.Done():
		return
	}
	t := time.NewTimer(j.Drain)
	defer t.Stop()
	select {
	case <-t.C:
		j.stop(errStopping)
	case <-j.Kill:
		j.stop(errStopping)
	case <-work.Done():
	}
}

// end does the work, up to the report of a dead letter. cause is there if the
// work was cut short.
func (j *job) end(work context.Context) (o outcome, cause error) {
	o = j.run(work)
	cause = context.Cause(work)
	if cause == nil && o.run != nil && o.run.Cause == command.CauseCanceled {
		cause = errStopping // killed before the drain noticed
	}
	if o.kind == queue.Defer && j.lease.Delivery >= j.settings.MaxDeliveries {
		o.kind = queue.Bury
	}
	if o.kind == queue.Bury && cause == nil {
		// Whoever has lost the lease must not report a failure of what another
		// worker may have done by now.
		reported := false
		if err := j.confirmBefore(work); err == nil {
			reported = j.report(work, o)
		}
		// A dead letter that the stop kept from being reported is left to others.
		if now := context.Cause(work); errors.Is(now, errLost) || errors.Is(now, errStopping) && !reported {
			cause = now
		}
	}
	return o, cause
}

func (j *job) logOutcome(o outcome, c queue.Completion) {
	fields := []zap.Field{zap.String("outcome", string(o.kind)), zap.Duration("took", c.Busy)}
	if o.reason != "" {
		fields = append(fields, zap.String("reason", o.reason))
	}
	switch o.kind {
	case queue.Bury:
		j.log.Error("the item is a dead letter", fields...)
	case queue.Retry, queue.Defer:
		j.log.Warn("the item comes back", append(fields, zap.Duration("delay", c.Delay))...)
	default:
		j.log.Info("the item is finished", fields...)
	}
}

// run does the work and says what became of it.
func (j *job) run(ctx context.Context) outcome {
	streaming := j.settings.IO == pipeline.Stream
	// What stands under this name marks the set of results as complete.
	target := j.settings.Results.Manifest(j.lease.Item.Object)
	if streaming {
		target = j.settings.Results.Expand(j.lease.Item.Object)
		if err := j.checkName(target); err != nil {
			return j.faulted("naming the result", err)
		}
	}
	// First of all: whatever else is wrong, an item whose results stand has not failed.
	there, stands, err := j.before(ctx, target)
	switch limit := j.settings.MaxObjectSize; {
	case stands:
		j.removeReport(ctx)
		return outcome{kind: queue.Done, reason: "its results stood already"}
	case j.lease.Delivery > j.settings.MaxDeliveries && !errors.Is(err, errFenced):
		return outcome{kind: queue.Bury, reason: j.workerLost()}
	case err != nil:
		return j.faulted("looking for earlier results", err)
	case limit >= 0 && j.lease.Item.Size > limit:
		return outcome{kind: queue.Bury, reason: fmt.Sprintf("too-large: the object has %d bytes, more than max-object-size, %d", j.lease.Item.Size, limit)}
	}
	var o outcome
	if streaming {
		o = j.stream(ctx, target, there)
	} else {
		o = j.files(ctx, target)
	}
	if o.kind == queue.Done && ctx.Err() == nil {
		j.removeReport(ctx)
	}
	return o
}

func (j *job) workerLost() string {
	reason := fmt.Sprintf("worker-lost: handed out %d times without an end (a crash, possibly out of memory)", j.lease.Delivery-1)
	if j.lease.Reason != "" {
		reason += "; the last reason given was: " + j.lease.Reason
	}
	return oneLine(reason)
}

// ranWith classifies the end of a command that was not a success.
func (j *job) ranWith(r command.Result) outcome {
	o := outcome{run: &r, reason: oneLine(r.Reason())}
	if errors.Is(r.Err, command.ErrHeld) { // the command's doing, not ours
		o.kind = j.failed()
		return o
	}
	switch r.Cause {
	case command.CauseStart, command.CauseInput, command.CauseOutput, command.CauseCanceled:
		o.kind = queue.Defer
	case command.CauseExit:
		switch {
		case slices.Contains(j.settings.PermanentExitCodes, r.ExitCode):
			o.kind, o.reason = queue.Bury, o.reason+" (permanent)"
		case r.ExitCode == 126 || r.ExitCode == 127:
			// A shell's way to say that it could not execute a program.
			o.kind = queue.Defer
		default:
			o.kind = j.failed()
		}
	default:
		o.kind = j.failed()
	}
	return o
}

// failed is what a failed attempt leads to.
func (j *job) failed() queue.Kind {
	if j.lease.Attempt >= j.settings.MaxAttempts {
		return queue.Bury
	}
	return queue.Retry
}

// faulted classifies an error of our own part in the work.
func (j *job) faulted(doing string, err error) outcome {
	o := outcome{kind: queue.Defer, reason: oneLine(doing + ": " + err.Error())}
	var p *permanentError
	switch {
	case errors.As(err, &p):
		o.kind = queue.Bury
		o.reason = oneLine(p.Error())
	case errors.Is(err, errFenced):
		o.kind, o.reason = queue.Skip, "superseded: results of a newer generation or run stand"
	case errors.Is(err, errGone):
		o.kind, o.reason = queue.Skip, "gone: this generation no longer exists"
	case errors.Is(err, bucket.ErrDenied):
		o.reason = "denied: " + o.reason
	case errors.Is(err, errNoOutput):
		o.kind, o.reason = j.failed(), oneLine("no-output: "+err.Error())
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		// Nothing else is in the work directory, so waiting would not help.
		o.kind, o.reason = j.failed(), "no-space: "+o.reason
	}
	return o
}

// permanentError is a fault that no retry can mend.
type permanentError struct{ text string }

func (e *permanentError) Error() string { return e.text }

// jitter returns a delay between low and an end that doubles with each try, up
// to high: exponential backoff with full jitter. With a low of zero the doubling
// starts at a second.
func jitter(low, high time.Duration, try int) time.Duration {
	end := min(high, max(low, time.Second))
	for range min(try, 40) {
		if end = min(high, 2*end); end == high {
			break
		}
	}
	if end <= low {
		return low
	}
	return low + rand.N(end-low)
}

// oneLine makes a reason fit for a log line and a table, whatever an object's
// name in it contains.
func oneLine(s string) string {
	const most = 1000
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
