package redisq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

// Stats implements queue.Supervisor.
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	reply, err := q.run(ctx, q.server.scripts.stats, forgetIdleAfter.Milliseconds())
	if err != nil {
		return queue.Stats{}, fmt.Errorf("reading the queue's depth: %w", err)
	}
	r := reader{values: reply}
	s := queue.Stats{
		Waiting: r.int(), Leased: r.int(), Delayed: r.int(), Due: r.int(), Dead: r.int(),
		OldestWaiting: r.milliseconds(), NextDue: r.milliseconds(), NextExpiry: r.milliseconds(),
		Holders: r.int(), Idle: r.int(),
	}
	barred, counters := r.list(), r.list()
	for range barred.values {
		s.Barred = append(s.Barred, barred.string())
	}
	slices.Sort(s.Barred)
	c := map[string]int64{}
	for range len(counters.values) / 2 {
		name := counters.string()
		c[name] = counters.int()
	}
	s.Counters = queue.Counters{
		Enqueued: c["enqueued"], Duplicates: c["duplicates"], Done: c["done"], Skipped: c["skipped"],
		Retried: c["retried"], Buried: c["buried"], Deferred: c["deferred"], Released: c["released"],
		Expired: c["expired"], Busy: time.Duration(c["busy_us"]) * time.Microsecond,
	}
	if err := errors.Join(r.err, barred.err, counters.err); err != nil {
		return queue.Stats{}, fmt.Errorf("reading the queue's depth: %w", err)
	}
	return s, nil
}

// Bar implements queue.Supervisor.
func (q *Queue) Bar(ctx context.Context, n int) ([]string, error) {
	reply, err := q.run(ctx, q.server.scripts.bar, n)
	if err != nil {
		return nil, fmt.Errorf("barring workers: %w", err)
	}
	r := reader{values: reply}
	var names []string
	for range reply {
		names = append(names, r.string())
	}
	slices.Sort(names)
	return names, r.err
}

// Unbar implements queue.Supervisor.
func (q *Queue) Unbar(ctx context.Context, workers ...string) error {
	args := slices.Clone(q.keys.args)
	for _, w := range workers {
		args = append(args, w)
	}
	err := q.server.scripts.unbar.Run(ctx, q.server.client, q.keys.fixed, args...).Err()
	if err != nil {
		return fmt.Errorf("unbarring workers: %w", classify(err))
	}
	return nil
}

// Lookup implements queue.Inspector.
func (q *Queue) Lookup(ctx context.Context, ids []item.ID) ([]queue.Record, error) {
	states := map[string]queue.State{
		"w": queue.StateWaiting, "l": queue.StateLeased, "d": queue.StateDelayed, "x": queue.StateDead,
		"done": queue.StateDone, "": queue.StateUnknown,
	}
	records := make([]queue.Record, 0, len(ids))
	for batch := range slices.Chunk(ids, enqueueBatch) {
		args := make([]any, 0, 2*len(batch))
		for _, id := range batch {
			args = append(args, string(id), digest(id))
		}
		reply, err := q.run(ctx, q.server.scripts.lookup, args...)
		if err != nil {
			return nil, fmt.Errorf("looking up %d items: %w", len(batch), err)
		}
		r := reader{values: reply}
		for range batch {
			one := r.list()
			records = append(records, queue.Record{State: states[one.string()], Reason: one.string(), Worker: one.string()})
			if one.err != nil {
				return nil, fmt.Errorf("looking up items: %w", one.err)
			}
		}
		if r.err != nil {
			return nil, fmt.Errorf("looking up items: %w", r.err)
		}
	}
	return records, nil
}
