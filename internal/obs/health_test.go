package obs_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/obs"
)

func TestHealthTransitions(t *testing.T) {
	t.Parallel()
	h := obs.NewHealth("redis", "settings")
	steps := []struct {
		name string
		do   func()
		want []obs.Condition
	}{
		{"unknown is not good", func() {}, []obs.Condition{{Name: "redis", Reason: "not checked yet"}, {Name: "settings", Reason: "not checked yet"}}},
		{"one holds", func() { h.Set("redis", nil) }, []obs.Condition{{Name: "settings", Reason: "not checked yet"}}},
		{"all hold", func() { h.Set("settings", nil) }, []obs.Condition{}},
		{"one fails", func() { h.Set("redis", errors.New("connection refused")) }, []obs.Condition{{Name: "redis", Reason: "connection refused"}}},
		{"another reason", func() { h.Set("redis", errors.New("timeout")) }, []obs.Condition{{Name: "redis", Reason: "timeout"}}},
		{"an error without words fails too", func() { h.Set("redis", errors.New("")) }, []obs.Condition{{Name: "redis", Reason: "failed"}}},
		{"a new one", func() { h.Set("redis", nil); h.Set("barred", errors.New("by the scaler")) }, []obs.Condition{{Name: "barred", Reason: "by the scaler"}}},
		{"back", func() { h.Set("barred", nil) }, []obs.Condition{}},
	}
	for _, s := range steps {
		s.do()
		if diff := cmp.Diff(s.want, h.Failing()); diff != "" {
			t.Errorf("%s: failing (-want +got):\n%s", s.name, diff)
		}
		if h.Ready() != (len(s.want) == 0) {
			t.Errorf("%s: Ready = %t", s.name, h.Ready())
		}
	}
}

func TestBeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := obs.NewHealth()
		wantStalled := func(want ...obs.Condition) {
			t.Helper()
			if want == nil {
				want = []obs.Condition{}
			}
			if diff := cmp.Diff(want, h.Stalled()); diff != "" {
				t.Errorf("stalled (-want +got):\n%s", diff)
			}
		}
		wait := func(d time.Duration) { <-time.After(d) } // the bubble's clock

		h.Beat("lease", 10*time.Second)
		h.Beat("scale", time.Minute)
		wait(10 * time.Second)
		wantStalled() // the limit itself is in time
		wait(time.Second)
		wantStalled(obs.Condition{Name: "lease", Reason: "no beat for 1s past its time"})
		h.Beat("lease", 10*time.Second)
		wantStalled()
		wait(time.Hour)
		if got := h.Stalled(); len(got) != 2 || got[0].Name != "lease" || got[1].Name != "scale" {
			t.Errorf("stalled %v, want both", got)
		}
		h.Beat("lease", 0)
		h.Beat("scale", -1)
		wantStalled() // an ended loop owes no beat
	})
}

func TestHealthIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	h := obs.NewHealth("a", "b")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				h.Set("a", errors.New("x"))
				h.Beat("l", time.Hour)
				h.Failing()
				h.Stalled()
				h.Set("a", nil)
				h.Set("b", nil)
			}
		})
	}
	wg.Wait()
	if !h.Ready() {
		t.Errorf("failing: %v", h.Failing())
	}
}
