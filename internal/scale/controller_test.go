package scale

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/policy"
)

func TestUpWithinOneLookAndDownToNobody(t *testing.T) {
	t.Parallel()
	s := newSim(t, 1)
	s.step()
	if s.wanted != 0 {
		t.Fatalf("%d workers for an empty queue", s.wanted)
	}
	s.put(9)
	s.step()
	if s.wanted != 5 {
		t.Fatalf("%d workers are asked for one look after 9 items, not 5", s.wanted)
	}
	s.run(20*time.Second, "all done", func() bool { return s.done == 9 })
	s.run(40*time.Second, "nobody left", s.empty)
	s.run(20*time.Second, "no bar left", func() bool { return len(s.stats().Barred) == 0 })
}

// Work goes on without end, at a level that needs fewer workers than there are:
// the idle ones go, and none that works.
func TestDownUnderSteadyLoad(t *testing.T) {
	t.Parallel()
	s := newSim(t, 2)
	s.put(60)
	s.run(10*time.Second, "the most workers", func() bool { return s.wanted == 12 })
	s.run(time.Minute, "backlog done", func() bool { return s.done >= 50 })
	lowest := 12
	for range 120 {
		s.put(1)
		s.pass(500 * time.Millisecond)
		lowest = min(lowest, s.wanted)
	}
	if lowest > 4 || lowest < 1 {
		t.Errorf("the fleet went down to %d workers, where 2 or 3 have work", lowest)
	}
	s.run(time.Minute, "all done", func() bool { return s.done == s.items })
}

func TestBusyWorkersStayWhateverTheBounds(t *testing.T) {
	t.Parallel()
	s := newSim(t, 3)
	s.workTime = 40 * time.Second
	s.put(8)
	s.run(30*time.Second, "all at work", func() bool { return s.stats().Holders == 4 })
	s.settings.FixedWorkers = 0
	s.pass(15 * time.Second)
	if s.size() != 4 {
		t.Errorf("%d of 4 workers are left, though all were at work", s.size())
	}
	s.run(10*time.Minute, "all done", func() bool { return s.done == 8 })
	s.run(time.Minute, "nobody left", s.empty)
}

func TestWorkThatArrivesBeforeTheOrderLiftsTheBars(t *testing.T) {
	t.Parallel()
	s := newSim(t, 4)
	s.put(8)
	s.run(30*time.Second, "all done", func() bool { return s.done == 8 })
	s.run(30*time.Second, "bars", func() bool { return len(s.stats().Barred) > 0 })
	before := s.wanted
	s.put(24)
	s.run(simStep, "bars lifted at the next look", func() bool { return len(s.stats().Barred) == 0 })
	if s.wanted < before {
		t.Errorf("the fleet shrank from %d to %d though work came first", before, s.wanted)
	}
	s.run(time.Minute, "all done", func() bool { return s.done == 32 })
}

// Work that arrives after the order, before the platform has carried it out,
// lets nobody in who may be on his way out.
func TestWorkThatArrivesAfterTheOrderLetsNobodyIn(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		s := newSim(t, 100+seed)
		s.put(8)
		s.run(30*time.Second, "all done", func() bool { return s.done == 8 })
		s.run(time.Minute, "an order to shrink", func() bool {
			return len(s.resizes) > 0 && s.resizes[len(s.resizes)-1][1] < s.resizes[len(s.resizes)-1][0]
		})
		s.put(24)
		s.run(2*time.Minute, "all done", func() bool { return s.done == 32 })
		s.run(time.Minute, "nobody left", s.empty)
	}
}

func TestNothingIsResizedBlindly(t *testing.T) {
	t.Parallel()
	s := newSim(t, 5)
	s.put(8)
	s.run(30*time.Second, "all done", func() bool { return s.done == 8 })
	orders := len(s.resizes)

	s.blind = errors.New("no API server")
	s.pass(2 * time.Minute)
	if len(s.resizes) != orders || len(s.stats().Barred) > 0 {
		t.Errorf("without a view of the fleet: resizes %v, barred %v", s.resizes[orders:], s.stats().Barred)
	}
	last := s.decisions[len(s.decisions)-1]
	if diff := cmp.Diff(policy.Decision{Hold: true, Reasons: []policy.Reason{{Code: policy.Unobserved}}}, last); diff != "" {
		t.Errorf("the decision (-want +got):\n%s", diff)
	}

	s.blind = nil
	s.redis.SetError("LOADING the data set")
	s.control.step(t.Context())
	s.redis.SetError("")
	if len(s.resizes) != orders {
		t.Errorf("without a view of the queue: resizes %v", s.resizes[orders:])
	}
	s.run(time.Minute, "nobody left", s.empty)
}

func TestARefusedOrderIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newSim(t, 6)
	s.refuse = errors.New("quota")
	s.put(4)
	s.pass(5 * time.Second)
	s.refuse = nil
	s.run(2*time.Second, "workers", func() bool { return s.wanted == 2 })
	s.run(time.Minute, "all done", func() bool { return s.done == 4 })
	s.refuse = errors.New("conflict")
	s.pass(time.Minute)
	s.refuse = nil
	s.run(time.Minute, "nobody left", s.empty)
}

// Workers that never get ready (an image that can't be pulled) go, too.
func TestWorkersThatNeverStartGo(t *testing.T) {
	t.Parallel()
	s := newSim(t, 7)
	s.start = time.Hour
	s.settings.FixedWorkers = 5
	s.pass(10 * time.Second)
	s.settings.FixedWorkers = 0
	s.run(3*time.Minute, "nobody left", s.empty)
}

// A worker that never gets ready neither keeps the idle ones, nor costs one at work.
func TestAWorkerThatNeverStartsDoesNotKeepTheOthers(t *testing.T) {
	t.Parallel()
	s := newSim(t, 8)
	s.put(20)
	s.run(5*time.Second, "workers", func() bool { return s.size() == 10 })
	s.workers[0].stuck, s.workers[1].stuck = true, true
	s.run(time.Minute, "all done", func() bool { return s.done == 20 })
	s.run(4*time.Minute, "nobody left", s.empty)
}

// Barred workers that disappear leave names behind that never show as not ready.
func TestBarredWorkersThatDisappear(t *testing.T) {
	t.Parallel()
	s := newSim(t, 9)
	s.put(8)
	s.run(30*time.Second, "all done", func() bool { return s.done == 8 })
	s.run(30*time.Second, "bars", func() bool { return len(s.stats().Barred) > 0 })
	s.workers = nil // all nodes lost at once; others take their place
	s.run(4*time.Minute, "nobody left", s.empty)
	s.run(time.Minute, "no bar left", func() bool { return len(s.stats().Barred) == 0 })
}

// A new leader knows nothing of the bars that it finds.
func TestANewLeaderTakesOver(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
		s := newSim(t, 10)
		s.put(8)
		s.run(30*time.Second, "all done", func() bool { return s.done == 8 })
		s.run(30*time.Second, "bars", func() bool { return len(s.stats().Barred) > 0 })
		s.pass(after)
		s.newController()
		s.put(3)
		s.run(time.Minute, "all done", func() bool { return s.done == 11 })
		s.run(2*time.Minute, "nobody left", s.empty)
	}
}

// Bursts, pauses and crashes at random: nobody is removed at work, everything is
// done, and in the end everybody goes.
func TestRandomLoad(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := newSim(t, seed)
			if seed%3 == 0 {
				s.crashes = 0.01
			}
			s.start = time.Second + s.upTo(20*time.Second)
			s.workTime = 500*time.Millisecond + s.upTo(6*time.Second)
			s.settings.ScaleDownWindow = s.upTo(6 * time.Second)
			s.settings.ScaleToZeroAfter = s.upTo(6 * time.Second)
			s.settings.ItemsPerWorker = 1 + s.random.IntN(3)
			for range 6 {
				s.put(1 + s.random.IntN(25))
				s.pass(s.upTo(20 * time.Second))
			}
			// A crash costs its item the rest of a lease.
			s.run(10*time.Minute, "all done", func() bool {
				stats := s.stats()
				return stats.Waiting+stats.Leased == 0
			})
			s.crashes = 0
			s.run(4*time.Minute, "nobody left", s.empty)
		})
	}
}

// The wanted size jumps up and down under a trickle of long items, so that some
// workers always start while others are on their way out: the worst case for a
// controller that sees numbers only.
func TestRandomSizes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := newSim(t, 1000+seed)
			s.start = time.Second + s.upTo(8*time.Second)
			s.workTime = time.Second + s.upTo(8*time.Second)
			s.settings.ScaleDownWindow, s.settings.ScaleToZeroAfter, s.settings.ItemsPerWorker = 0, 0, 50
			for range 25 {
				s.settings.MinWorkers = s.random.IntN(11)
				for range 1 + s.random.IntN(6) {
					s.put(s.random.IntN(3))
					s.pass(s.upTo(2 * time.Second))
				}
			}
			s.settings.MinWorkers = 0
			s.run(10*time.Minute, "all done", func() bool { return s.done == s.items })
			s.run(4*time.Minute, "nobody left", s.empty)
		})
	}
}
