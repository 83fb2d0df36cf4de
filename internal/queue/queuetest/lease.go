package queuetest

import (
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

func leaseCases() []testCase {
	return []testCase{
		{"07 worker lost before it read its lease", Options{}, lostBeforeReading},
		{"08 worker lost in the middle of its work", Options{}, lostAtWork},
		{"08 several lost workers: the oldest lease comes back first", Options{}, lostInOrder},
		{"10 completion repeated after a lost reply", Options{}, completionRepeated},
		{"11 zombie after the item was leased again", Options{}, zombie},
		{"13 extend can't revive a lease that was taken back", Options{}, extendTooLate},
		{"13 extend keeps a lease", Options{}, extendKeeps},
		{"17 poison item dies, others progress", Options{}, poison},
		{"18 attempts and deliveries are counted apart", Options{}, countedApart},
		{"19 only server time expires leases", Options{}, serverTimeOnly},
		{"35 delayed items come back in the order in which they fall due", Options{}, delayedOrder},
		{"35 many due at once come back in bounded batches", Options{}, manyDue},
		{"38 release puts the item at the head, nothing counted", Options{}, release},
		{"40 batch lease with partial completion", Options{}, partialCompletion},
	}
}

func lostBeforeReading(e *env) {
	e.enqueue(thing(1))
	first := e.lease("lost", short)
	e.expire()
	e.wantDepths(depths{Waiting: 1}) // the sweep: nobody polls
	second := e.lease("w", long)
	if second.Delivery != 2 || second.Attempt != 1 || !first.Token.Less(second.Token) {
		e.Errorf("second lease: delivery %d, attempt %d, token %v after %v", second.Delivery, second.Attempt, second.Token, first.Token)
	}
	e.wantVerdict(queue.Finished, "w", ended(second, queue.Done))
	e.wantDepths(depths{})
	e.wantCounters(queue.Counters{Enqueued: 1, Done: 1, Expired: 1})
}

func lostAtWork(e *env) {
	e.enqueue(thing(1), thing(2))
	l := e.lease("lost", short)
	if _, err := e.q.Extend(e.ctx(), "lost", short, []queue.Held{{ID: l.Item.ID(), Token: l.Token}}); err != nil {
		e.Fatal(err)
	}
	e.expire()
	// The next worker's own call takes it back, and it comes before what waited behind it.
	again := e.lease("w", long)
	if again.Item.ID() != l.Item.ID() || again.Delivery != 2 || again.Attempt != 1 {
		e.Errorf("leased %s, delivery %d, attempt %d; want %s, 2, 1", again.Item.ID(), again.Delivery, again.Attempt, l.Item.ID())
	}
	e.wantDepths(depths{Waiting: 1, Leased: 1, Holders: 1})
}

func lostInOrder(e *env) {
	e.enqueue(things(4)...)
	for range 3 {
		e.lease("lost", short)
		e.Advance(2 * time.Millisecond)
	}
	e.expire()
	for i, l := range e.turn(queue.Turn{Worker: "w", Want: 4, Lease: long}).Leases {
		if l.Item.ID() != thing(i).ID() {
			e.Errorf("lease %d is of %s, want %s", i, l.Item.ID(), thing(i).ID())
		}
	}
	e.wantDepths(depths{Leased: 4, Holders: 1})
}

func completionRepeated(e *env) {
	kinds := []queue.Kind{queue.Done, queue.Skip, queue.Retry, queue.Bury, queue.Defer, queue.Release}
	for i, kind := range kinds {
		e.enqueue(thing(i))
		l := e.lease("w", long)
		c := ended(l, kind)
		c.Delay, c.Busy = time.Hour, time.Second
		e.wantVerdict(queue.Finished, "w", c)
		before := e.stats()
		e.wantVerdict(queue.Repeated, "w", c)
		after := e.stats()
		if diff := cmp.Diff(before.Counters, after.Counters); diff != "" {
			e.Errorf("%s counted twice:\n%s", kind, diff)
		}
	}
	e.wantDepths(depths{Waiting: 1, Delayed: 2, Dead: 1})
	e.wantCounters(queue.Counters{
		Enqueued: 6, Done: 1, Skipped: 1, Retried: 1, Buried: 1, Deferred: 1, Released: 1, Busy: 6 * time.Second,
	})
}

func zombie(e *env) {
	e.enqueue(thing(1))
	old := e.lease("zombie", short)
	e.expire()
	current := e.lease("w", long)
	for _, kind := range []queue.Kind{queue.Done, queue.Skip, queue.Retry, queue.Bury, queue.Defer, queue.Release} {
		e.wantVerdict(queue.Refused, "zombie", ended(old, kind))
	}
	held := []queue.Held{{ID: old.Item.ID(), Token: old.Token}}
	lost, err := e.q.Extend(e.ctx(), "zombie", long, held)
	if err != nil {
		e.Fatal(err)
	}
	if diff := cmp.Diff(held, lost); diff != "" {
		e.Errorf("lost leases (-want +got):\n%s", diff)
	}
	e.wantDepths(depths{Leased: 1, Holders: 1})
	e.wantVerdict(queue.Finished, "w", ended(current, queue.Done))
	e.wantCounters(queue.Counters{Enqueued: 1, Done: 1, Expired: 1})
}

func extendTooLate(e *env) {
	e.enqueue(thing(1))
	l := e.lease("w", short)
	e.expire()
	e.wantDepths(depths{Waiting: 1})
	held := []queue.Held{{ID: l.Item.ID(), Token: l.Token}}
	lost, err := e.q.Extend(e.ctx(), "w", long, held)
	if err != nil || len(lost) != 1 {
		e.Fatalf("Extend = %v, %v; want the lease lost", lost, err)
	}
	e.wantDepths(depths{Waiting: 1})
	e.wantVerdict(queue.Refused, "w", ended(l, queue.Done))
	e.wantDepths(depths{Waiting: 1})
}

func extendKeeps(e *env) {
	e.enqueue(thing(1), thing(2), thing(3))
	leases := e.turn(queue.Turn{Worker: "w", Want: 3, Lease: time.Minute}).Leases
	e.finish("w", ended(leases[1], queue.Done))
	var held []queue.Held
	for _, l := range leases {
		held = append(held, queue.Held{ID: l.Item.ID(), Token: l.Token})
	}
	lost, err := e.q.Extend(e.ctx(), "w", long, held)
	if err != nil {
		e.Fatal(err)
	}
	if diff := cmp.Diff([]queue.Held{held[1]}, lost); diff != "" {
		e.Errorf("lost leases (-want +got):\n%s", diff)
	}
	if s := e.stats(); s.NextExpiry <= time.Minute || s.NextExpiry > long {
		e.Errorf("next expiry in %v, want the extended %v", s.NextExpiry, long)
	}
	e.wantDepths(depths{Leased: 2, Holders: 1})
}

func poison(e *env) {
	e.enqueue(thing(1), thing(2))
	for attempt := 1; attempt <= 2; attempt++ {
		l := e.lease("w", long)
		if l.Item.ID() != thing(1).ID() || l.Attempt != attempt {
			e.Fatalf("leased %s, attempt %d; want the poison item's attempt %d", l.Item.ID(), l.Attempt, attempt)
		}
		if attempt == 2 {
			if l.Reason != "exit code 1" {
				e.Errorf("reason %q, want the last failure's", l.Reason)
			}
			c := ended(l, queue.Bury)
			c.Reason = "exit code 2"
			e.finish("w", c)
			continue
		}
		c := ended(l, queue.Retry)
		c.Reason = "exit code 1"
		e.finish("w", c)
		other := e.lease("w", long) // it may not have to wait behind the retry
		if other.Item.ID() != thing(2).ID() {
			e.Fatalf("leased %s, want the other item: a retry goes to the tail", other.Item.ID())
		}
		e.finish("w", ended(other, queue.Done))
		e.Advance(2 * time.Millisecond)
	}
	want := queue.Record{State: queue.StateDead, Reason: "exit code 2", Worker: "w"}
	if diff := cmp.Diff(want, e.lookup(thing(1))); diff != "" {
		e.Errorf("record (-want +got):\n%s", diff)
	}
	e.wantNothing("w")
	e.wantDepths(depths{Dead: 1})
}

func countedApart(e *env) {
	e.enqueue(thing(1))
	steps := []struct {
		how               queue.Kind // "" loses the worker
		attempt, delivery int        // as leased before
	}{
		{queue.Release, 1, 1}, {"", 1, 1}, {queue.Retry, 1, 2}, {queue.Defer, 2, 3}, {queue.Release, 2, 4}, {queue.Retry, 2, 4}, {"", 3, 5},
	}
	for i, s := range steps {
		d := long
		if s.how == "" {
			d = short
		}
		l := e.lease("w", d)
		if l.Attempt != s.attempt || l.Delivery != s.delivery {
			e.Errorf("step %d: attempt %d, delivery %d; want %d, %d", i, l.Attempt, l.Delivery, s.attempt, s.delivery)
		}
		if s.how == "" {
			e.expire()
			continue
		}
		e.wantVerdict(queue.Finished, "w", ended(l, s.how))
		e.Advance(2 * time.Millisecond) // retries without a delay are due
	}
	if l := e.lease("w", long); l.Attempt != 3 || l.Delivery != 6 {
		e.Errorf("at last: attempt %d, delivery %d; want 3, 6", l.Attempt, l.Delivery)
	}
	e.wantCounters(queue.Counters{Enqueued: 1, Released: 2, Retried: 2, Deferred: 1, Expired: 2})
}

// serverTimeOnly can't move this process's clock, but its implementations run
// against servers whose clock is far from it.
func serverTimeOnly(e *env) {
	e.enqueue(thing(1), thing(2))
	kept := e.lease("kept", time.Minute)
	lost := e.lease("lost", short)
	if s := e.stats(); s.NextExpiry > short {
		e.Errorf("next expiry in %v, want %v at most", s.NextExpiry, short)
	}
	e.expire()
	e.wantDepths(depths{Waiting: 1, Leased: 1, Holders: 1})
	again := e.lease("w", long)
	if again.Item.ID() != lost.Item.ID() || !lost.Token.Less(again.Token) {
		e.Errorf("leased %s with token %v after %v, want %s with a later one", again.Item.ID(), again.Token, lost.Token, lost.Item.ID())
	}
	if again.Waited < short || again.Waited > patience {
		e.Errorf("waited %v, want what passed on the server, at least %v", again.Waited, short)
	}
	e.wantVerdict(queue.Finished, "kept", ended(kept, queue.Done))
}

func delayedOrder(e *env) {
	delays := []int{90, 30, 60, 0, 120, 15} // ms
	order := []int{3, 5, 1, 2, 0, 4}
	e.enqueue(things(len(delays))...)
	leases := e.turn(queue.Turn{Worker: "w", Want: len(delays), Lease: long}).Leases
	var back []queue.Completion
	for i, l := range leases {
		c := ended(l, queue.Retry)
		c.Delay = time.Duration(delays[i]) * time.Millisecond
		back = append(back, c)
	}
	e.finish("w", back...)
	e.Advance(125 * time.Millisecond)
	var got, want []item.ID
	for _, l := range e.turn(queue.Turn{Worker: "w", Want: len(delays), Lease: long}).Leases {
		got = append(got, l.Item.ID())
	}
	for _, i := range order {
		want = append(want, thing(i).ID())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("order (-want +got):\n%s", diff)
	}
}

func manyDue(e *env) {
	const batch, bound = 500, 1000 // bound: what one call may at most bring back
	n := 2000 * e.Scale
	e.enqueue(things(n)...)
	var back []queue.Completion
	for range n / batch {
		for _, l := range e.turn(queue.Turn{Worker: "w", Want: batch, Lease: long}).Leases {
			back = append(back, ended(l, queue.Defer))
		}
	}
	for some := range slices.Chunk(back, batch) {
		e.finish("w", some...)
	}
	s := e.stats()
	if s.Due == 0 {
		e.Fatalf("stats %+v: nothing was left for a second call, so no batch was bounded", s)
	}
	for s.Due > 0 {
		before := s
		s = e.stats()
		if came := s.Waiting - before.Waiting; came <= 0 || came > bound || s.Waiting+s.Due != int64(n) || s.Due != s.Delayed {
			e.Fatalf("stats %+v after %+v: want 1 to %d more waiting, %d in all", s, before, bound, n)
		}
	}
	e.wantDepths(depths{Waiting: int64(n)})
}

func release(e *env) {
	e.enqueue(things(3)...)
	l := e.lease("w", long)
	c := ended(l, queue.Release)
	c.Delay = time.Hour // of no meaning here
	e.wantVerdict(queue.Finished, "w", c)
	again := e.lease("other", long)
	if again.Item.ID() != l.Item.ID() || again.Delivery != 1 || again.Attempt != 1 {
		e.Errorf("leased %s, delivery %d, attempt %d; want %s again as if for the first time",
			again.Item.ID(), again.Delivery, again.Attempt, l.Item.ID())
	}
	e.wantVerdict(queue.Refused, "w", ended(l, queue.Release))
	e.wantDepths(depths{Waiting: 2, Leased: 1, Holders: 1})
}

func partialCompletion(e *env) {
	e.enqueue(things(5)...)
	leases := e.turn(queue.Turn{Worker: "w", Want: 4, Lease: long}).Leases
	if len(leases) != 4 {
		e.Fatalf("%d leases, want 4", len(leases))
	}
	stranger := ended(leases[2], queue.Done)
	stranger.Token.Nonce = "00000000"
	unknown := ended(leases[2], queue.Done)
	unknown.ID = thing(99).ID()
	turned := e.turn(queue.Turn{
		Worker: "w", Want: 5, Lease: long,
		Completions: []queue.Completion{ended(leases[0], queue.Done), stranger, unknown, ended(leases[3], queue.Bury), ended(leases[0], queue.Done)},
	})
	want := []queue.Verdict{queue.Finished, queue.Refused, queue.Refused, queue.Finished, queue.Repeated}
	if diff := cmp.Diff(want, turned.Verdicts); diff != "" {
		e.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if len(turned.Leases) != 1 {
		e.Errorf("%d new leases, want the one item left", len(turned.Leases))
	}
	e.wantDepths(depths{Leased: 3, Dead: 1, Holders: 1})
	bad := ended(leases[1], "finish")
	if _, err := e.q.Turn(e.ctx(), queue.Turn{Worker: "w", Completions: []queue.Completion{bad}}); err == nil {
		e.Error("a completion of an unknown kind was accepted")
	}
	e.wantDepths(depths{Leased: 3, Dead: 1, Holders: 1})
}
