package redisq

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

// An idle worker calls at least every 13 s; one that has not called for this
// long is taken for dead and no longer woken or barred.
const forgetIdleAfter = 45 * time.Second

// enqueueBatch bounds how long one script holds the server.
const enqueueBatch = 500

// Queue is one pipeline's queue. It is safe for concurrent use.
type Queue struct {
	server *Server
	keys   keys
}

var (
	_ queue.Producer   = (*Queue)(nil)
	_ queue.Consumer   = (*Queue)(nil)
	_ queue.Supervisor = (*Queue)(nil)
	_ queue.Inspector  = (*Queue)(nil)
)

// Queue returns the queue of the named pipeline. Nothing is created until it is used.
func (s *Server) Queue(name string) *Queue {
	return &Queue{server: s, keys: newKeys(s.options.Prefix, name, s.options.Tombstones)}
}

func (q *Queue) run(ctx context.Context, s *redis.Script, args ...any) ([]any, error) {
	all := append(append(make([]any, 0, len(q.keys.args)+len(args)), q.keys.args...), args...)
	reply, err := s.Run(ctx, q.server.client, q.keys.fixed, all...).Slice()
	return reply, classify(err)
}

// Enqueue implements queue.Producer.
func (q *Queue) Enqueue(ctx context.Context, items []item.Item) ([]queue.Added, error) {
	for _, it := range items {
		// A worker could not read such an item's name back, and it would circle for ever.
		if o, run, err := item.ParseID(it.ID()); err != nil || o != it.Object || run != it.Run {
			return nil, fmt.Errorf("enqueuing %q: not the name of an object's generation, so nothing was enqueued", it.ID())
		}
	}
	answers := make([]queue.Added, 0, len(items))
	for batch := range slices.Chunk(items, enqueueBatch) {
		args := make([]any, 0, 1+5*len(batch))
		args = append(args, len(batch))
		for _, it := range batch {
			id := it.ID()
			args = append(args, string(id), digest(id), it.Size, it.ContentType, it.Traceparent)
		}
		reply, err := q.run(ctx, q.server.scripts.enqueue, args...)
		if err != nil {
			return nil, fmt.Errorf("enqueuing %d items: %w", len(batch), err)
		}
		r := reader{values: reply}
		for range batch {
			answers = append(answers, queue.Added(r.int()))
		}
		if r.err != nil {
			return nil, fmt.Errorf("enqueuing %d items: %w", len(batch), r.err)
		}
	}
	return answers, nil
}

// Turn implements queue.Consumer.
func (q *Queue) Turn(ctx context.Context, t queue.Turn) (queue.Turned, error) {
	var random [4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return queue.Turned{}, fmt.Errorf("making a lease token: %w", err)
	}
	nonce := hex.EncodeToString(random[:])
	args := []any{t.Worker, t.Want, t.Lease.Milliseconds(), nonce, len(t.Completions)}
	for _, c := range t.Completions {
		switch c.Kind {
		case queue.Done, queue.Skip, queue.Retry, queue.Bury, queue.Defer, queue.Release:
		default:
			return queue.Turned{}, fmt.Errorf("finishing %q: there is no kind of completion %q", c.ID, c.Kind)
		}
		args = append(args, string(c.ID), digest(c.ID), strconv.FormatInt(c.Token.Seq, 10), c.Token.Nonce,
			string(c.Kind), max(0, c.Delay.Milliseconds()), c.Reason, max(0, c.Busy.Microseconds()))
	}
	reply, err := q.run(ctx, q.server.scripts.turn, args...)
	if err != nil {
		return queue.Turned{}, fmt.Errorf("asking the queue for work: %w", err)
	}
	var out queue.Turned
	r := reader{values: reply}
	verdicts, leases := r.list(), r.list()
	out.Revision, out.Barred = r.int(), r.int() == 1
	for range t.Completions {
		out.Verdicts = append(out.Verdicts, queue.Verdict(verdicts.int()))
	}
	for range leases.values {
		l := leases.list()
		id := item.ID(l.string())
		lease := queue.Lease{
			Token:    queue.Token{Seq: l.int(), Nonce: nonce},
			Attempt:  int(l.int()) + 1,
			Delivery: int(l.int()),
			Waited:   l.milliseconds(),
		}
		lease.Item.Size, lease.Item.ContentType, lease.Item.Traceparent = l.int(), l.string(), l.string()
		lease.Reason = l.string()
		var idErr error
		lease.Item.Object, lease.Item.Run, idErr = item.ParseID(id)
		if err := errors.Join(l.err, idErr); err != nil {
			return out, fmt.Errorf("reading a lease: %w", err)
		}
		out.Leases = append(out.Leases, lease)
	}
	if err := errors.Join(r.err, verdicts.err, leases.err); err != nil {
		return out, fmt.Errorf("asking the queue for work: %w", err)
	}
	return out, nil
}

// Extend implements queue.Consumer.
func (q *Queue) Extend(ctx context.Context, worker string, d time.Duration, held []queue.Held) ([]queue.Held, error) {
	args := []any{worker, d.Milliseconds(), len(held)}
	for _, h := range held {
		args = append(args, string(h.ID), strconv.FormatInt(h.Token.Seq, 10), h.Token.Nonce)
	}
	reply, err := q.run(ctx, q.server.scripts.extend, args...)
	if err != nil {
		return nil, fmt.Errorf("extending %d leases: %w", len(held), err)
	}
	var lost []queue.Held
	r := reader{values: reply}
	for range reply {
		if i := r.int(); i >= 1 && int(i) <= len(held) {
			lost = append(lost, held[i-1])
		}
	}
	return lost, r.err
}

// Wait implements queue.Consumer.
func (q *Queue) Wait(ctx context.Context, worker string, d time.Duration) error {
	return q.block(ctx, q.keys.workerWake(worker), d)
}

// WaitWork implements queue.Supervisor.
func (q *Queue) WaitWork(ctx context.Context, d time.Duration) error {
	return q.block(ctx, q.keys.scalerWake(), d)
}

// block waits for an entry of a list. The client can't interrupt a blocking
// read, so a cancelled wait leaves it to run out in the background; an entry
// that it takes then is a wake-up of somebody who is leaving.
func (q *Queue) block(ctx context.Context, key string, d time.Duration) error {
	d = time.Duration(math.Ceil(max(d, time.Second).Seconds())) * time.Second // the client sends whole seconds
	done := make(chan error, 1)
	go func() {
		err := q.server.client.BLPop(context.WithoutCancel(ctx), d, key).Err()
		if errors.Is(err, redis.Nil) {
			err = nil
		}
		done <- err
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-done:
		return classify(err)
	}
}

// Leave implements queue.Consumer. Bars outlive it: only the scaler lifts them.
func (q *Queue) Leave(ctx context.Context, worker string) error {
	if _, err := q.run(ctx, q.server.scripts.leave, worker); err != nil {
		return fmt.Errorf("signing off from the queue: %w", err)
	}
	return nil
}
