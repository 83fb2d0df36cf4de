package queuetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

const (
	// long outlasts any case: such a lease does not expire by itself.
	long = 10 * time.Minute
	// short is for leases that are meant to expire.
	short = 120 * time.Millisecond
	// patience bounds every wait for something that must happen.
	patience = 60 * time.Second
)

// env is a case at work. Its helpers fail the test, so that the cases read as
// what happens; those that may run beside the test's goroutine say so.
type env struct {
	*testing.T
	Server

	q Queue
}

func (e *env) ctx() context.Context { return e.Context() }

func thing(n int) item.Item {
	return item.Item{Object: item.Object{Bucket: "in", Name: fmt.Sprintf("object-%05d", n), Generation: 1}}
}

func things(n int) []item.Item {
	items := make([]item.Item, n)
	for i := range items {
		items[i] = thing(i)
	}
	return items
}

func (e *env) enqueue(items ...item.Item) []queue.Added {
	e.Helper()
	added, err := e.q.Enqueue(e.ctx(), items)
	if err != nil {
		e.Fatalf("Enqueue of %d items: %v", len(items), err)
	}
	if len(added) != len(items) {
		e.Fatalf("Enqueue of %d items answered for %d", len(items), len(added))
	}
	return added
}

func (e *env) wantAdded(want queue.Added, it item.Item) {
	e.Helper()
	if got := e.enqueue(it); got[0] != want {
		e.Errorf("Enqueue(%s) = %v, want %v", it.ID(), got[0], want)
	}
}

func (e *env) turn(t queue.Turn) queue.Turned {
	e.Helper()
	turned, err := e.q.Turn(e.ctx(), t)
	if err != nil {
		e.Fatalf("Turn of %s: %v", t.Worker, err)
	}
	if len(turned.Verdicts) != len(t.Completions) || len(turned.Leases) > t.Want {
		e.Fatalf("Turn of %s: %d verdicts on %d completions, %d leases of at most %d",
			t.Worker, len(turned.Verdicts), len(t.Completions), len(turned.Leases), t.Want)
	}
	return turned
}

// poll is an idle worker's call.
func (e *env) poll(worker string) queue.Turned {
	e.Helper()
	return e.turn(queue.Turn{Worker: worker, Want: 1, Lease: long})
}

// lease takes exactly one item.
func (e *env) lease(worker string, d time.Duration) queue.Lease {
	e.Helper()
	turned := e.turn(queue.Turn{Worker: worker, Want: 1, Lease: d})
	if len(turned.Leases) != 1 {
		e.Fatalf("%s leased nothing; stats %+v", worker, e.stats())
	}
	return turned.Leases[0]
}

func (e *env) wantNothing(worker string) {
	e.Helper()
	if turned := e.poll(worker); len(turned.Leases) != 0 {
		e.Errorf("%s leased %s, want nothing", worker, turned.Leases[0].Item.ID())
	}
}

func ended(l queue.Lease, kind queue.Kind) queue.Completion {
	return queue.Completion{ID: l.Item.ID(), Token: l.Token, Kind: kind}
}

// finish ends leases without taking others.
func (e *env) finish(worker string, completions ...queue.Completion) []queue.Verdict {
	e.Helper()
	return e.turn(queue.Turn{Worker: worker, Completions: completions}).Verdicts
}

func (e *env) wantVerdict(want queue.Verdict, worker string, c queue.Completion) {
	e.Helper()
	if got := e.finish(worker, c)[0]; got != want {
		e.Errorf("%s ends %s as %s: verdict %v, want %v", worker, c.ID, c.Kind, got, want)
	}
}

func (e *env) stats() queue.Stats {
	e.Helper()
	s, err := e.q.Stats(e.ctx())
	if err != nil {
		e.Fatalf("Stats: %v", err)
	}
	return s
}

// depths are the parts of Stats that don't depend on time.
type depths struct{ Waiting, Leased, Delayed, Dead, Holders int64 }

func (e *env) wantDepths(want depths) {
	e.Helper()
	s := e.stats()
	got := depths{s.Waiting, s.Leased, s.Delayed, s.Dead, s.Holders}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("Stats (-want +got):\n%s", diff)
	}
}

func (e *env) wantCounters(want queue.Counters) {
	e.Helper()
	if diff := cmp.Diff(want, e.stats().Counters); diff != "" {
		e.Errorf("Counters (-want +got):\n%s", diff)
	}
}

func (e *env) lookup(it item.Item) queue.Record {
	e.Helper()
	records, err := e.q.Lookup(e.ctx(), []item.ID{it.ID()})
	if err != nil || len(records) != 1 {
		e.Fatalf("Lookup(%s) = %v, %v", it.ID(), records, err)
	}
	return records[0]
}

func (e *env) wantState(want queue.State, it item.Item) {
	e.Helper()
	if got := e.lookup(it).State; got != want {
		e.Errorf("state of %s = %q, want %q", it.ID(), got, want)
	}
}

func (e *env) bar(n int) []string {
	e.Helper()
	names, err := e.q.Bar(e.ctx(), n)
	if err != nil {
		e.Fatalf("Bar(%d): %v", n, err)
	}
	return names
}

func (e *env) unbar(workers ...string) {
	e.Helper()
	if err := e.q.Unbar(e.ctx(), workers...); err != nil {
		e.Fatalf("Unbar(%v): %v", workers, err)
	}
}

// expire lets the short leases run out.
func (e *env) expire() { e.Advance(short + time.Millisecond) }

// woken waits for a wake-up and tells it from the fallback, which is longer than
// patience. It may run beside the test's goroutine.
func (e *env) woken(what string, wait func(context.Context, time.Duration) error) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx(), patience)
	defer cancel()
	if err := wait(ctx, 2*patience); err != nil {
		e.Errorf("%s was not woken: %v", what, err)
	}
}

func (e *env) wantWoken(worker string) {
	e.Helper()
	e.woken(worker, func(ctx context.Context, d time.Duration) error { return e.q.Wait(ctx, worker, d) })
}

// wantAsleep spends a second: the shortest wait there is.
func (e *env) wantAsleep(worker string) {
	e.Helper()
	began := time.Now()
	if err := e.q.Wait(e.ctx(), worker, time.Second); err != nil {
		e.Fatalf("Wait of %s: %v", worker, err)
	}
	if d := time.Since(began); d < 900*time.Millisecond {
		e.Errorf("%s was woken after %v, want nothing for a second", worker, d)
	}
}

// together runs f(0) to f(n-1) at the same time. f must not end the test.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	all.Wait()
}
