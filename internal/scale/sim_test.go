package scale

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tidemill/internal/item"
	"tidemill/internal/policy"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
)

// sim is a small cluster on a clock of its own: a real queue, a platform that
// starts and removes workers as Kubernetes does (with delays, not ready before
// ready, newest first), and workers that lease, work, and turn not ready when
// they are barred. Nothing moves but by run.
type sim struct {
	t       *testing.T
	redis   *miniredis.Miniredis
	queue   *redisq.Queue
	now     time.Time
	random  *rand.Rand
	control *Controller

	settings policy.Settings
	workTime time.Duration // of one item
	start    time.Duration // from being asked for to the first lease, at most
	crashes  float64       // chance of a crash per worker and second
	blind    error         // what Observe answers, if anything
	refuse   error         // what Resize answers, if anything

	wanted    int       // asked for
	carries   int       // what the platform is at: wanted, a little later
	carriesAt time.Time // when it takes up wanted
	workers   []*simWorker
	names     int
	items     int
	done      int
	decisions []policy.Decision
	resizes   [][2]int
	next      time.Time // the controller's next look
}

type simWorker struct {
	name    string
	startAt time.Time
	stuck   bool // never starts: an image that can't be pulled
	called  time.Time
	lease   *queue.Lease
	doneAt  time.Time
	lame    time.Time // crashed, until then
	ready   bool      // as the platform sees it
	tells   bool      // as it tells itself; the platform sees it at seenAt
	seenAt  time.Time
}

const simStep = 250 * time.Millisecond

func newSim(t *testing.T, seed uint64) *sim {
	t.Helper()
	s := &sim{
		t: t, redis: miniredis.RunT(t), now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), random: rand.New(rand.NewPCG(seed, 7)),
		workTime: time.Second, start: 3 * time.Second,
		settings: policy.Settings{
			MaxWorkers: 12, ItemsPerWorker: 2, FixedWorkers: -1, ScaleDownWindow: 5 * time.Second, ScaleToZeroAfter: 10 * time.Second,
		},
	}
	s.redis.SetTime(s.now)
	server, err := redisq.Open(t.Context(), redisq.Options{URL: "redis://" + s.redis.Addr(), AnyServer: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s.queue = server.Queue("p")
	s.newController()
	return s
}

// newController is a scaler that starts, or takes over.
func (s *sim) newController() {
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		s.t.Fatal(err)
	}
	s.control = New(Config{
		Pipeline: "p", Queue: s.queue, Fleet: s, Settings: func() policy.Settings { return s.settings },
		Tick: 10 * time.Second, Log: zap.NewNop(), Metrics: metrics,
		Decided: func(d policy.Decision) { s.decisions = append(s.decisions, d) },
	})
	s.control.now = func() time.Time { return s.now }
	s.next = s.now
}

func (s *sim) Observe(context.Context) (Size, error) {
	size := Size{Wanted: s.wanted, Pending: max(0, s.wanted-len(s.workers))}
	for _, w := range s.workers {
		if w.ready {
			size.Ready++
		} else {
			size.Other++
		}
	}
	return size, s.blind
}

func (s *sim) Resize(_ context.Context, from, n int) error {
	if s.refuse != nil {
		return s.refuse
	}
	if from != s.wanted {
		return fmt.Errorf("the fleet has %d workers, not %d", s.wanted, from)
	}
	s.resizes = append(s.resizes, [2]int{from, n})
	s.wanted = n
	s.carriesAt = s.now.Add(s.upTo(700 * time.Millisecond))
	return nil
}

func (s *sim) upTo(d time.Duration) time.Duration { return time.Duration(s.random.Int64N(int64(d))) }

// put enqueues n new items.
func (s *sim) put(n int) {
	s.t.Helper()
	var items []item.Item
	for range n {
		s.items++
		items = append(items, item.Item{Object: item.Object{Bucket: "b", Name: fmt.Sprint(s.items), Generation: 1}})
	}
	if _, err := s.queue.Enqueue(s.t.Context(), items); err != nil {
		s.t.Fatal(err)
	}
	s.next = s.now // the enqueue wakes the controller
}

func (s *sim) stats() queue.Stats {
	s.t.Helper()
	stats, err := s.queue.Stats(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return stats
}

// run lets time pass until check is true, and fails after limit.
func (s *sim) run(limit time.Duration, what string, check func() bool) {
	s.t.Helper()
	for end := s.now.Add(limit); !check(); {
		if s.now.After(end) {
			size, _ := s.Observe(s.t.Context())
			s.t.Fatalf("not after %s: %s; fleet %+v, resizes %v, queue %+v", limit, what, size, s.resizes, s.stats())
		}
		s.step()
	}
}

// pass lets so much time pass.
func (s *sim) pass(d time.Duration) {
	s.t.Helper()
	end := s.now.Add(d)
	s.run(d+time.Second, "the time", func() bool { return !s.now.Before(end) })
}

func (s *sim) step() {
	s.now = s.now.Add(simStep)
	s.redis.SetTime(s.now)
	s.redis.FastForward(simStep)
	if !s.now.Before(s.carriesAt) {
		s.carries = s.wanted
	}
	s.reconcile()
	for _, w := range s.workers {
		s.work(w)
	}
	if !s.now.Before(s.next) {
		s.next = s.now.Add(s.control.step(s.t.Context()))
	}
}

// reconcile is the platform: removes what is too much, in Kubernetes' order,
// and replaces what is missing.
func (s *sim) reconcile() {
	for len(s.workers) > s.carries {
		victim := -1
		rank := func(w *simWorker) int {
			switch {
			case w.startAt.After(s.now):
				return 0
			case !w.ready:
				return 1
			}
			return 2
		}
		for i, w := range s.workers { // later ones are newer
			if victim < 0 || rank(w) <= rank(s.workers[victim]) {
				victim = i
			}
		}
		w := s.workers[victim]
		if w.lease != nil {
			s.t.Errorf("%s was removed while it worked on %s; resizes %v", w.name, w.lease.Item.ID(), s.resizes)
		}
		s.workers = slices.Delete(s.workers, victim, victim+1)
		if err := s.queue.Leave(s.t.Context(), w.name); err != nil {
			s.t.Fatal(err)
		}
	}
	for len(s.workers) < s.carries {
		s.names++
		s.workers = append(s.workers, &simWorker{name: fmt.Sprintf("w%03d", s.names), startAt: s.now.Add(s.upTo(s.start))})
	}
}

func (s *sim) work(w *simWorker) {
	if w.ready != w.tells && !s.now.Before(w.seenAt) {
		w.ready = w.tells
	}
	if w.stuck || s.now.Before(w.startAt) || s.now.Before(w.lame) {
		return
	}
	if s.random.Float64() < s.crashes*simStep.Seconds() { // the item stays leased until its lease expires
		w.lease, w.ready, w.tells, w.called = nil, false, false, time.Time{}
		w.lame = s.now.Add(s.upTo(6 * time.Second))
		return
	}
	turn := queue.Turn{Worker: w.name, Want: 1, Lease: 15 * time.Second}
	switch {
	case w.lease != nil && s.now.Before(w.doneAt):
		if s.now.Sub(w.called) >= 5*time.Second {
			w.called = s.now
			s.extend(w)
		}
		return
	case w.lease != nil:
		turn.Completions = []queue.Completion{{ID: w.lease.Item.ID(), Token: w.lease.Token, Kind: queue.Done}}
		w.lease = nil
	case s.now.Sub(w.called) < 10*time.Second && !s.redis.Exists("tidemill:{default/p}:worker:"+w.name):
		return // idle, and not woken
	}
	w.called = s.now
	turned, err := s.queue.Turn(s.t.Context(), turn)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, v := range turned.Verdicts {
		if v == queue.Finished {
			s.done++
		}
	}
	for i := range turned.Leases {
		w.lease, w.doneAt = &turned.Leases[i], s.now.Add(s.workTime/2+s.upTo(s.workTime))
	}
	if w.tells == turned.Barred {
		w.tells, w.seenAt = !turned.Barred, s.now.Add(200*time.Millisecond+s.upTo(time.Second))
	}
}

func (s *sim) extend(w *simWorker) {
	lost, err := s.queue.Extend(s.t.Context(), w.name, 15*time.Second, []queue.Held{{ID: w.lease.Item.ID(), Token: w.lease.Token}})
	if err != nil || len(lost) > 0 {
		s.t.Fatalf("%s lost its lease: %v, %v", w.name, lost, err)
	}
}

func (s *sim) size() int   { return len(s.workers) }
func (s *sim) empty() bool { return s.size() == 0 && s.wanted == 0 }
