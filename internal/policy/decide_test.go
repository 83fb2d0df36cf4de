package policy_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/policy"
)

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// defaults are the shipped thresholds.
func defaults() policy.Settings {
	return policy.Settings{
		MaxWorkers: 100, ItemsPerWorker: 10, ScaleDownWindow: 30 * time.Second, ScaleToZeroAfter: time.Minute, FixedWorkers: -1,
	}
}

func with(change func(*policy.Settings)) policy.Settings {
	s := defaults()
	change(&s)
	return s
}

func seen(wanted, waiting, leased, holders int) policy.Observation {
	return policy.Observation{
		Queue: &policy.Queue{Waiting: waiting, Leased: leased, Holders: holders, NextDue: -1},
		Fleet: &policy.Fleet{Wanted: wanted},
	}
}

func seenDue(wanted int, nextDue time.Duration) policy.Observation {
	o := seen(wanted, 0, 0, 0)
	o.Queue.NextDue = nextDue
	return o
}

// past is a history in which so many workers were last wanted, and something
// was last to do, that long before start.
func past(workers int, ago time.Duration) policy.History {
	return policy.History{
		Wanted:     []policy.Sample{{At: start.Add(-ago), Workers: workers}, {At: start.Add(-ago), Workers: 0}},
		LastActive: start.Add(-ago),
	}
}

type reasons = []policy.Reason

func TestDecide(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, c := range []struct {
		name     string
		settings policy.Settings
		seen     policy.Observation
		history  policy.History
		want     policy.Decision
	}{
		{
			"nothing to do and nobody there", defaults(), seen(0, 0, 0, 0), policy.History{},
			policy.Decision{},
		},
		{
			"one waiting item wakes a fleet at zero", defaults(), seen(0, 1, 0, 0), past(0, time.Hour),
			policy.Decision{Workers: 1, Reasons: reasons{{policy.Backlog, 1}}},
		},
		{
			"ten items are one worker's", defaults(), seen(0, 10, 0, 0), policy.History{},
			policy.Decision{Workers: 1, Reasons: reasons{{policy.Backlog, 1}}},
		},
		{
			"the eleventh needs another", defaults(), seen(0, 11, 0, 0), policy.History{},
			policy.Decision{Workers: 2, Reasons: reasons{{policy.Backlog, 2}}},
		},
		{
			"leased items are backlog too", defaults(), seen(1, 10, 1, 1), policy.History{},
			policy.Decision{From: 1, Workers: 2, Reasons: reasons{{policy.Backlog, 2}}},
		},
		{
			"not below those at work", defaults(), seen(7, 0, 7, 7), past(0, time.Hour),
			policy.Decision{From: 7, Workers: 7, Reasons: reasons{{policy.Backlog, 1}, {policy.Busy, 7}}},
		},
		{
			"max-workers", with(func(s *policy.Settings) { s.MaxWorkers = 5 }), seen(0, 1000, 0, 0), policy.History{},
			policy.Decision{Workers: 5, Reasons: reasons{{policy.Backlog, 100}, {policy.MaxWorkers, 5}}},
		},
		{
			"max-workers lowered below those at work", with(func(s *policy.Settings) { s.MaxWorkers = 5 }),
			seen(8, 50, 8, 8), past(0, time.Hour),
			policy.Decision{From: 8, Workers: 5, Reasons: reasons{{policy.Backlog, 6}, {policy.Busy, 8}, {policy.MaxWorkers, 5}}},
		},
		{
			"min-workers", with(func(s *policy.Settings) { s.MinWorkers = 3 }), seen(0, 0, 0, 0), policy.History{},
			policy.Decision{Workers: 3, Reasons: reasons{{policy.MinWorkers, 3}}},
		},
		{
			"min-workers is what the fleet goes down to", with(func(s *policy.Settings) { s.MinWorkers = 3 }),
			seen(9, 0, 0, 0), past(9, time.Hour),
			policy.Decision{From: 9, Workers: 3, Reasons: reasons{{policy.MinWorkers, 3}}},
		},
		{
			"without history the current size counts for a window", defaults(), seen(8, 10, 0, 0), policy.History{},
			policy.Decision{From: 8, Workers: 8, Reasons: reasons{{policy.Backlog, 1}, {policy.DownWindow, 8}}, Recheck: 30 * s},
		},
		{
			"within the window the fleet stays", defaults(), seen(8, 10, 0, 0), past(8, 29*s),
			policy.Decision{From: 8, Workers: 8, Reasons: reasons{{policy.Backlog, 1}, {policy.DownWindow, 8}}, Recheck: s},
		},
		{
			"after exactly the window it goes", defaults(), seen(8, 10, 0, 0), past(8, 30*s),
			policy.Decision{From: 8, Workers: 1, Reasons: reasons{{policy.Backlog, 1}}},
		},
		{
			"the window holds up no further than the most wanted", defaults(), seen(8, 10, 0, 0), past(4, 10*s),
			policy.Decision{From: 8, Workers: 4, Reasons: reasons{{policy.Backlog, 1}, {policy.DownWindow, 4}}, Recheck: 20 * s},
		},
		{
			"the window never adds workers", defaults(), seen(8, 10, 0, 0), past(50, 10*s),
			policy.Decision{From: 8, Workers: 8, Reasons: reasons{{policy.Backlog, 1}, {policy.DownWindow, 8}}, Recheck: 20 * s},
		},
		{
			"no window, no wait", with(func(s *policy.Settings) { s.ScaleDownWindow = 0 }), seen(8, 10, 0, 0), policy.History{},
			policy.Decision{From: 8, Workers: 1, Reasons: reasons{{policy.Backlog, 1}}},
		},
		{
			"the window is no reason to wait with going up", defaults(), seen(1, 100, 0, 0), past(1, 0),
			policy.Decision{From: 1, Workers: 10, Reasons: reasons{{policy.Backlog, 10}}},
		},
		{
			"one stays until it has been quiet for long enough", defaults(), seen(8, 0, 0, 0), past(8, 59*s),
			policy.Decision{From: 8, Workers: 1, Reasons: reasons{{policy.KeepOne, 1}}, Recheck: s},
		},
		{
			"after exactly that long nobody stays", defaults(), seen(1, 0, 0, 0), past(1, 60*s),
			policy.Decision{From: 1},
		},
		{
			"a fleet at zero is not raised to one", defaults(), seen(0, 0, 0, 0), past(1, s),
			policy.Decision{},
		},
		{
			"zero at once where that is wanted", with(func(s *policy.Settings) { s.ScaleToZeroAfter, s.ScaleDownWindow = 0, 0 }),
			seen(8, 0, 0, 0), policy.History{},
			policy.Decision{From: 8},
		},
		{
			"an item due soon keeps one", defaults(), seenDue(8, 60*s), past(8, time.Hour),
			policy.Decision{From: 8, Workers: 1, Reasons: reasons{{policy.KeepOne, 1}}, Recheck: 60 * s},
		},
		{
			"an item due later keeps none, but wakes the scaler", defaults(), seenDue(8, 61*s), past(8, time.Hour),
			policy.Decision{From: 8, Recheck: 61*s + time.Millisecond},
		},
		{
			"an item due now is looked for at once", defaults(), seenDue(0, 0), past(0, time.Hour),
			policy.Decision{Recheck: time.Millisecond},
		},
		{
			"fixed-workers, whatever the backlog", with(func(s *policy.Settings) { s.FixedWorkers = 4 }),
			seen(0, 1000, 0, 0), policy.History{},
			policy.Decision{Workers: 4, Reasons: reasons{{policy.Backlog, 100}, {policy.Fixed, 4}}},
		},
		{
			"fixed-workers needs no window", with(func(s *policy.Settings) { s.FixedWorkers = 0 }),
			seen(9, 3, 6, 6), past(9, 0),
			policy.Decision{From: 9, Reasons: reasons{{policy.Backlog, 1}, {policy.Busy, 6}, {policy.Fixed, 0}}},
		},
		{
			"fixed-workers is over the bounds", with(func(s *policy.Settings) { s.FixedWorkers = 200 }),
			seen(0, 0, 0, 0), policy.History{},
			policy.Decision{Workers: 200, Reasons: reasons{{policy.Fixed, 200}}},
		},
		{
			"freeze", with(func(s *policy.Settings) { s.Freeze = true }), seen(3, 1000, 0, 0), policy.History{},
			policy.Decision{From: 3, Workers: 3, Reasons: reasons{{policy.Backlog, 100}, {policy.Frozen, 3}}},
		},
		{
			"freeze is over everything", with(func(s *policy.Settings) { s.Freeze, s.FixedWorkers, s.MaxWorkers = true, 7, 1 }),
			seen(3, 0, 0, 0), past(3, time.Hour),
			policy.Decision{From: 3, Workers: 3, Reasons: reasons{{policy.Fixed, 7}, {policy.Frozen, 3}}},
		},
		{
			"a queue that can't be read", defaults(), policy.Observation{Fleet: &policy.Fleet{Wanted: 5}}, past(5, time.Hour),
			policy.Decision{Hold: true, Reasons: reasons{{Code: policy.Unobserved}}},
		},
		{
			"a fleet that can't be read", with(func(s *policy.Settings) { s.FixedWorkers = 0 }),
			policy.Observation{Queue: &policy.Queue{Waiting: 5}}, policy.History{},
			policy.Decision{Hold: true, Reasons: reasons{{Code: policy.Unobserved}}},
		},
	} {
		got, _ := policy.Decide(c.settings, c.seen, c.history, start)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// look is one step of a story: after so long, this is seen, and that many
// workers are wanted.
type look struct {
	after   time.Duration
	seen    policy.Observation
	workers int
}

func TestStories(t *testing.T) {
	t.Parallel()
	const s = time.Second
	unread := policy.Observation{Fleet: &policy.Fleet{Wanted: 10}}
	for name, story := range map[string][]look{
		"a restarted scaler keeps the fleet for a whole window": {
			{0, seen(10, 0, 0, 0), 10}, {29 * s, seen(10, 0, 0, 0), 10}, {s, seen(10, 0, 0, 0), 1},
			{30 * s, seen(1, 0, 0, 0), 0}, // 60 s after the first look
		},
		"what nobody looked at counts as it was": {
			{0, seen(0, 100, 0, 0), 10}, {time.Hour, seen(10, 0, 0, 0), 10}, {29 * s, seen(10, 0, 0, 0), 10},
			{s, seen(10, 0, 0, 0), 1}, {29 * s, seen(1, 0, 0, 0), 1}, {s, seen(1, 0, 0, 0), 0},
		},
		"after an outage the window begins anew": {
			{0, seen(10, 100, 0, 0), 10}, {time.Minute, unread, 0}, {time.Minute, seen(10, 0, 0, 0), 10},
			{30 * s, seen(10, 0, 0, 0), 1},
		},
		"a short dip costs nothing": {
			{0, seen(0, 100, 0, 0), 10}, {10 * s, seen(10, 20, 0, 0), 10}, {10 * s, seen(10, 100, 0, 0), 10},
			{25 * s, seen(10, 20, 0, 0), 10}, {29 * s, seen(10, 20, 0, 0), 10}, {s, seen(10, 20, 0, 0), 2},
		},
		"down by stairs, each after its own window": {
			{0, seen(0, 100, 0, 0), 10}, {10 * s, seen(10, 60, 0, 0), 10}, {10 * s, seen(10, 20, 0, 0), 10},
			{19 * s, seen(10, 20, 0, 0), 10}, {s, seen(10, 20, 0, 0), 6}, {10 * s, seen(6, 20, 0, 0), 2},
		},
		"quiet begins anew with every item": {
			{0, seen(0, 1, 0, 0), 1}, {50 * s, seen(1, 0, 0, 0), 1}, {50 * s, seen(1, 0, 1, 1), 1},
			{s, seen(1, 0, 0, 0), 1}, {59 * s, seen(1, 0, 0, 0), 1}, {s, seen(1, 0, 0, 0), 0},
		},
		"a retry that comes close keeps the last one": {
			{0, seenDue(1, 90*s), 1}, {30 * s, seenDue(1, 60*s), 1}, {59 * s, seenDue(1, s), 1}, {s, seen(1, 1, 0, 0), 1},
		},
		"a clock that goes back drops nothing, and holds no longer than a window": {
			{0, seen(0, 100, 0, 0), 10}, {s, seen(10, 0, 0, 0), 10}, {-time.Hour, seen(10, 0, 0, 0), 10},
			{29 * s, seen(10, 0, 0, 0), 10}, {s, seen(10, 0, 0, 0), 1}, {29 * s, seen(1, 0, 0, 0), 1}, {s, seen(1, 0, 0, 0), 0},
		},
	} {
		var h policy.History
		now := start
		for i, l := range story {
			now = now.Add(l.after)
			var d policy.Decision
			d, h = policy.Decide(defaults(), l.seen, h, now)
			if d.Workers != l.workers {
				t.Fatalf("%s: look %d wants %d workers, not %d; reasons %v, history %+v", name, i+1, d.Workers, l.workers, d.Reasons, h)
			}
		}
	}
}

// A size that was held by hand counts as wanted, so that resuming is no cliff.
func TestAFreezeThatEndsDropsNothing(t *testing.T) {
	t.Parallel()
	frozen := with(func(s *policy.Settings) { s.Freeze = true })
	_, h := policy.Decide(frozen, seen(10, 0, 0, 0), policy.History{}, start)
	_, h = policy.Decide(frozen, seen(10, 0, 0, 0), h, start.Add(time.Hour))
	d, _ := policy.Decide(defaults(), seen(10, 0, 0, 0), h, start.Add(time.Hour+time.Second))
	if d.Workers != 10 {
		t.Errorf("%d workers are wanted after the freeze, not 10: %v", d.Workers, d.Reasons)
	}
}
