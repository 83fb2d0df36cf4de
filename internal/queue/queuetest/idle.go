package queuetest

import (
	"context"
	"fmt"
	"time"

	"tidemill/internal/queue"
)

func idleCases() []testCase {
	return []testCase{
		{"24 a worker that waits in vain returns by itself", Options{}, waitEnds},
		{"29 a cancelled wait returns at once", Options{}, waitCancelled},
		{"31 enqueue between an empty lease and the wait", Options{}, enqueueBeforeWait},
		{"31 enqueue during the wait", Options{}, enqueueDuringWait},
		{"32 dead worker registered idle", Options{}, deadIdle},
		{"32 a woken worker that leaves passes its wake-up on", Options{}, leavePassesOn},
		{"32 a worker that left is not woken", Options{}, leftIsNotWoken},
		{"33 the last to go idle is woken first", Options{}, lastIdleFirst},
		{"33 many idle workers, one wake per item", Options{}, oneWakePerItem},
		{"33 a turn uses up its worker's wake-up", Options{}, turnUsesWake},
		{"33 retries, releases and lost leases wake, too", Options{}, returnsWake},
		{"33 the scaler is woken", Options{}, scalerWoken},
		{"33 a late heartbeat leaves its worker registered", Options{}, lateHeartbeat},
	}
}

func waitEnds(e *env) {
	e.wantNothing("w")
	e.wantAsleep("w")
	if err := e.q.WaitWork(e.ctx(), time.Millisecond); err != nil {
		e.Errorf("WaitWork: %v", err)
	}
	e.enqueue(thing(1))
	e.lease("w", long)
}

func waitCancelled(e *env) {
	ctx, cancel := context.WithTimeout(e.ctx(), 50*time.Millisecond)
	defer cancel()
	for what, wait := range map[string]func() error{
		"Wait":     func() error { return e.q.Wait(ctx, "w", 10*patience) },
		"WaitWork": func() error { return e.q.WaitWork(ctx, 10*patience) },
	} {
		began := time.Now()
		if err := wait(); err == nil || time.Since(began) > patience {
			e.Errorf("%s = %v after %v, want the context's error at once", what, err, time.Since(began))
		}
	}
}

func enqueueBeforeWait(e *env) {
	e.wantNothing("w")
	e.enqueue(thing(1))
	e.wantWoken("w")
	e.lease("w", long)
}

func enqueueDuringWait(e *env) {
	e.wantNothing("w")
	together(2, func(i int) {
		if i == 0 {
			e.wantWoken("w")
			return
		}
		if _, err := e.q.Enqueue(e.ctx(), things(1)); err != nil {
			e.Errorf("Enqueue: %v", err)
		}
	})
	e.lease("w", long)
}

func deadIdle(e *env) {
	e.wantNothing("w")
	e.wantNothing("dead") // idle last, so woken first
	e.enqueue(thing(1))
	e.lease("w", long) // as after its fallback
	e.wantDepths(depths{Leased: 1, Holders: 1})
}

func leavePassesOn(e *env) {
	e.wantNothing("w")
	e.Advance(2 * time.Millisecond)
	e.wantNothing("leaving")
	e.enqueue(thing(1)) // wakes the one that leaves
	if err := e.q.Leave(e.ctx(), "leaving"); err != nil {
		e.Fatal(err)
	}
	e.wantWoken("w")
	e.lease("w", long)
}

func leftIsNotWoken(e *env) {
	e.wantNothing("w")
	e.Advance(2 * time.Millisecond)
	e.wantNothing("left")
	if err := e.q.Leave(e.ctx(), "left"); err != nil {
		e.Fatal(err)
	}
	if s := e.stats(); s.Idle != 1 {
		e.Errorf("%d idle, want 1", s.Idle)
	}
	e.enqueue(thing(1))
	e.wantWoken("w")
}

func lastIdleFirst(e *env) {
	for _, w := range []string{"c", "a", "b"} {
		e.wantNothing(w)
		e.Advance(2 * time.Millisecond)
	}
	e.enqueue(thing(1))
	e.wantWoken("b")
	e.lease("b", long)
	e.enqueue(thing(2))
	e.wantWoken("a")
	e.lease("a", long)
	e.wantAsleep("c") // so that it can go
}

func oneWakePerItem(e *env) {
	const workers = 300
	for i := range workers {
		e.wantNothing(fmt.Sprintf("w%03d", i))
	}
	idle := func(want int64) {
		e.Helper()
		if s := e.stats(); s.Idle != want {
			e.Errorf("%d idle, want %d", s.Idle, want)
		}
	}
	idle(workers)
	e.enqueue(thing(0))
	idle(workers - 1)
	e.enqueue(thing(0))
	idle(workers - 1) // a duplicate wakes nobody
	e.enqueue(things(10)...)
	idle(workers - 10)
	e.enqueue(things(2 * workers)...)
	idle(0)
	for i := range workers { // all have been woken, and each finds an item
		e.lease(fmt.Sprintf("w%03d", i), long)
	}
	e.wantDepths(depths{Waiting: workers, Leased: workers, Holders: workers})
}

func turnUsesWake(e *env) {
	e.wantNothing("w")
	e.enqueue(thing(1)) // wakes w, which happens to call first
	e.finish("w", ended(e.lease("w", long), queue.Done))
	e.wantNothing("w")
	e.wantAsleep("w")
}

func returnsWake(e *env) {
	ways := map[string]func(queue.Lease){
		"release": func(l queue.Lease) { e.finish("holder", ended(l, queue.Release)) },
		"retry": func(l queue.Lease) {
			e.finish("holder", ended(l, queue.Retry))
			e.Advance(2 * time.Millisecond)
			e.stats()
		},
		"lost lease": func(queue.Lease) {
			e.expire()
			e.stats()
		},
		"lost lease found by another's call": func(queue.Lease) {
			e.expire()
			e.turn(queue.Turn{Worker: "busy"})
		},
	}
	n := 0
	for name, back := range ways {
		n++
		e.enqueue(thing(n))
		l := e.lease("holder", short)
		sleeper := fmt.Sprintf("w%d", n)
		e.wantNothing(sleeper)
		back(l)
		e.wantWoken(sleeper)
		l = e.lease(sleeper, long)
		if l.Item.ID() != thing(n).ID() {
			e.Errorf("%s: leased %s, want %s", name, l.Item.ID(), thing(n).ID())
		}
		e.finish(sleeper, ended(l, queue.Done))
	}
}

func scalerWoken(e *env) {
	wake := func() { e.Helper(); e.woken("the scaler", e.q.WaitWork) }
	e.enqueue(thing(1))
	wake()
	e.lease("w", short)
	e.expire()
	e.turn(queue.Turn{Worker: "other"}) // finds the lost lease
	wake()
	l := e.lease("w", long)
	e.finish("w", ended(l, queue.Done))
	wake() // the last item has ended
	began := time.Now()
	if err := e.q.WaitWork(e.ctx(), time.Second); err != nil || time.Since(began) < 900*time.Millisecond {
		e.Errorf("WaitWork = %v after %v, want nothing for a second", err, time.Since(began))
	}
}

func lateHeartbeat(e *env) {
	e.enqueue(thing(1))
	l := e.lease("w", long)
	e.turn(queue.Turn{Worker: "w", Want: 1, Lease: long, Completions: []queue.Completion{ended(l, queue.Done)}})
	held := []queue.Held{{ID: l.Item.ID(), Token: l.Token}}
	if lost, err := e.q.Extend(e.ctx(), "w", long, held); err != nil || len(lost) != 1 {
		e.Fatalf("Extend = %v, %v; want the ended lease lost", lost, err)
	}
	e.enqueue(thing(2))
	e.wantWoken("w")
}
