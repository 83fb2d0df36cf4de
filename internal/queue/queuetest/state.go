package queuetest

import (
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

func stateCases() []testCase {
	return []testCase{
		{"lookup tells every state", Options{}, lookupStates},
		{"stats of an unused queue", Options{}, emptyStats},
		{"stats tell ages and times to come", Options{}, statsTimes},
		{"busy time adds up", Options{}, busyTime},
	}
}

func lookupStates(e *env) {
	e.enqueue(things(6)...)
	leases := e.turn(queue.Turn{Worker: "w", Want: 5, Lease: long}).Leases
	with := func(l queue.Lease, kind queue.Kind, reason string) queue.Completion {
		c := ended(l, kind)
		c.Reason, c.Delay = reason, time.Hour
		return c
	}
	e.finish("w",
		with(leases[0], queue.Done, ""), with(leases[1], queue.Skip, "superseded"),
		with(leases[2], queue.Retry, "exit code 1"), with(leases[3], queue.Bury, "exit code 65"))
	var ids []item.ID
	for _, it := range append(things(6), thing(99)) {
		ids = append(ids, it.ID())
	}
	got, err := e.q.Lookup(e.ctx(), ids)
	if err != nil {
		e.Fatal(err)
	}
	want := []queue.Record{
		{State: queue.StateDone}, {State: queue.StateDone},
		{State: queue.StateDelayed, Reason: "exit code 1", Worker: "w"},
		{State: queue.StateDead, Reason: "exit code 65", Worker: "w"},
		{State: queue.StateLeased, Worker: "w"},
		{State: queue.StateWaiting},
		{State: queue.StateUnknown},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("records (-want +got):\n%s", diff)
	}
	if none, err := e.q.Lookup(e.ctx(), nil); err != nil || len(none) != 0 {
		e.Errorf("Lookup of nothing = %v, %v", none, err)
	}
}

func emptyStats(e *env) {
	got := e.stats()
	if got.NextDue >= 0 || got.NextExpiry >= 0 {
		e.Errorf("next due %v, next expiry %v; want negative: none", got.NextDue, got.NextExpiry)
	}
	got.NextDue, got.NextExpiry = 0, 0
	if diff := cmp.Diff(queue.Stats{}, got); diff != "" {
		e.Errorf("stats (-want +got):\n%s", diff)
	}
	if turned := e.turn(queue.Turn{Worker: "w"}); turned.Revision != 0 || turned.Barred || len(turned.Leases) != 0 {
		e.Errorf("Turn = %+v, want nothing", turned)
	}
	if s := e.stats(); s.Idle != 0 {
		e.Errorf("%d idle, want none: the worker asked for nothing", s.Idle)
	}
}

func statsTimes(e *env) {
	e.enqueue(thing(1))
	e.Advance(50 * time.Millisecond)
	e.enqueue(thing(2), thing(3))
	if s := e.stats(); s.OldestWaiting < 50*time.Millisecond || s.OldestWaiting > patience {
		e.Errorf("oldest waiting %v, want the first one's age, at least 50ms", s.OldestWaiting)
	}
	l := e.lease("w", long)
	if l.Waited < 50*time.Millisecond || l.Waited > patience {
		e.Errorf("waited %v, want at least 50ms", l.Waited)
	}
	c := ended(l, queue.Retry)
	c.Delay = time.Hour
	e.finish("w", c)
	e.turn(queue.Turn{Worker: "w", Want: 2, Lease: long})
	s := e.stats()
	if s.OldestWaiting != 0 {
		e.Errorf("oldest waiting %v, but nothing waits", s.OldestWaiting)
	}
	if s.NextDue <= time.Hour-patience || s.NextDue > time.Hour || s.NextExpiry <= long-patience || s.NextExpiry > long {
		e.Errorf("next due %v, next expiry %v; want just below %v and %v", s.NextDue, s.NextExpiry, time.Hour, long)
	}
	e.wantDepths(depths{Leased: 2, Delayed: 1, Holders: 1})
}

func busyTime(e *env) {
	e.enqueue(things(2)...)
	for _, kind := range []queue.Kind{queue.Done, queue.Retry} {
		c := ended(e.lease("w", long), kind)
		c.Busy, c.Delay = 1500*time.Millisecond+time.Microsecond, time.Hour
		e.finish("w", c, c)
	}
	e.wantCounters(queue.Counters{Enqueued: 2, Done: 1, Retried: 1, Busy: 3*time.Second + 2*time.Microsecond})
}
