package queuetest

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

func enqueueCases() []testCase {
	forgetful := Options{Tombstones: short}
	return []testCase{
		{"01 concurrent same-id enqueues", Options{}, sameIDConcurrently},
		{"02 enqueue repeated after a lost reply", Options{}, enqueueRepeated},
		{"03 duplicate of a live or done item", Options{}, duplicates},
		{"03 duplicate after the tombstone expired", forgetful, duplicateAfterTombstone},
		{"04 rejected enqueue leaves nothing behind", Options{}, rejectedEnqueue},
		{"05 same name, new generation or run", Options{}, sameNameNewGeneration},
		{"36 depth is exact", Options{}, exactDepth},
		{"40 batch enqueue with mixed duplicates", Options{}, mixedDuplicates},
		{"41 hostile names and long fields", Options{}, hostileNames},
		{"41 queues keep apart", Options{}, queuesKeepApart},
	}
}

func sameIDConcurrently(e *env) {
	const callers = 16
	var mu sync.Mutex
	count := map[queue.Added]int{}
	together(callers, func(int) {
		added, err := e.q.Enqueue(e.ctx(), []item.Item{thing(1)})
		mu.Lock()
		defer mu.Unlock()
		if err != nil || len(added) != 1 {
			e.Errorf("Enqueue = %v, %v", added, err)
			return
		}
		count[added[0]]++
	})
	want := map[queue.Added]int{queue.AddedNew: 1, queue.AddedLive: callers - 1}
	if diff := cmp.Diff(want, count); diff != "" {
		e.Errorf("answers (-want +got):\n%s", diff)
	}
	e.wantDepths(depths{Waiting: 1})
	e.wantCounters(queue.Counters{Enqueued: 1, Duplicates: callers - 1})
}

func enqueueRepeated(e *env) {
	e.wantAdded(queue.AddedNew, thing(1))
	e.wantAdded(queue.AddedLive, thing(1))
	e.lease("w", long)
	e.wantNothing("other")
	e.wantDepths(depths{Leased: 1, Holders: 1})
}

func duplicates(e *env) {
	it := thing(1)
	e.wantAdded(queue.AddedNew, it)
	e.wantAdded(queue.AddedLive, it) // waiting
	l := e.lease("w", long)
	e.wantAdded(queue.AddedLive, it) // leased
	back := ended(l, queue.Retry)
	back.Delay = time.Hour
	e.wantVerdict(queue.Finished, "w", back)
	e.wantAdded(queue.AddedLive, it) // delayed
	e.wantDepths(depths{Delayed: 1})

	for i, kind := range []queue.Kind{queue.Bury, queue.Done, queue.Skip} {
		it := thing(10 + i)
		e.wantAdded(queue.AddedNew, it)
		e.wantVerdict(queue.Finished, "w", ended(e.lease("w", long), kind))
		want := queue.AddedDone
		if kind == queue.Bury {
			want = queue.AddedLive
		}
		e.wantAdded(want, it)
	}
	e.wantDepths(depths{Delayed: 1, Dead: 1})
	e.wantCounters(queue.Counters{Enqueued: 4, Duplicates: 6, Retried: 1, Buried: 1, Done: 1, Skipped: 1})
}

func duplicateAfterTombstone(e *env) {
	it := thing(1)
	e.enqueue(it)
	first := e.lease("w", long)
	e.wantVerdict(queue.Finished, "w", ended(first, queue.Done))
	e.Advance(2 * short)
	e.wantState(queue.StateUnknown, it)
	e.wantAdded(queue.AddedNew, it)
	second := e.lease("w", long)
	if !first.Token.Less(second.Token) {
		e.Errorf("token %v after %v, want a later one although the item was forgotten", second.Token, first.Token)
	}
	if second.Delivery != 1 || second.Attempt != 1 {
		e.Errorf("delivery %d, attempt %d of a forgotten item, want 1, 1", second.Delivery, second.Attempt)
	}
}

func rejectedEnqueue(e *env) {
	bad := map[string]item.Item{
		"no generation": {Object: item.Object{Bucket: "in", Name: "a"}},
		"no name":       {Object: item.Object{Bucket: "in", Generation: 1}},
		"no bucket":     {Object: item.Object{Name: "a", Generation: 1}},
		"bucket/slash":  {Object: item.Object{Bucket: "in/out", Name: "a", Generation: 1}},
	}
	for name, it := range bad {
		if added, err := e.q.Enqueue(e.ctx(), []item.Item{thing(1), it}); err == nil {
			e.Errorf("%s: Enqueue = %v, want an error", name, added)
		}
	}
	e.wantDepths(depths{})
	e.wantCounters(queue.Counters{})
	e.wantState(queue.StateUnknown, thing(1))
}

func sameNameNewGeneration(e *env) {
	old := thing(1)
	newer, rerun := old, old
	newer.Generation, rerun.Run = 2, 1
	for _, it := range []item.Item{old, newer, rerun} {
		e.wantAdded(queue.AddedNew, it)
	}
	e.wantDepths(depths{Waiting: 3})
	var got []item.ID
	for range 3 {
		l := e.lease("w", long)
		got = append(got, l.Item.ID())
		e.finish("w", ended(l, queue.Done))
	}
	if diff := cmp.Diff([]item.ID{old.ID(), newer.ID(), rerun.ID()}, got); diff != "" {
		e.Errorf("leased (-want +got):\n%s", diff)
	}
}

func exactDepth(e *env) {
	n := 10_000 * e.Scale
	for batch := range slices.Chunk(things(n), 5000) {
		e.enqueue(batch...)
	}
	e.wantDepths(depths{Waiting: int64(n)})
	turned := e.turn(queue.Turn{Worker: "w", Want: 7, Lease: long})
	e.wantDepths(depths{Waiting: int64(n - 7), Leased: 7, Holders: 1})
	for i, l := range turned.Leases {
		if l.Item.ID() != thing(i).ID() {
			e.Errorf("lease %d is of %s, want %s: the first in, the first out", i, l.Item.ID(), thing(i).ID())
		}
	}
}

func mixedDuplicates(e *env) {
	e.enqueue(thing(0), thing(1))
	e.finish("w", ended(e.lease("w", long), queue.Done))
	got := e.enqueue(thing(0), thing(1), thing(2), thing(2), thing(3))
	want := []queue.Added{queue.AddedDone, queue.AddedLive, queue.AddedNew, queue.AddedLive, queue.AddedNew}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("answers (-want +got):\n%s", diff)
	}
	e.wantDepths(depths{Waiting: 3})
	if added := e.enqueue(); len(added) != 0 {
		e.Errorf("Enqueue of nothing = %v", added)
	}
}

func hostileNames(e *env) {
	long1K := strings.Repeat("ü", item.MaxNameBytes/2)
	names := []string{
		"{}", "}:pending", "{other}:x", "a:b:c", "a b\tc", "#1", "a#2+3", "/", "//", "..%2f", "$(reboot)", "'; return 1 --",
		"\x00\x01\x7f", "\xff\xfe", "line\r\nbreak", "*", "[a-z]?", "ünï/çødé 🎏", long1K, "-1", "+inf",
	}
	var items []item.Item
	for i, name := range names {
		items = append(items, item.Item{
			Object: item.Object{Bucket: "in", Name: name, Generation: int64(i + 1)}, Size: 1<<62 + int64(i),
			ContentType: name, Traceparent: strings.Repeat("t", 1<<16),
		})
	}
	for i, added := range e.enqueue(items...) {
		if added != queue.AddedNew {
			e.Errorf("name %q: %v, want new", names[i], added)
		}
	}
	var got []item.Item
	worker := "w}:{\r\n:" + long1K
	for len(got) < len(items) {
		turned := e.turn(queue.Turn{Worker: worker, Want: 5, Lease: long})
		if len(turned.Leases) == 0 {
			break
		}
		var done []queue.Completion
		for _, l := range turned.Leases {
			got = append(got, l.Item)
			c := ended(l, queue.Bury)
			c.Reason = "because of " + l.Item.Name
			done = append(done, c)
		}
		e.finish(worker, done...)
	}
	if diff := cmp.Diff(items, got); diff != "" {
		e.Errorf("items out of the queue (-in +out):\n%s", diff)
	}
	want := queue.Record{State: queue.StateDead, Reason: "because of " + names[0], Worker: worker}
	if diff := cmp.Diff(want, e.lookup(items[0])); diff != "" {
		e.Errorf("record (-want +got):\n%s", diff)
	}
	e.wantDepths(depths{Dead: int64(len(items))})
}

func queuesKeepApart(e *env) {
	other := &env{T: e.T, Server: e.Server, q: e.Server.Queue("pipeline2")}
	e.enqueue(thing(1))
	other.wantNothing("w")
	other.wantDepths(depths{})
	other.wantAdded(queue.AddedNew, thing(1))
	e.finish("w", ended(e.lease("w", long), queue.Done))
	other.wantDepths(depths{Waiting: 1})
	other.wantState(queue.StateWaiting, thing(1))
	e.wantState(queue.StateDone, thing(1))
}
