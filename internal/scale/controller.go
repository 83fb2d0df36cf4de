// Package scale is the scaler's loop for one pipeline: observe, decide, apply,
// record. The decision itself is package policy's.
//
// # Going down without killing
//
// A fleet removes workers that are not ready before any that is. To go down by
// k, k idle workers are barred in the queue, atomically with leasing, so that
// none of them can hold an item; they turn not ready; when the fleet shows it,
// the new size is asked for and exactly they go. If work arrives before that,
// they are let in again. Once it has been asked for, they stay barred until they
// are gone.
//
// Only idle workers are ever barred. Where the decision is below the number of
// workers that hold a lease (max-workers was lowered, say), the fleet gets there
// as they fall idle.
package scale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/obs"
	"tidemill/internal/policy"
	"tidemill/internal/queue"
)

const (
	callTimeout = 15 * time.Second
	// Wakes act at once, then at most this often.
	minInterval = 100 * time.Millisecond
	// How soon to look again for something that sends no wake: workers on their
	// way to not ready, a fleet that can't be read.
	lookAgain = 250 * time.Millisecond
)

// Config is what a Controller works with. All fields are required unless they
// say otherwise.
type Config struct {
	Pipeline string
	Queue    queue.Supervisor
	Fleet    Fleet
	Settings func() policy.Settings
	// Tick bounds how long a change that sent no wake goes unnoticed.
	Tick time.Duration
	// Settle is how long a picture of the fleet has to stand before workers are
	// let go by it: longer than it takes all barred workers to show as not ready.
	// 0 means DefaultSettle.
	Settle time.Duration
	// Kick makes the controller look at once. It may be nil.
	Kick    <-chan struct{}
	Log     *zap.Logger
	Metrics *Metrics
	// Reached is told the outcome of each reading of the queue and the fleet. It may be nil.
	Reached func(error)
	// Decided is told each decision that differs from the one before. It may be nil.
	Decided func(policy.Decision)
}

// Controller scales one pipeline's fleet.
type Controller struct {
	Config
	history policy.History
	way     going
	last    *policy.Decision // nil: none has been told of
	failing bool
	refused string // the last error of apply
	now     func() time.Time
}

// New returns a controller without history.
func New(c Config) *Controller {
	if c.Reached == nil {
		c.Reached = func(error) {}
	}
	if c.Decided == nil {
		c.Decided = func(policy.Decision) {}
	}
	c.Log = c.Log.With(obs.Label("pipeline", c.Pipeline))
	c.Settle = cmp.Or(c.Settle, DefaultSettle)
	// Bars that stand are those of a controller before this one.
	return &Controller{Config: c, way: going{spent: true}, now: time.Now}
}

// Run scales until ctx is done. The fleet then stays as it is.
func (c *Controller) Run(ctx context.Context) {
	wake := make(chan struct{}, 1)
	listening := make(chan struct{})
	go func() { defer close(listening); c.listen(ctx, wake) }()
	defer func() { <-listening }()
	for {
		acted := time.Now()
		again := c.step(ctx)
		timer := time.NewTimer(min(again, c.Tick))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
		case <-c.Kick:
		case <-timer.C:
		}
		timer.Stop()
		if rest := minInterval - time.Since(acted); rest > 0 {
			pause(ctx, rest)
		}
	}
}

// listen turns the queue's wake-ups into wake.
func (c *Controller) listen(ctx context.Context, wake chan<- struct{}) {
	for ctx.Err() == nil {
		if err := c.Queue.WaitWork(ctx, c.Tick); err != nil {
			pause(ctx, time.Second)
			continue
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// step does one round and says when to look again at the latest.
func (c *Controller) step(parent context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(parent, callTimeout)
	defer cancel()
	now := c.now() // before the readings: they are at most this old
	stats, qErr := c.Queue.Stats(ctx)
	size, fErr := c.Fleet.Observe(ctx)
	if parent.Err() != nil {
		return c.Tick
	}
	err := errors.Join(qErr, fErr)
	c.Reached(err)
	c.logReach(err)
	var o policy.Observation
	if qErr == nil {
		o.Queue = &policy.Queue{
			Waiting: int(stats.Waiting + stats.Due), Leased: int(stats.Leased), Holders: int(stats.Holders), NextDue: stats.NextDue,
		}
	}
	if fErr == nil {
		o.Fleet = &policy.Fleet{Wanted: size.Wanted}
	}
	d, history := policy.Decide(c.Settings(), o, c.history, now)
	c.history = history
	c.Metrics.observe(c.Pipeline, stats, size, d, err)
	c.record(d)
	if d.Hold {
		return time.Second
	}
	again := c.Tick
	for _, t := range []time.Duration{d.Recheck, positive(stats.NextExpiry)} {
		if t > 0 {
			again = min(again, t+time.Millisecond)
		}
	}
	soon, err := c.apply(ctx, d, stats, size, now)
	if err != nil {
		if parent.Err() == nil && err.Error() != c.refused {
			c.Log.Warn("could not apply the decision; trying again", zap.Int("workers", d.Workers), zap.Error(err))
			c.refused = err.Error() // not every second anew
		}
		return time.Second
	}
	c.refused = ""
	if soon > 0 {
		again = min(again, soon)
	}
	return again
}

// positive makes "none" zero, and "now" a moment.
func positive(d time.Duration) time.Duration {
	if d < 0 {
		return 0
	}
	return max(d, lookAgain)
}

// record tells of a decision that differs from the one before.
func (c *Controller) record(d policy.Decision) {
	if c.last != nil && d.Hold == c.last.Hold && d.Workers == c.last.Workers && d.From == c.last.From {
		return
	}
	c.last = &d
	c.Decided(d)
	fields := []zap.Field{zap.Any("decision", d.Reasons), zap.Int("from", d.From), zap.Int("to", d.Workers)}
	if d.Hold {
		c.Log.Warn("holding the fleet", fields...)
		return
	}
	if d.From != d.Workers {
		c.Log.Info(fmt.Sprintf("scaling from %d to %d workers", d.From, d.Workers), fields...)
	}
}

func (c *Controller) logReach(err error) {
	if err != nil && !c.failing {
		c.Log.Warn("can't see the whole picture, so nothing is changed", zap.Error(err))
	}
	c.failing = err != nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
