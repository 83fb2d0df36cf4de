package scale

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tidemill/internal/policy"
	"tidemill/internal/queue"
)

// ledger is a fleet that does nothing but write down what is asked of it.
type ledger struct{ orders [][2]int }

func (l *ledger) Observe(context.Context) (Size, error) { return Size{}, nil }

func (l *ledger) Resize(_ context.Context, from, n int) error {
	l.orders = append(l.orders, [2]int{from, n})
	return nil
}

// Each case is one look at ten wanted workers, three of them idle in the queue,
// with a past. It says what is asked of the fleet, and how many are barred then.
func TestApplyOneStep(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	long, moment := now.Add(-time.Hour), now.Add(-time.Second)
	for _, c := range []struct {
		name    string
		way     going
		barred  int // beforehand
		holders int64
		size    Size
		to      int // the decision
		order   int // -1: none
		after   int // barred
	}{
		{"idle ones are barred, no more than are too many", going{}, 0, 7, Size{Wanted: 10, Ready: 10}, 8, -1, 2},
		{"all idle ones are barred", going{}, 0, 7, Size{Wanted: 10, Ready: 10}, 2, -1, 3},
		{"bars that have not shown", going{barred: moment}, 3, 7, Size{Wanted: 10, Ready: 10}, 7, -1, 3},
		{"bars that have just shown", going{barred: long}, 3, 7, Size{Wanted: 10, Ready: 7, Other: 3}, 7, -1, 3},
		{"bars that show", going{barred: long, matched: now.Add(-DefaultSettle)}, 3, 7, Size{Wanted: 10, Ready: 7, Other: 3}, 7, 7, 3},
		{"bars that show, before more are too many", going{barred: long, matched: long}, 3, 7, Size{Wanted: 10, Ready: 7, Other: 3}, 1, 7, 3},
		{"one bar that does not show yet", going{barred: moment}, 3, 7, Size{Wanted: 10, Ready: 8, Other: 2}, 7, -1, 3},
		{"one bar that never shows", going{barred: now.Add(-showWithin)}, 3, 7, Size{Wanted: 10, Ready: 8, Other: 2}, 7, -1, 0},
		{"more bars than are too many", going{barred: long, matched: long}, 3, 7, Size{Wanted: 10, Ready: 7, Other: 3}, 9, -1, 1},
		{"none is too many any more", going{barred: long, matched: long}, 3, 7, Size{Wanted: 10, Ready: 7, Other: 3}, 10, -1, 0},
		{"more are wanted", going{barred: long}, 3, 7, Size{Wanted: 10, Ready: 10}, 12, 12, 0},
		{"those asked to go are still there", going{spent: true, lowered: long, loweredTo: 10}, 3, 7, Size{Wanted: 10, Ready: 10, Other: 3}, 5, -1, 3},
		{"and more are wanted", going{spent: true, lowered: long, loweredTo: 10}, 3, 7, Size{Wanted: 10, Ready: 10, Other: 3}, 12, 12, 3},
		{"and this size is", going{spent: true, lowered: long, loweredTo: 10}, 3, 7, Size{Wanted: 10, Ready: 10, Other: 3}, 10, -1, 3},
		{"an order taken back a moment ago", going{spent: true, lowered: moment, loweredTo: 7}, 3, 7, Size{Wanted: 10, Ready: 7, Other: 3}, 10, -1, 3},
		{"an order taken back long ago", going{spent: true, lowered: long, loweredTo: 7}, 3, 7, Size{Wanted: 10, Ready: 7, Other: 3}, 10, -1, 0},
		{"bars that have served", going{spent: true, lowered: moment, loweredTo: 10}, 3, 7, Size{Wanted: 10, Ready: 10}, 5, -1, 0},
		{"another controller's bars", going{spent: true}, 3, 7, Size{Wanted: 10, Ready: 7, Other: 3}, 5, -1, 0},
		{"not running yet", going{}, 0, 3, Size{Wanted: 10, Ready: 6, Pending: 4}, 1, 6, 0},
		{"not running yet, though one at work is not ready", going{}, 0, 4, Size{Wanted: 10, Ready: 6, Pending: 4}, 1, -1, 0},
		{"starting", going{}, 0, 3, Size{Wanted: 10, Ready: 6, Other: 4}, 7, -1, 0},
		{"never got ready", going{strangers: long}, 0, 3, Size{Wanted: 10, Ready: 6, Other: 4}, 7, 7, 0},
		{"never got ready, and idle ones", going{strangers: long}, 0, 3, Size{Wanted: 10, Ready: 6, Other: 4}, 4, -1, 2},
		{"never got ready, and barred ones", going{strangers: long, barred: long}, 2, 3, Size{Wanted: 10, Ready: 4, Other: 6}, 4, 4, 2},
		{"never got ready, and just barred ones", going{strangers: long, barred: moment}, 2, 3, Size{Wanted: 10, Ready: 6, Other: 4}, 4, -1, 2},
		{"never got ready, but may be at work", going{strangers: long}, 0, 4, Size{Wanted: 10, Ready: 6, Other: 4}, 7, -1, 0},
		{"never got ready, or was just let in again", going{strangers: long, barred: moment}, 0, 3, Size{Wanted: 10, Ready: 6, Other: 4}, 7, -1, 0},
	} {
		s := newSim(t, 0)
		fleet := &ledger{}
		s.control.Fleet, s.control.now, s.control.way = fleet, func() time.Time { return now }, c.way
		for i := range 3 {
			if _, err := s.queue.Turn(t.Context(), queue.Turn{Worker: fmt.Sprint("w", i), Want: 1, Lease: time.Minute}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.queue.Bar(t.Context(), c.barred); err != nil {
			t.Fatal(err)
		}
		stats := s.stats()
		stats.Holders = c.holders
		if _, err := s.control.apply(t.Context(), policy.Decision{From: c.size.Wanted, Workers: c.to}, stats, c.size, now); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var want [][2]int
		if c.order >= 0 {
			want = [][2]int{{c.size.Wanted, c.order}}
		}
		if fmt.Sprint(fleet.orders) != fmt.Sprint(want) {
			t.Errorf("%s: orders %v, want %v", c.name, fleet.orders, want)
		}
		if after := len(s.stats().Barred); after != c.after {
			t.Errorf("%s: %d workers are barred afterwards, want %d", c.name, after, c.after)
		}
	}
}

// A picture that took long to get says nothing about now.
func TestAnOldPictureMovesNobody(t *testing.T) {
	t.Parallel()
	s := newSim(t, 0)
	fleet := &ledger{}
	s.control.Fleet, s.control.way = fleet, going{}
	size := Size{Wanted: 4, Pending: 4}
	d := policy.Decision{From: 4}
	if _, err := s.control.apply(t.Context(), d, s.stats(), size, s.now.Add(-DefaultSettle)); err != nil || len(fleet.orders) > 0 {
		t.Errorf("orders %v, error %v, want none", fleet.orders, err)
	}
	if _, err := s.control.apply(t.Context(), d, s.stats(), size, s.now.Add(-DefaultSettle/2)); err != nil || len(fleet.orders) != 1 {
		t.Errorf("orders %v, error %v, want one", fleet.orders, err)
	}
}
