package policy_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/policy"
)

// worlds runs check in many random situations, each with a history of random
// length. A failure names the seed.
func worlds(t *testing.T, n int, check func(t *testing.T, w world)) {
	t.Helper()
	for seed := range uint64(n) {
		w := newWorld(seed)
		for range w.r.IntN(40) {
			w.pass()
		}
		check(t, w)
		if t.Failed() {
			t.Fatalf("seed %d, settings %+v", seed, w.settings)
		}
	}
}

type world struct {
	r        *rand.Rand
	settings policy.Settings
	history  policy.History
	now      time.Time
	wanted   int
}

func newWorld(seed uint64) world {
	r := rand.New(rand.NewPCG(seed, 1))
	w := world{r: r, now: start, wanted: r.IntN(60)}
	w.settings = policy.Settings{
		MinWorkers: r.IntN(2) * r.IntN(10), ItemsPerWorker: 1 + r.IntN(20),
		ScaleDownWindow: time.Duration(r.IntN(60)) * time.Second, ScaleToZeroAfter: time.Duration(r.IntN(90)) * time.Second,
		FixedWorkers: -1,
	}
	w.settings.MaxWorkers = max(1, w.settings.MinWorkers) + r.IntN(100)
	return w
}

func (w *world) observation() policy.Observation {
	leased := w.r.IntN(80) * w.r.IntN(2)
	o := seen(w.wanted, w.r.IntN(600)*w.r.IntN(2), leased, 0)
	if leased > 0 {
		o.Queue.Holders = 1 + w.r.IntN(leased)
	}
	if w.r.IntN(3) == 0 {
		o.Queue.NextDue = time.Duration(w.r.IntN(200)) * time.Second
	}
	return o
}

// pass lets time go by, decides, and gives the fleet what was decided.
func (w *world) pass() {
	w.now = w.now.Add(time.Duration(w.r.IntN(20_000)) * time.Millisecond)
	var d policy.Decision
	d, w.history = policy.Decide(w.settings, w.observation(), w.history, w.now)
	w.wanted = d.Workers
}

func TestNeverBelowThoseAtWorkNorOutsideTheBounds(t *testing.T) {
	t.Parallel()
	worlds(t, 3000, func(t *testing.T, w world) {
		t.Helper()
		o := w.observation()
		d, _ := policy.Decide(w.settings, o, w.history, w.now)
		if d.Workers < min(o.Queue.Holders, w.settings.MaxWorkers) {
			t.Errorf("%d workers are wanted while %d hold a lease: %+v", d.Workers, o.Queue.Holders, d)
		}
		if d.Workers < w.settings.MinWorkers || d.Workers > w.settings.MaxWorkers {
			t.Errorf("%d workers are out of bounds: %+v", d.Workers, d)
		}
		work := o.Queue.Waiting + o.Queue.Leased
		if d.Workers > max(d.From, work, w.settings.MinWorkers) {
			t.Errorf("grew to %d workers for %d items: %+v", d.Workers, work, d)
		}
		if n := len(d.Reasons); n > 0 && d.Reasons[n-1].Workers != d.Workers || n == 0 && d.Workers != 0 {
			t.Errorf("the reasons do not lead to %d: %+v", d.Workers, d.Reasons)
		}
		if d.Workers > 0 && w.settings.MinWorkers == 0 && work == 0 && d.From > 0 && d.Recheck <= 0 {
			t.Errorf("%d workers without work, and no look again: %+v", d.Workers, d)
		}
	})
}

func TestMoreBacklogNeverMeansFewerWorkers(t *testing.T) {
	t.Parallel()
	worlds(t, 3000, func(t *testing.T, w world) {
		t.Helper()
		o := w.observation()
		less, _ := policy.Decide(w.settings, o, w.history, w.now)
		o.Queue.Waiting += 1 + w.r.IntN(100)
		more, _ := policy.Decide(w.settings, o, w.history, w.now)
		if more.Workers < less.Workers {
			t.Errorf("more backlog, %+v, gives fewer workers:\n%+v\n%+v", *o.Queue, less, more)
		}
	})
}

func TestAConstantLoadReachesAFixedPoint(t *testing.T) {
	t.Parallel()
	worlds(t, 300, func(t *testing.T, w world) {
		t.Helper()
		o := w.observation()
		o.Queue.NextDue = -1
		settled := w.now.Add(w.settings.ScaleDownWindow + w.settings.ScaleToZeroAfter + time.Minute)
		w.now = w.now.Add(time.Second)
		direction, final := 0, -1
		for i := 0; w.now.Before(settled.Add(time.Minute)); i++ {
			o.Fleet.Wanted = w.wanted
			var d policy.Decision
			d, w.history = policy.Decide(w.settings, o, w.history, w.now)
			if turn := d.Workers - w.wanted; turn != 0 {
				if turn*direction < 0 {
					t.Errorf("the fleet turns round under a constant load, at look %d: %+v", i, d)
				}
				direction = turn
			}
			w.wanted = d.Workers
			if w.now.After(settled) {
				if final >= 0 && d.Workers != final {
					t.Errorf("the fleet does not settle: %d, then %d", final, d.Workers)
				}
				final = d.Workers
			}
			w.now = w.now.Add(time.Duration(1+w.r.IntN(5000)) * time.Millisecond)
		}
		work := o.Queue.Waiting + o.Queue.Leased
		want := max(w.settings.MinWorkers, min(w.settings.MaxWorkers,
			max(o.Queue.Holders, (work+w.settings.ItemsPerWorker-1)/w.settings.ItemsPerWorker)))
		if final != want {
			t.Errorf("the fleet settles at %d, not %d, for %+v", final, want, *o.Queue)
		}
	})
}

func TestUnobservedHolds(t *testing.T) {
	t.Parallel()
	worlds(t, 300, func(t *testing.T, w world) {
		t.Helper()
		w.settings.Freeze = w.r.IntN(2) == 0
		w.settings.FixedWorkers = w.r.IntN(5) - 1
		for _, blind := range []func(*policy.Observation){
			func(o *policy.Observation) { o.Queue = nil },
			func(o *policy.Observation) { o.Fleet = nil },
			func(o *policy.Observation) { o.Queue, o.Fleet = nil, nil },
		} {
			o := w.observation()
			blind(&o)
			d, h := policy.Decide(w.settings, o, w.history, w.now)
			if !d.Hold {
				t.Errorf("%+v is decided on: %+v", o, d)
			}
			if diff := cmp.Diff(w.history, h); diff != "" {
				t.Errorf("what was not seen changes the history:\n%s", diff)
			}
		}
	})
}

// The history holds at most one sample for each size, and the settings' windows
// are kept to: going down waits for them, and zero for its own time.
func TestWindowsAreKept(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		w := newWorld(seed)
		type wish struct {
			at      time.Time
			workers int
		}
		var wishes []wish // what each look wanted by the backlog alone, newest last
		lastWork := w.now
		for i := range 400 {
			w.now = w.now.Add(time.Duration(w.r.IntN(2000)) * time.Millisecond)
			o := w.observation()
			before := slices.Clone(w.history.Wanted)
			d, h := policy.Decide(w.settings, o, w.history, w.now)
			if diff := cmp.Diff(before, w.history.Wanted); diff != "" {
				t.Fatalf("seed %d: the history handed in was changed:\n%s", seed, diff)
			}
			w.history = h
			work := o.Queue.Waiting + o.Queue.Leased
			if work > 0 {
				lastWork = w.now
			}
			n := max(o.Queue.Holders, (work+w.settings.ItemsPerWorker-1)/w.settings.ItemsPerWorker)
			most := n
			for _, past := range wishes {
				if past.at.After(w.now.Add(-w.settings.ScaleDownWindow)) {
					most = max(most, past.workers)
				}
			}
			wishes = append(wishes, wish{w.now, n})
			if d.Workers < min(d.From, most, w.settings.MaxWorkers) {
				t.Fatalf("seed %d, look %d: down to %d, though %d were wanted within %s: %+v", seed, i, d.Workers, most, w.settings.ScaleDownWindow, d)
			}
			if quiet := w.now.Sub(lastWork); d.Workers == 0 && d.From > 0 && quiet < w.settings.ScaleToZeroAfter {
				t.Fatalf("seed %d, look %d: zero after %s of quiet, before %s: %+v", seed, i, quiet, w.settings.ScaleToZeroAfter, d)
			}
			for j := range h.Wanted[1:] {
				if a, b := h.Wanted[j], h.Wanted[j+1]; a.Workers <= b.Workers || a.At.After(b.At) {
					t.Fatalf("seed %d, look %d: the history is not falling: %+v", seed, i, h.Wanted)
				}
			}
			w.wanted = d.Workers
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	s := with(func(s *policy.Settings) { s.ScaleDownWindow = time.Hour })
	var h policy.History
	for i := range 20_000 {
		now := start.Add(time.Duration(i) * 100 * time.Millisecond) // all within the window
		_, h = policy.Decide(s, seen(50, 10*(i%50), 0, 0), h, now)
		if len(h.Wanted) > 51 {
			t.Fatalf("after %d looks at 50 sizes the history has %d samples", i+1, len(h.Wanted))
		}
	}
}

func FuzzDecide(f *testing.F) {
	f.Add(5, 100, 3, 2, int64(-1), 8, 0, 100, 10, int64(30e9), int64(60e9), -1, false, int64(1e9), uint8(0))
	f.Add(0, 1, 0, 0, int64(0), 0, 0, 1, 1, int64(0), int64(0), 0, true, int64(-1e9), uint8(3))
	f.Fuzz(func(t *testing.T, waiting, leased, holders, fleet int, nextDue int64, past, low, high, perWorker int,
		window, zeroAfter int64, fixed int, freeze bool, elapsed int64, blind uint8,
	) {
		s := policy.Settings{
			MinWorkers: max(0, low), MaxWorkers: max(1, low, high), ItemsPerWorker: perWorker,
			ScaleDownWindow: time.Duration(max(0, window)), ScaleToZeroAfter: time.Duration(max(0, zeroAfter)),
			FixedWorkers: fixed, Freeze: freeze,
		}
		const most = 1 << 40 // items; far more than any queue holds
		o := policy.Observation{
			Queue: &policy.Queue{
				Waiting: min(most, max(0, waiting)), Leased: min(most, max(0, leased)), Holders: min(most, max(0, holders)),
				NextDue: time.Duration(nextDue),
			},
			Fleet: &policy.Fleet{Wanted: max(0, fleet)},
		}
		if blind&1 != 0 {
			o.Queue = nil
		}
		if blind&2 != 0 {
			o.Fleet = nil
		}
		h := policy.History{Wanted: []policy.Sample{{At: start, Workers: max(0, past)}}, LastActive: start}
		d, after := policy.Decide(s, o, h, start.Add(time.Duration(elapsed)))
		again, _ := policy.Decide(s, o, h, start.Add(time.Duration(elapsed)))
		if diff := cmp.Diff(d, again); diff != "" {
			t.Errorf("decided differently on the same:\n%s", diff)
		}
		switch {
		case blind&3 != 0:
			if !d.Hold || d.Recheck != 0 {
				t.Errorf("what was not seen is decided on: %+v", d)
			}
			return
		case d.Hold || d.Recheck < 0 || d.From != o.Fleet.Wanted || len(after.Wanted) == 0 || len(after.Wanted) > 2:
			t.Errorf("decision %+v, history %+v", d, after)
		case freeze:
			if d.Workers != o.Fleet.Wanted {
				t.Errorf("frozen at %d, but %+v", o.Fleet.Wanted, d)
			}
		case fixed >= 0:
			if d.Workers != fixed {
				t.Errorf("fixed at %d, but %+v", fixed, d)
			}
		case d.Workers < s.MinWorkers || d.Workers > s.MaxWorkers || d.Workers < min(o.Queue.Holders, s.MaxWorkers):
			t.Errorf("out of bounds, or below those at work: %+v", d)
		case o.Queue.Waiting > 0 && d.Workers == 0:
			t.Errorf("work waits for nobody: %+v", d)
		}
	})
}
