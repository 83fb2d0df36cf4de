package queuetest

import (
	"sync"
	"sync/atomic"
	"time"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

func raceCases() []testCase {
	return []testCase{
		{"06 no two live leases on one item", Options{}, oneHolder},
		{"14 reaper races completion: one outcome", Options{}, reaperRacesCompletion},
		{"15 two reapers: one requeue, one count", Options{}, twoReapers},
		{"39 waiting and leased are never both zero in between", Options{}, neverBothZero},
	}
}

func oneHolder(e *env) {
	const workers, items = 8, 200
	e.enqueue(things(items)...)
	var holders [items]atomic.Int32
	var done, leased atomic.Int32
	index := map[item.ID]int{}
	for i, it := range things(items) {
		index[it.ID()] = i
	}
	together(workers, func(i int) {
		t := queue.Turn{Worker: string(rune('a' + i)), Want: 1 + i%3, Lease: long}
		for {
			turned, err := e.q.Turn(e.ctx(), t)
			if err != nil {
				e.Errorf("Turn: %v", err)
				return
			}
			for j, v := range turned.Verdicts {
				if v != queue.Finished {
					e.Errorf("%s of %s: verdict %v", t.Completions[j].Kind, t.Completions[j].ID, v)
				}
				if t.Completions[j].Kind == queue.Done {
					done.Add(1)
				}
			}
			if len(turned.Leases) == 0 && len(t.Completions) == 0 {
				return // what others hold they finish themselves
			}
			t.Completions = nil
			for _, l := range turned.Leases {
				at := index[l.Item.ID()]
				if n := holders[at].Add(1); n != 1 {
					e.Errorf("%s has %d holders", l.Item.ID(), n)
				}
				kind := queue.Done
				if leased.Add(1)%5 == 0 {
					kind = queue.Retry
				}
				holders[at].Add(-1)
				t.Completions = append(t.Completions, ended(l, kind))
			}
		}
	})
	// A retry that a worker put back may have found all others gone.
	for s := e.stats(); s.Waiting+s.Delayed > 0; s = e.stats() {
		if turned := e.poll("last"); len(turned.Leases) == 1 {
			e.wantVerdict(queue.Finished, "last", ended(turned.Leases[0], queue.Done))
			done.Add(1)
		}
	}
	if n := done.Load(); n != items {
		e.Errorf("%d items were done, want each of the %d once", n, items)
	}
	e.wantDepths(depths{})
	if s := e.stats(); s.Counters.Done != items {
		e.Errorf("counted %d done, want %d", s.Counters.Done, items)
	}
}

func reaperRacesCompletion(e *env) {
	const rounds = 15
	var finished, refused int64
	for i := range rounds {
		e.enqueue(thing(i))
		l := e.lease("w", short)
		e.expire()
		var verdict queue.Verdict
		together(2, func(who int) {
			if who == 0 {
				if _, err := e.q.Stats(e.ctx()); err != nil {
					e.Errorf("Stats: %v", err)
				}
				return
			}
			turned, err := e.q.Turn(e.ctx(), queue.Turn{Worker: "w", Completions: []queue.Completion{ended(l, queue.Done)}})
			if err != nil || len(turned.Verdicts) != 1 {
				e.Errorf("Turn = %+v, %v", turned, err)
				return
			}
			verdict = turned.Verdicts[0]
		})
		switch verdict {
		case queue.Finished:
			finished++
			e.wantDepths(depths{})
			e.wantState(queue.StateDone, thing(i))
		case queue.Refused:
			refused++
			e.wantDepths(depths{Waiting: 1})
			e.finish("w", ended(e.lease("w", long), queue.Skip))
		default:
			e.Errorf("verdict %v, want finished or refused", verdict)
		}
	}
	e.wantCounters(queue.Counters{Enqueued: rounds, Done: finished, Skipped: refused, Expired: refused})
}

func twoReapers(e *env) {
	e.enqueue(thing(1), thing(2))
	e.lease("a", short)
	e.lease("b", short)
	e.expire()
	together(8, func(i int) {
		var err error
		if i%2 == 0 {
			_, err = e.q.Stats(e.ctx())
		} else {
			_, err = e.q.Turn(e.ctx(), queue.Turn{Worker: "sweeper"})
		}
		if err != nil {
			e.Errorf("call %d: %v", i, err)
		}
	})
	e.wantDepths(depths{Waiting: 2})
	e.wantCounters(queue.Counters{Enqueued: 2, Expired: 2})
}

func neverBothZero(e *env) {
	const rounds = 150
	e.enqueue(thing(1))
	stop := make(chan struct{})
	var watching sync.WaitGroup
	for range 2 {
		watching.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, err := e.q.Stats(e.ctx())
				if err != nil || s.Waiting+s.Leased != 1 {
					e.Errorf("Stats = %+v, %v; want the item waiting or leased", s, err)
					return
				}
			}
		})
	}
	for i := range rounds {
		d := long
		if i%50 == 49 {
			d = time.Millisecond
		}
		l := e.lease("w", d)
		if d != long {
			e.Advance(2 * time.Millisecond)
			continue
		}
		e.finish("w", ended(l, queue.Release))
	}
	close(stop)
	watching.Wait()
}
