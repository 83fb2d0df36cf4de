package redisq_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
	"tidemill/internal/testutil/redistest"
)

// all makes every call once, completions of every kind among them, on a queue
// with at least seven items waiting. It returns what each said.
func (w *world) all(ctx context.Context, leases []queue.Lease) map[string]error {
	errs := map[string]error{}
	_, errs["Enqueue"] = w.q.Enqueue(ctx, things(1))
	_, errs["Stats"] = w.q.Stats(ctx)
	_, errs["Lookup"] = w.q.Lookup(ctx, nil)
	var held []queue.Held
	var done []queue.Completion
	kinds := []queue.Kind{queue.Done, queue.Skip, queue.Retry, queue.Bury, queue.Defer, queue.Release}
	for i, l := range leases {
		held = append(held, queue.Held{ID: l.Item.ID(), Token: l.Token})
		c := ended(l, kinds[i%len(kinds)])
		c.Reason, c.Delay = "a reason", time.Hour
		done = append(done, c)
	}
	_, errs["Extend"] = w.q.Extend(ctx, "w", long, held)
	_, errs["Turn"] = w.q.Turn(ctx, queue.Turn{Worker: "w", Completions: done, Want: 1, Lease: long})
	_, errs["Bar"] = w.q.Bar(ctx, 1)
	errs["Unbar"] = w.q.Unbar(ctx)
	errs["Leave"] = w.q.Leave(ctx, "other")
	_, errs["Settings"] = w.server.Settings(ctx)
	_, errs["Accept"] = w.server.Accept(ctx, map[string]map[string]string{"p": {"note": time.Now().String()}})
	return errs
}

func TestCase26MemoryFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, redistest.Start(t).Addr, redisq.Options{})
	w.turn("idle", 1)
	w.enqueue(things(40)...)
	leases := w.turn("w", 6).Leases
	lost := w.turn("lost", 1)
	if len(leases) != 6 || len(lost.Leases) != 1 {
		t.Fatalf("%d and %d leases, want 6 and 1", len(leases), len(lost.Leases))
	}
	if err := w.raw.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.q.Enqueue(t.Context(), things(41)[40:]); !errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("Enqueue = %v, want ErrFull alone", err)
	}
	w.expireOne(lost.Leases[0])
	for name, err := range w.all(t.Context(), leases) {
		wantFull := name == "Enqueue" || name == "Accept"
		if wantFull != errors.Is(err, queue.ErrFull) || !wantFull && err != nil {
			t.Errorf("%s: %v, want ErrFull: %v", name, err, wantFull)
		}
	}
	if _, err := w.server.Queue("empty").Turn(t.Context(), queue.Turn{Worker: "w", Want: 1, Lease: long}); err != nil {
		t.Errorf("Turn on an empty queue: %v", err)
	}
	w.wantDepths(34, 1, 2, 1, 1) // what was leased, one taken, one released and one lost come back
	if s := w.stats(); s.Counters.Expired != 1 || s.Counters.Done != 1 || s.Counters.Enqueued != 40 {
		t.Errorf("counters %+v", s.Counters)
	}
	// Damage can be mended, too.
	w.do("ZREM", w.base+"leases", string(w.lease("x").Item.ID()))
	w.wantDepths(33, 2, 2, 1, 2)
	if err := w.raw.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if added := w.enqueue(things(41)[40:]...); added[0] != queue.AddedNew {
		t.Errorf("Enqueue = %v, want new: the refused one left nothing behind", added)
	}
}

// expireOne makes one lease run out, with a write that needs no memory.
func (w *world) expireOne(l queue.Lease) {
	w.Helper()
	script := `redis.call('ZREM', KEYS[1], ARGV[1]) return redis.call('ZADD', KEYS[1], 1, ARGV[1])`
	if err := w.raw.Eval(w.Context(), script, []string{w.base + "leases"}, string(l.Item.ID())).Err(); err != nil {
		w.Fatal(err)
	}
}

func TestCase27ScriptsFlushed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(w *world) {
		w.enqueue(things(10)...)
		leases := w.turn("w", 6).Leases
		if err := w.raw.ScriptFlush(w.Context()).Err(); err != nil {
			w.Fatal(err)
		}
		for name, err := range w.all(w.Context(), leases) {
			if err != nil {
				w.Errorf("%s: %v", name, err)
			}
		}
		w.wantDepths(4, 1, 2, 1, 1)
	})
}

func TestCase28ServerRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want error
	}{
		"loading":      {"LOADING Redis is loading the dataset in memory", queue.ErrUnavailable},
		"replica":      {"READONLY You can't write against a read only replica.", queue.ErrUnavailable},
		"busy":         {"BUSY Redis is busy running a script.", queue.ErrUnavailable},
		"try again":    {"TRYAGAIN Multiple keys request during rehashing of slot", queue.ErrUnavailable},
		"moved":        {"MOVED 3999 127.0.0.1:1", queue.ErrUnavailable},
		"not saved":    {"MISCONF Redis is configured to save RDB snapshots", queue.ErrUnavailable},
		"full":         {"OOM command not allowed when used memory > 'maxmemory'.", queue.ErrFull},
		"full in 6.2":  {"ERR Error running script (call to f_0): @user_script:9: -OOM command not allowed when used memory > 'maxmemory'.", queue.ErrFull},
		"unauthorised": {"NOPERM this user has no permissions to run the 'evalsha' command", queue.ErrUnavailable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mini := miniredis.RunT(t)
			w := newWorld(t, mini.Addr(), redisq.Options{AnyServer: true})
			w.enqueue(things(10)...)
			leases := w.turn("w", 6).Leases
			mini.SetError(tt.text)
			for call, err := range w.all(t.Context(), leases) {
				if call == "Lookup" { // asked about nothing
					continue
				}
				if !errors.Is(err, tt.want) || errors.Is(err, queue.ErrFull) != errors.Is(tt.want, queue.ErrFull) {
					t.Errorf("%s = %v, want %v", call, err, tt.want)
				}
			}
			if err := w.q.Wait(t.Context(), "w", time.Second); err == nil {
				t.Error("Wait = nil, want an error: it would make a loop spin")
			}
			mini.SetError("")
			for call, err := range w.all(t.Context(), leases) {
				if err != nil {
					t.Errorf("%s afterwards: %v", call, err)
				}
			}
			w.wantDepths(4, 1, 2, 1, 1)
		})
	}
}

func TestCase28Failover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, redistest.Start(t).Addr, redisq.Options{})
	w.enqueue(things(3)...)
	if err := w.raw.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.q.Turn(t.Context(), queue.Turn{Worker: "w", Want: 1, Lease: long}); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("Turn on a replica = %v, want ErrUnavailable", err)
	}
	if err := w.raw.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	w.lease("w")
	w.wantDepths(2, 1, 0, 0, 1)
}

func TestCase29AnswerLost(t *testing.T) {
	t.Parallel()
	upstream := redistest.Start(t)
	p := newProxy(t, upstream.Addr)
	direct, w := newWorld(t, upstream.Addr, redisq.Options{}), newWorld(t, p.addr, redisq.Options{})
	w.enqueue(things(5)...)
	held := w.lease("w")

	p.set(cut)
	turn := queue.Turn{Worker: "w", Want: 1, Lease: long, Completions: []queue.Completion{ended(held, queue.Done)}}
	if _, err := w.q.Turn(t.Context(), turn); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("Turn = %v, want ErrUnavailable", err)
	}
	direct.wantDepths(3, 1, 0, 0, 1) // it got through, once: a call that leases is not repeated by itself
	p.set(none)

	turned, err := w.q.Turn(t.Context(), turn)
	if err != nil || turned.Verdicts[0] != queue.Repeated || len(turned.Leases) != 1 {
		t.Errorf("Turn again = %+v, %v; want it repeated, and a lease", turned, err)
	}
	direct.wantDepths(2, 2, 0, 0, 1)

	p.set(cut)
	if _, err := w.q.Enqueue(t.Context(), things(6)); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("Enqueue = %v, want ErrUnavailable", err)
	}
	p.set(none)
	if added := w.enqueue(things(6)[5:]...); added[0] != queue.AddedLive {
		t.Errorf("Enqueue again = %v, want a duplicate", added)
	}
	direct.wantDepths(3, 2, 0, 0, 1)
}

func TestCase29AnswersStall(t *testing.T) {
	t.Parallel()
	p := newProxy(t, redistest.Start(t).Addr)
	w := newWorld(t, p.addr, redisq.Options{})
	w.enqueue(things(5)...)
	p.set(stall)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var calls sync.WaitGroup
	bounded := func(name string, call func() error) {
		calls.Go(func() {
			if err := call(); !errors.Is(err, queue.ErrUnavailable) {
				t.Errorf("%s = %v, want ErrUnavailable", name, err)
			}
		})
	}
	bounded("Turn with a deadline", func() error {
		_, err := w.q.Turn(ctx, queue.Turn{Worker: "w", Want: 1, Lease: long})
		return err
	})
	bounded("Stats with a deadline", func() error { _, err := w.q.Stats(ctx); return err })
	bounded("Ping without one", func() error { return w.server.Ping(t.Context()) })
	done := make(chan struct{})
	go func() { defer close(done); calls.Wait() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("calls to a server that doesn't answer go on for ever")
	}
	p.set(none)
	if turned := w.turn("w", 5); len(turned.Leases) < 4 {
		t.Errorf("%d leases afterwards, want all but the one of the lost answer", len(turned.Leases))
	}
	w.wantDepths(0, 5, 0, 0, 1)
}

func TestCase29WaitIsCut(t *testing.T) {
	t.Parallel()
	p := newProxy(t, redistest.Start(t).Addr)
	w := newWorld(t, p.addr, redisq.Options{})
	w.turn("w", 1)
	idle := p.open()
	waited := make(chan error, 1)
	go func() { waited <- w.q.Wait(t.Context(), "w", 10*patience) }()
	w.await("the wait", func() bool {
		clients, err := w.raw.Info(t.Context(), "clients").Result()
		return err == nil && idle > 0 && infoField(clients, "blocked_clients") == "1"
	})
	p.cutAll()
	select {
	case err := <-waited:
		if !errors.Is(err, queue.ErrUnavailable) {
			t.Errorf("Wait = %v, want ErrUnavailable, so that its caller backs off", err)
		}
	case <-time.After(patience):
		t.Fatal("the wait goes on, although its connection is gone")
	}
	w.await("a new connection", func() bool { // raw's and the pool's own were cut, too
		_, err := w.q.Enqueue(t.Context(), things(1))
		return err == nil
	})
	w.wantWoken("w")
	w.lease("w")
}

func TestCase29ServerGone(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	w := newWorld(t, s.Addr, redisq.Options{})
	w.enqueue(things(5)...)
	held := w.lease("w")
	s.Kill()
	for name, err := range w.all(t.Context(), []queue.Lease{held}) {
		if name != "Lookup" && !errors.Is(err, queue.ErrUnavailable) {
			t.Errorf("%s = %v, want ErrUnavailable", name, err)
		}
	}
	s.Restart()
	turned := w.turn("w", 1, ended(held, queue.Done))
	if turned.Verdicts[0] != queue.Finished || len(turned.Leases) != 1 || !held.Token.Less(turned.Leases[0].Token) {
		t.Errorf("Turn after the restart = %+v, want what was persisted", turned)
	}
	w.wantDepths(3, 1, 0, 0, 1)

	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := w.q.Stats(ctx); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("Stats of a server that hangs = %v, want ErrUnavailable", err)
	}
	s.Resume()
	w.wantDepths(3, 1, 0, 0, 1)
}

// Every waiting worker and scaler of a process occupies a connection of its own.
func TestManyWaitsLeaveRoomForCalls(t *testing.T) {
	t.Parallel()
	const waits = 60
	w := newWorld(t, redistest.Start(t).Addr, redisq.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range waits {
		all.Go(func() {
			if err := w.server.Queue("q"+itoa(i)).WaitWork(ctx, 10*patience); !errors.Is(err, context.Canceled) {
				t.Errorf("WaitWork = %v, want the cancellation", err)
			}
		})
	}
	w.await("the waits", func() bool {
		clients, err := w.raw.Info(t.Context(), "clients").Result()
		return err == nil && infoField(clients, "blocked_clients") == itoa(waits)
	})
	w.wantDepths(0, 0, 0, 0, 0)
	cancel()
	all.Wait()
}
