package work

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

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
	lease    queue.Lease
	settings pipeline.Pipeline // in force when it was leased
	fence    result.Fence
	log      *zap.Logger
	started  time.Time
}

// outcome is what became of a job; run is there if the command ran.
type outcome struct {
	kind   queue.Kind
	reason string
	run    *command.Result
}

// process works on one lease. ended is false when the item is no longer this
// worker's, so that there is nothing to tell the queue.
func (w *Worker) process(ctx context.Context, lease queue.Lease) (c queue.Completion, ended bool) {
	id := lease.Item.ID()
	c = queue.Completion{ID: id, Token: lease.Token}
	if ctx.Err() != nil {
		c.Kind = queue.Release
		return c, true
	}
	j := &job{
		Worker: w, lease: lease, settings: w.settings, started: time.Now(),
		fence: result.FenceOf(lease.Item, lease.Token),
		log: w.Log.With(obs.Label("item", string(id)), zap.Int("attempt", lease.Attempt), zap.Int("delivery", lease.Delivery),
			obs.Trace(lease.Item.Traceparent)),
	}
	w.Metrics.busy.Set(1)
	defer w.Metrics.busy.Set(0)

	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	beating := make(chan struct{})
	go func() { defer close(beating); j.heartbeat(work, stop) }()
	drain := context.AfterFunc(ctx, func() {
		t := time.NewTimer(w.Drain)
		defer t.Stop()
		select {
		case <-t.C:
			stop(errStopping)
		case <-w.Kill:
			stop(errStopping)
		case <-work.Done():
		}
	})
	o := j.run(work)
	cause := context.Cause(work)
	if cause == nil && o.run != nil && o.run.Cause == command.CauseCanceled {
		cause = errStopping // killed before the drain noticed
	}
	if o.kind == queue.Bury || o.kind == queue.Defer && lease.Delivery >= j.settings.MaxDeliveries {
		o.kind = queue.Bury
		if cause == nil {
			j.report(work, o)
		}
	}
	stop(nil)
	drain()
	<-beating

	c.Busy = time.Since(j.started)
	w.Metrics.seconds.WithLabelValues(string(o.kind)).Observe(c.Busy.Seconds())
	switch {
	case errors.Is(cause, errLost) && o.kind != queue.Done:
		w.Metrics.lost.Inc()
		j.log.Warn("the lease was lost; another worker goes on with the item")
		return c, false
	case errors.Is(cause, errStopping) && o.kind != queue.Done:
		o = outcome{kind: queue.Release, reason: errStopping.Error()}
	}
	c.Kind, c.Reason = o.kind, o.reason
	if o.kind == queue.Retry || o.kind == queue.Defer {
		c.Delay = jitter(j.settings.RetryBackoffMin, j.settings.RetryBackoffMax, max(lease.Attempt, lease.Delivery))
	}
	j.logOutcome(o, c)
	return c, true
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

// heartbeat extends the lease until ctx is done, and cancels the work when the
// lease is lost, or must be because the queue could not be told for so long.
func (j *job) heartbeat(ctx context.Context, stop context.CancelCauseFunc) {
	d := j.settings.LeaseDuration
	tick := time.NewTicker(d / 3)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked := time.Now()
		held, err := j.confirm(ctx, d/3)
		switch {
		case err == nil && held:
			last = asked
		case err == nil:
			stop(errLost)
			return
		case ctx.Err() == nil && time.Since(last) > d:
			j.log.Warn("no heartbeat got through for a whole lease", zap.Error(err))
			stop(errLost)
			return
		}
	}
}

// confirm extends the lease and reports whether it is still held.
func (j *job) confirm(ctx context.Context, timeout time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	held := queue.Held{ID: j.lease.Item.ID(), Token: j.lease.Token}
	lost, err := j.Queue.Extend(ctx, j.Name, j.settings.LeaseDuration, []queue.Held{held})
	j.Reached(err)
	return len(lost) == 0, err
}

// run does the work and says what became of it.
func (j *job) run(ctx context.Context) outcome {
	if j.lease.Delivery > j.settings.MaxDeliveries {
		reason := fmt.Sprintf("worker-lost: handed out %d times without an end (a crash, possibly out of memory)", j.lease.Delivery-1)
		if j.lease.Reason != "" {
			reason += "; the last reason given was: " + j.lease.Reason
		}
		return outcome{kind: queue.Bury, reason: reason}
	}
	if limit := j.settings.MaxObjectSize; limit >= 0 && j.lease.Item.Size > limit {
		return outcome{kind: queue.Bury, reason: fmt.Sprintf("too-large: the object has %d bytes, more than max-object-size, %d", j.lease.Item.Size, limit)}
	}
	var o outcome
	if j.settings.IO == pipeline.Stream {
		o = j.stream(ctx)
	} else {
		o = j.files(ctx)
	}
	if o.kind == queue.Done && ctx.Err() == nil {
		j.removeReport(ctx)
	}
	return o
}

// ranWith classifies the end of a command that was not a success.
func (j *job) ranWith(r command.Result) outcome {
	o := outcome{run: &r, reason: r.Reason()}
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
		o.kind, o.reason = queue.Skip, "superseded: newer results stand"
	case errors.Is(err, errGone):
		o.kind, o.reason = queue.Skip, "gone: this generation no longer exists"
	case errors.Is(err, bucket.ErrDenied):
		o.reason = "denied: " + o.reason
	case errors.Is(err, syscall.ENOSPC):
		// Nothing else is in the work directory, so waiting would not help.
		o.kind, o.reason = j.failed(), "no-space: "+o.reason
	}
	return o
}

// permanentError is a fault that no retry can mend.
type permanentError struct{ text string }

func (e *permanentError) Error() string { return e.text }

// jitter returns a delay between low and an end that doubles with each try, up
// to high: exponential backoff with full jitter.
func jitter(low, high time.Duration, try int) time.Duration {
	end := low
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

// oneLine makes a reason fit for a log line and a table.
func oneLine(s string) string {
	const most = 1000
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "�"), func(r rune) bool { return r == '\n' || r == '\r' }), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
