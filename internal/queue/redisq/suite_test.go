package redisq_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/queue/queuetest"
	"tidemill/internal/queue/redisq"
	"tidemill/internal/testutil/redistest"
)

const (
	long     = 10 * time.Minute
	patience = 60 * time.Second
)

// world is a server with a way around the queue: what an operator's hands, or a
// loss of data, can do to it.
type world struct {
	*testing.T
	server  *redisq.Server
	q       *redisq.Queue
	raw     *redis.Client
	base    string // of the queue's keys
	advance func(time.Duration)
}

func newWorld(t *testing.T, addr string, o redisq.Options) *world {
	t.Helper()
	o.URL = "redis://" + addr
	server, err := redisq.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	raw := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		if err := raw.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	if o.Prefix == "" {
		o.Prefix = redisq.DefaultPrefix
	}
	w := &world{T: t, server: server, q: server.Queue("p"), raw: raw, base: "tidemill:{" + o.Prefix + "/p}:"}
	w.advance = w.passTime
	return w
}

// passTime waits until the server's own clock has moved on.
func (w *world) passTime(d time.Duration) {
	w.Helper()
	begin := w.time()
	w.await("the server's clock", func() bool { return w.time().Sub(begin) >= d })
}

func (w *world) time() time.Time {
	w.Helper()
	now, err := w.raw.Time(context.WithoutCancel(w.Context())).Result()
	if err != nil {
		w.Fatalf("TIME: %v", err)
	}
	return now
}

func (w *world) await(what string, done func() bool) {
	w.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			w.Fatalf("waited %v in vain for %s", patience, what)
		}
		<-tick.C
	}
}

// embedded starts a server in this process, whose clock stands still, far from
// the process's own, unless it is advanced.
func embedded(t *testing.T, o redisq.Options, clock time.Duration) *world {
	t.Helper()
	mini := miniredis.NewMiniRedis()
	if err := mini.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mini.Close)
	now := time.Now().Add(clock)
	mini.SetTime(now)
	mini.ClockTTL(true)
	o.AnyServer = true // it has no version
	w := newWorld(t, mini.Addr(), o)
	w.advance = func(d time.Duration) {
		now = now.Add(d)
		mini.SetTime(now)
	}
	return w
}

// onBoth runs a test of what only Redis has on both kinds of server, each its own.
func onBoth(t *testing.T, run func(w *world)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		run(embedded(t, redisq.Options{}, -time.Hour))
	})
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		run(newWorld(t, redistest.Start(t).Addr, redisq.Options{}))
	})
}

func (w *world) forSuite(scale int) queuetest.Server {
	return queuetest.Server{
		Queue:    func(name string) queuetest.Queue { return w.server.Queue(name) },
		Settings: w.server,
		Advance:  w.advance,
		Scale:    scale,
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, clock := range map[string]time.Duration{
		"embedded, clock an hour behind": -time.Hour,
		"embedded, clock an hour ahead":  time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			queuetest.Run(t, func(t *testing.T, o queuetest.Options) queuetest.Server {
				return embedded(t, redisq.Options{Tombstones: o.Tombstones}, clock).forSuite(1)
			})
		})
	}
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		shared := redistest.Start(t)
		var cases atomic.Int64
		queuetest.Run(t, func(t *testing.T, o queuetest.Options) queuetest.Server {
			prefix := fmt.Sprintf("case%d", cases.Add(1)) // keeps the cases apart on one server
			return newWorld(t, shared.Addr, redisq.Options{Prefix: prefix, Tombstones: o.Tombstones}).forSuite(10)
		})
	})
}

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

func ended(l queue.Lease, kind queue.Kind) queue.Completion {
	return queue.Completion{ID: l.Item.ID(), Token: l.Token, Kind: kind}
}

func (w *world) enqueue(items ...item.Item) []queue.Added {
	w.Helper()
	added, err := w.q.Enqueue(w.Context(), items)
	if err != nil {
		w.Fatalf("Enqueue: %v", err)
	}
	return added
}

func (w *world) turn(worker string, want int, done ...queue.Completion) queue.Turned {
	w.Helper()
	turned, err := w.q.Turn(w.Context(), queue.Turn{Worker: worker, Want: want, Lease: long, Completions: done})
	if err != nil {
		w.Fatalf("Turn of %s: %v", worker, err)
	}
	return turned
}

func (w *world) lease(worker string) queue.Lease {
	w.Helper()
	turned := w.turn(worker, 1)
	if len(turned.Leases) != 1 {
		w.Fatalf("%s leased nothing; stats %+v", worker, w.stats())
	}
	return turned.Leases[0]
}

func (w *world) stats() queue.Stats {
	w.Helper()
	s, err := w.q.Stats(w.Context())
	if err != nil {
		w.Fatalf("Stats: %v", err)
	}
	return s
}

func (w *world) wantDepths(waiting, leased, delayed, dead, holders int64) {
	w.Helper()
	s := w.stats()
	if s.Waiting != waiting || s.Leased != leased || s.Delayed != delayed || s.Dead != dead || s.Holders != holders {
		w.Errorf("waiting %d, leased %d, delayed %d, dead %d, holders %d; want %d, %d, %d, %d, %d",
			s.Waiting, s.Leased, s.Delayed, s.Dead, s.Holders, waiting, leased, delayed, dead, holders)
	}
}

// wantWoken fails unless the worker is woken before its fallback.
func (w *world) wantWoken(worker string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	if err := w.q.Wait(ctx, worker, 2*patience); err != nil {
		w.Errorf("%s was not woken: %v", worker, err)
	}
}

// do runs a command as an operator would, and fails the test if it changed nothing.
func (w *world) do(args ...any) {
	w.Helper()
	n, err := w.raw.Do(w.Context(), args...).Int64()
	if err != nil || n == 0 {
		w.Fatalf("%v = %d, %v", args, n, err)
	}
}

// infoField is one field of an INFO answer.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && key == name {
			return value
		}
	}
	return ""
}
