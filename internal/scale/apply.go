package scale

import (
	"context"
	"errors"
	"time"

	"tidemill/internal/policy"
	"tidemill/internal/queue"
)

// DefaultSettle suits a cluster: workers that were barred together turn not
// ready within about a probe's period, and a removal that was asked for is under
// way within less.
const DefaultSettle = 2 * time.Second

const (
	// showWithin is how long a barred worker may take to turn not ready. One that
	// does not is gone, or hangs; then all bars are lifted and set afresh.
	showWithin = 30 * time.Second
	// strangersWithin is how long workers that are not ready, though not barred,
	// may take to get ready. Those that do not can't start, or crash again and again.
	strangersWithin = 90 * time.Second
	// allBusy is how soon to look again for a worker that has fallen idle.
	allBusy = time.Second
)

// going is what a controller remembers of a fleet's way down. A fleet is
// described by numbers alone, so that only time tells who is meant by them.
type going struct {
	spent     bool      // the bars that stand have served, or are an earlier controller's
	lowered   time.Time // when the fleet was last asked to shrink
	loweredTo int       // and to what
	barred    time.Time // when bars were last set or lifted
	matched   time.Time // since when just as many are not ready as are barred; zero: they are not
	strangers time.Time // since when more are not ready than are barred; zero: they are not
}

// apply takes one step towards the decision, and says when a further step must
// follow though nothing wakes the controller; 0 means none.
func (c *Controller) apply(ctx context.Context, d policy.Decision, stats queue.Stats, size Size, now time.Time) (again time.Duration, err error) {
	leaving := c.leaving(size, now)
	if d.Workers < size.Wanted {
		if leaving {
			return lookAgain, nil
		}
		return c.shrink(ctx, size.Wanted-d.Workers, stats, size, now)
	}
	c.way.matched, c.way.strangers = time.Time{}, time.Time{}
	if !leaving {
		err = c.lift(ctx, stats.Barred, now)
	}
	if d.Workers > size.Wanted {
		err = errors.Join(err, c.Fleet.Resize(ctx, size.Wanted, d.Workers))
	}
	if leaving && len(stats.Barred) > 0 {
		again = lookAgain
	}
	return again, err
}

// leaving reports whether workers whose going was asked for may still be there.
// Until they have gone no bar is lifted: a worker let in again could take an
// item, and be removed with it. A fleet that grows again meanwhile may carry out
// the older order yet, so that needs a moment too.
func (c *Controller) leaving(size Size, now time.Time) bool {
	there := size.Ready + size.Other
	return there > size.Wanted ||
		c.way.spent && there > c.way.loweredTo && now.Sub(c.way.lowered) < c.Settle
}

// shrink takes one step towards surplus workers fewer:
//
//  1. Workers that do not run yet go first, at no cost.
//  2. A batch of idle workers is barred.
//  3. When as many are not ready as are barred, for a while, exactly they go.
//
// Workers that are not ready though they are not barred upset the count: they
// start (and may hold their first item before anybody sees them ready), crash or
// have been lost. The batch waits for them. If they stay so they go with it,
// unless one of them may hold an item, which is when fewer workers are ready than
// the queue knows as idle or at work; then the batch waits for its lease to end.
func (c *Controller) shrink(ctx context.Context, surplus int, stats queue.Stats, size Size, now time.Time) (time.Duration, error) {
	barred := len(stats.Barred)
	if c.way.spent && barred > 0 {
		return lookAgain, c.lift(ctx, stats.Barred, now)
	}
	c.way.spent = false
	mark(&c.way.matched, barred > 0 && size.Other == barred, now)
	mark(&c.way.strangers, size.Other > barred, now)
	if size.Ready < int(stats.Holders+stats.Idle)-barred {
		return lookAgain, nil
	}
	if size.Pending > 0 {
		return lookAgain, c.lower(ctx, min(surplus, size.Pending), size, now)
	}
	strangers := 0
	if size.Other > barred {
		if now.Sub(c.way.strangers) < strangersWithin {
			return lookAgain, nil
		}
		strangers = size.Other - barred
	}
	need := max(0, surplus-strangers)
	stood := now.Sub(c.way.barred)
	if barred == 0 && need > 0 {
		names, err := c.Queue.Bar(ctx, need)
		if err != nil || len(names) > 0 {
			c.way.barred = now
			return lookAgain, err
		}
	}
	switch {
	case barred > need:
		return lookAgain, c.lift(ctx, stats.Barred[need:], now)
	case stood < c.Settle: // whoever was just let in again may be at work before it is ready
		return lookAgain, nil
	case size.Other < barred && stood >= showWithin:
		return lookAgain, c.lift(ctx, stats.Barred, now)
	case size.Other < barred, size.Other == barred && barred > 0 && now.Sub(c.way.matched) < c.Settle:
		return lookAgain, nil
	case size.Other == 0:
		return allBusy, nil
	}
	return lookAgain, c.lower(ctx, min(surplus, size.Other), size, now)
}

// lower asks the fleet to shrink by k. Whatever becomes of the call, the order
// may be carried out from now on.
func (c *Controller) lower(ctx context.Context, k int, size Size, now time.Time) error {
	if k == 0 || c.now().Sub(now) >= c.Settle {
		return nil // nobody can go, or the picture is too old
	}
	c.way.spent, c.way.lowered, c.way.loweredTo = true, now, size.Wanted-k
	return c.Fleet.Resize(ctx, size.Wanted, size.Wanted-k)
}

func (c *Controller) lift(ctx context.Context, barred []string, now time.Time) error {
	if len(barred) == 0 {
		return nil
	}
	c.way.barred, c.way.matched = now, time.Time{}
	if err := c.Queue.Unbar(ctx, barred...); err != nil {
		return err
	}
	c.way.spent = false
	return nil
}

// mark notes when something began to be so.
func mark(since *time.Time, so bool, now time.Time) {
	switch {
	case !so:
		*since = time.Time{}
	case since.IsZero():
		*since = now
	}
}
