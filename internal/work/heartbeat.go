package work

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/queue"
)

// held is a lease with what the worker's own clock knows of it.
type held struct {
	queue.Lease
	asked  time.Time     // before the call that leased it was sent
	period time.Duration // for how long it was leased then
}

// heartbeat extends the lease until ctx is done, and stops the work when the
// lease is lost, or must be because the queue could not be told for so long:
// the server counts from when it got the last call, which is no earlier than
// when that was sent.
func (j *job) heartbeat(ctx context.Context) {
	d := j.settings.LeaseDuration
	expires := j.lease.asked.Add(j.lease.period)
	t := time.NewTimer(min(d, time.Until(expires)) / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		asked := time.Now()
		kept, err := j.confirm(ctx, max(d/10, min(d/3, expires.Sub(asked))))
		switch {
		case err == nil && kept:
			expires = asked.Add(d)
			t.Reset(d / 3)
		case err == nil:
			j.stop(errLost)
			return
		case ctx.Err() != nil:
			return
		case !time.Now().Before(expires):
			j.log.Warn("no heartbeat got through for a whole lease", zap.Error(err))
			j.stop(errLost)
			return
		default: // sooner than the next one would be due: the server may be back by then
			t.Reset(min(d/20, time.Until(expires)))
		}
	}
}

// confirm extends the lease and reports whether it is still held.
func (j *job) confirm(ctx context.Context, timeout time.Duration) (bool, error) {
	call, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	lost, err := j.Queue.Extend(call, j.Name, j.settings.LeaseDuration, []queue.Held{{ID: j.lease.Item.ID(), Token: j.lease.Token}})
	if ctx.Err() == nil { // otherwise it says nothing about the queue
		j.Reached(err)
	}
	return err == nil && len(lost) == 0, err
}

// confirmBefore makes sure of the lease right before something becomes valid.
// While the queue can't be reached it asks again, until the heartbeat gives up.
func (j *job) confirmBefore(ctx context.Context) error {
	for backoff := newBackoff(); ; {
		kept, err := j.confirm(ctx, callTimeout)
		switch {
		case err == nil && kept:
			return nil
		case err == nil:
			j.stop(errLost)
			return errLost
		}
		if !backoff.wait(ctx) {
			return context.Cause(ctx)
		}
	}
}
