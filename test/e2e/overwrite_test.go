//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"tidemill/internal/queue"
)

// gateScript makes a command whose input starts with "gated" wait until the test
// opens the gate, or is gone.
const gateScript = `if grep -q ^gated "$TIDEMILL_INPUT"; then
	while [ -d "$1" ] && [ ! -e "$1/gate" ]; do sleep 0.05; done
fi
`

// TestNewerGenerationWins overwrites objects before, while and after their first
// generation is worked on. However late a worker is with an older generation, the
// newest one's results are those that stand.
func TestNewerGenerationWins(t *testing.T) {
	const late, others = 3, 20
	s := start(t, map[string]string{"match": uploads + "**", "lease-duration": "10s"})
	for i := range late + 1 { // one remains for the newer generations
		s.startWorker(t, fmt.Sprintf("worker-%d", i), sumScript+gateScript)
	}
	want := map[string]object{}
	var held []string
	for i := range late {
		name := fmt.Sprintf("%slate %d", uploads, i)
		held = append(held, fmt.Sprintf("%s#%d", name, s.store.upload(t, name, "gated")))
	}
	s.awaitRuns(t, held)
	for i := range late {
		name := fmt.Sprintf("%slate %d", uploads, i)
		want[name] = object{s.store.upload(t, name, "newer"), sum("newer")}
	}
	// Written as fast as it goes, most are overwritten while they wait.
	for i := range others {
		name := fmt.Sprintf("%sother %d", uploads, i)
		for version := range 3 {
			content := fmt.Sprintf("%d of %s", version, name)
			want[name] = object{s.store.upload(t, name, content), sum(content)}
		}
	}
	const generations = 2*late + 3*others
	ended := func(q queue.Stats) int64 { return q.Counters.Done + q.Counters.Skipped }
	s.awaitStats(t, soon, "all but the late are done", func(q queue.Stats) bool { return ended(q) == generations-late && q.Leased == late })
	s.checkResults(t, want)

	s.touch(t, "gate")
	s.awaitIdle(t, soon, "the late ones have ended too", func(q queue.Stats) bool { return ended(q) == generations })
	s.stop(t)
	s.checkResults(t, want)
	if stats := s.stats(t); stats.Dead != 0 || stats.Counters.Skipped < late || stats.Counters.Retried+stats.Counters.Deferred != 0 {
		t.Errorf("the queue ends at %+v", stats)
	}
}

// awaitRuns waits until the command has been started for each of the object
// generations, written name#generation.
func (s *system) awaitRuns(t *testing.T, runs []string) {
	t.Helper()
	await(t, "the command runs", soon, func(context.Context) error {
		started := s.lines(t, "runs")
		for _, run := range runs {
			if !slices.Contains(started, run) {
				return fmt.Errorf("it has not been started for %q", run)
			}
		}
		return nil
	})
}
