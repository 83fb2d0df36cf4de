package queuetest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

func barCases() []testCase {
	return []testCase{
		{"bar takes the longest idle first", Options{}, barLongestIdle},
		{"barred worker gets nothing and is told", Options{}, barredGetsNothing},
		{"unbar wakes and lets lease again", Options{}, unbarWakes},
		{"bars outlive Leave and hold until lifted", Options{}, barsHold},
		{"bar spares who holds a lease", Options{}, barSparesHolders},
		{"bar is atomic with leasing", Options{}, barRacesLease},
	}
}

func (e *env) wantBarred(want ...string) {
	e.Helper()
	if diff := cmp.Diff(want, e.stats().Barred); diff != "" {
		e.Errorf("barred (-want +got):\n%s", diff)
	}
}

func barLongestIdle(e *env) {
	for _, w := range []string{"d", "b", "a", "c"} {
		e.wantNothing(w)
		e.Advance(2 * time.Millisecond)
	}
	e.wantNothing("d") // its fallback: it stays the longest idle
	for _, tt := range []struct {
		n    int
		want []string
	}{{0, nil}, {1, []string{"d"}}, {1, []string{"d"}}, {2, []string{"b", "d"}}, {1, []string{"b", "d"}}, {9, []string{"a", "b", "c", "d"}}} {
		if diff := cmp.Diff(tt.want, e.bar(tt.n)); diff != "" {
			e.Errorf("Bar(%d) (-want +got):\n%s", tt.n, diff)
		}
		e.wantBarred(tt.want...)
		if s := e.stats(); s.Idle != 4 {
			e.Errorf("%d idle, want all 4: barred ones count", s.Idle)
		}
	}
}

func barredGetsNothing(e *env) {
	e.wantNothing("barred")
	e.bar(1)
	e.wantWoken("barred") // to learn it
	e.enqueue(thing(1))
	for range 2 {
		if turned := e.poll("barred"); !turned.Barred || len(turned.Leases) != 0 {
			e.Errorf("barred worker: %+v", turned)
		}
	}
	e.wantAsleep("barred")
	if turned := e.poll("w"); turned.Barred || len(turned.Leases) != 1 {
		e.Errorf("other worker: %+v", turned)
	}
	e.enqueue(thing(2))
	e.wantAsleep("barred")
	e.wantBarred("barred")
}

func unbarWakes(e *env) {
	for _, w := range []string{"a", "b", "c"} {
		e.wantNothing(w)
		e.Advance(2 * time.Millisecond)
	}
	e.bar(3)
	for _, w := range []string{"a", "b", "c"} {
		e.wantWoken(w)
		e.wantNothing(w)
	}
	e.unbar("b", "stranger")
	e.wantBarred("a", "c")
	e.enqueue(things(3)...)
	e.wantWoken("b")
	e.lease("b", long)
	e.unbar()
	e.wantBarred()
	for _, w := range []string{"a", "c"} {
		e.wantWoken(w)
		e.lease(w, long)
	}
	e.unbar() // may be repeated
}

func barsHold(e *env) {
	e.wantNothing("w")
	e.bar(1)
	if err := e.q.Leave(e.ctx(), "w"); err != nil {
		e.Fatal(err)
	}
	e.enqueue(thing(1))
	if turned := e.poll("w"); !turned.Barred || len(turned.Leases) != 0 {
		e.Errorf("after a restart: %+v, want barred still", turned)
	}
	if diff := cmp.Diff([]string{"w"}, e.bar(0)); diff != "" {
		e.Errorf("Bar(0) (-want +got):\n%s", diff)
	}
}

func barSparesHolders(e *env) {
	e.enqueue(things(2)...)
	first := e.lease("holder", long)
	e.lease("lost", short)
	e.wantNothing("holder") // wants a second one beside the first
	e.wantNothing("lost")   // as after an answer that it never got
	if got := e.bar(5); len(got) != 0 {
		e.Errorf("barred %v, which hold leases", got)
	}
	e.finish("holder", ended(first, queue.Done))
	if got := e.bar(5); len(got) != 0 {
		e.Errorf("barred %v, none of which has said that it is idle", got)
	}
	e.wantNothing("holder")
	if diff := cmp.Diff([]string{"holder"}, e.bar(5)); diff != "" {
		e.Errorf("Bar (-want +got):\n%s", diff)
	}
}

func barRacesLease(e *env) {
	const workers, rounds = 6, 40
	var enqueued, done atomic.Int64
	var mu sync.Mutex
	holding := map[string]bool{}
	barred := map[string]bool{}
	together(workers+1, func(i int) {
		if i == workers {
			for n := range rounds {
				if _, err := e.q.Enqueue(e.ctx(), []item.Item{thing(n)}); err != nil {
					e.Errorf("Enqueue: %v", err)
					return
				}
				enqueued.Add(1)
				mu.Lock() // nobody learns of leases while bars are taken stock of
				names, err := e.q.Bar(e.ctx(), 2)
				for _, name := range names {
					barred[name] = true
					if holding[name] {
						e.Errorf("%s was barred while it held a lease", name)
					}
				}
				mu.Unlock()
				if err != nil {
					e.Errorf("Bar: %v", err)
					return
				}
				mu.Lock()
				clear(barred)
				err = e.q.Unbar(e.ctx())
				mu.Unlock()
				if err != nil {
					e.Errorf("Unbar: %v", err)
					return
				}
			}
			return
		}
		name := string(rune('a' + i))
		for range rounds {
			mu.Lock()
			turned, err := e.q.Turn(e.ctx(), queue.Turn{Worker: name, Want: 1, Lease: long})
			if err == nil && len(turned.Leases) > 0 {
				holding[name] = true
				if barred[name] || turned.Barred {
					e.Errorf("%s leased although it is barred", name)
				}
			}
			mu.Unlock()
			for _, l := range turned.Leases {
				mu.Lock()
				_, err = e.q.Turn(e.ctx(), queue.Turn{Worker: name, Completions: []queue.Completion{ended(l, queue.Done)}})
				holding[name] = false
				mu.Unlock()
				done.Add(1)
			}
			if err != nil {
				e.Errorf("Turn of %s: %v", name, err)
				return
			}
		}
	})
	s := e.stats()
	if s.Waiting+s.Counters.Done != enqueued.Load() || s.Counters.Done != done.Load() || s.Leased+s.Holders+int64(len(s.Barred)) != 0 {
		e.Errorf("%d enqueued, %d done, but stats %+v", enqueued.Load(), done.Load(), s)
	}
}
