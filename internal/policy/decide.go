package policy

import (
	"slices"
	"time"
)

// Decide says how many workers there should be now, and returns the history for
// the next decision; h itself is left as it is. If now goes backwards between
// calls that share a history, the past counts as just now.
//
// The bounds come after everything that holds the number up, and fixed-workers
// and freeze before: an operator who lowers max-workers below the busy workers,
// or fixes a smaller number, gets that number. It harms nobody at work, because
// only idle workers are ever removed; the fleet gets there as they fall idle.
func Decide(s Settings, o Observation, h History, now time.Time) (Decision, History) {
	if o.Queue == nil || o.Fleet == nil {
		return Decision{Hold: true, Reasons: []Reason{{Code: Unobserved}}}, h
	}
	q, current := *o.Queue, o.Fleet.Wanted
	d := Decision{From: current}
	n := 0
	step := func(c Code, to int) {
		if to != n {
			n = to
			d.Reasons = append(d.Reasons, Reason{Code: c, Workers: n})
		}
	}

	step(Backlog, ceilDiv(q.Waiting+q.Leased, s.ItemsPerWorker))
	step(Busy, max(n, q.Holders))
	if s.FixedWorkers >= 0 {
		step(Fixed, s.FixedWorkers)
	}
	if s.Freeze {
		step(Frozen, current)
	}
	byHand := s.FixedWorkers >= 0 || s.Freeze

	h.Wanted = wanted(h.Wanted, current, n, now, s.ScaleDownWindow)
	if most := h.Wanted[0]; n < current && !byHand && most.Workers > n {
		step(DownWindow, min(current, most.Workers))
		d.recheckIn(most.At.Add(s.ScaleDownWindow).Sub(now))
	}

	dueSoon := q.NextDue >= 0 && q.NextDue <= s.ScaleToZeroAfter
	active := q.Waiting+q.Leased > 0 || dueSoon
	if active || h.Active || h.LastActive.IsZero() || h.LastActive.After(now) {
		h.LastActive = now
	}
	h.Active = active
	if n == 0 && current > 0 && !byHand {
		if left := h.LastActive.Add(s.ScaleToZeroAfter).Sub(now); left > 0 {
			step(KeepOne, 1)
			d.recheckIn(left)
		}
	}
	if !byHand {
		step(MinWorkers, max(n, s.MinWorkers))
		step(MaxWorkers, min(n, s.MaxWorkers))
	}
	if q.NextDue >= 0 {
		d.recheckIn(q.NextDue + time.Millisecond)
	}
	d.Workers = n
	return d, h
}

// recheckIn keeps the earliest of all times that are asked for.
func (d *Decision) recheckIn(t time.Duration) {
	t = max(t, time.Millisecond)
	if d.Recheck == 0 || t < d.Recheck {
		d.Recheck = t
	}
}

// wanted returns the samples of the window that ends now, with n as the newest.
// The first of them is the largest. Missing history is the current size. What was
// last wanted exactly a window ago no longer counts.
func wanted(samples []Sample, current, n int, now time.Time, window time.Duration) []Sample {
	samples = slices.Clone(samples)
	if len(samples) == 0 {
		samples = []Sample{{Workers: current}}
	}
	samples[len(samples)-1].At = now // nobody has looked since, so it stood until now
	start := now.Add(-window)
	kept := make([]Sample, 0, len(samples)+1)
	keep := func(s Sample) {
		for len(kept) > 0 && kept[len(kept)-1].Workers <= s.Workers {
			kept = kept[:len(kept)-1]
		}
		kept = append(kept, s)
	}
	for _, s := range samples {
		if s.At.After(now) {
			s.At = now
		}
		if s.At.After(start) {
			keep(s)
		}
	}
	keep(Sample{At: now, Workers: n})
	return kept
}

func ceilDiv(a, b int) int {
	if a <= 0 {
		return 0
	}
	b = max(b, 1)
	return a/b + min(1, a%b)
}
