//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/result"
)

// TestTerminatedWorker sends SIGTERM to workers in the middle of an item. Leases
// and retries last longer than the test may, so what isn't done by the end was
// given back late or not at all.
func TestTerminatedWorker(t *testing.T) {
	const objects = 20
	s := start(t, map[string]string{"match": uploads + "**", "lease-duration": "10m", "retry-backoff": "10m..20m"})
	patient := s.startWorker(t, "patient", sumScript+gateScript, "--drain", "10m")
	finished := fmt.Sprintf("%sfinished#%d", uploads, s.store.upload(t, uploads+"finished", "gated, and finished"))
	s.awaitRuns(t, []string{finished})
	// This one's command doesn't get to its end.
	hasty := s.startWorker(t, "hasty", sumScript+"while [ -d \"$1\" ]; do sleep 0.05; done\n", "--drain", "200ms")
	released := fmt.Sprintf("%sreleased#%d", uploads, s.store.upload(t, uploads+"released", "given back"))
	s.awaitRuns(t, []string{released})

	want := map[string]object{}
	for i := range objects {
		content := strings.Repeat("x", i)
		s.store.upload(t, fmt.Sprintf("%s%d", uploads, i), content)
		want[fmt.Sprintf("%s%d", uploads, i)] = object{Sum: sum(content)}
	}
	s.awaitStats(t, soon, "all events have arrived", func(q queue.Stats) bool { return q.Counters.Enqueued == objects+2 })
	patient.signal(t, syscall.SIGTERM)
	hasty.signal(t, syscall.SIGTERM)
	s.touch(t, "gate")
	for _, d := range []*daemon{patient, hasty} {
		if code := d.exit(t); code != 143 {
			t.Errorf("%s: exit code %d after SIGTERM, want 143", d.name, code)
		}
	}
	s.checkEnded(t, finished, queue.StateDone, "patient")
	s.checkEnded(t, released, queue.StateWaiting, "hasty")

	s.startWorker(t, "successor", sumScript)
	s.awaitIdle(t, soon, "all objects are done", func(q queue.Stats) bool { return q.Counters.Done == objects+2 })
	s.stop(t)
	for name, generation := range s.store.list(t, uploads) {
		want[uploads+name] = object{generation, want[uploads+name].Sum}
	}
	want[uploads+"finished"] = object{want[uploads+"finished"].Generation, sum("gated, and finished")}
	want[uploads+"released"] = object{want[uploads+"released"].Generation, sum("given back")}
	s.checkResults(t, want)
	stats := s.stats(t)
	if c := stats.Counters; stats.Dead != 0 || c.Released < 1 || c.Retried+c.Deferred+c.Expired+c.Skipped != 0 {
		t.Errorf("the queue ends at %+v", stats)
	}
	by := s.workers(t)
	if got := by[uploads+"finished"]; got != "patient, attempt 1" {
		t.Errorf("the object that was to be finished has the results of %s", got)
	}
	if got := by[uploads+"released"]; got != "successor, attempt 1" {
		t.Errorf("the object that was to be released has the results of %s", got)
	}
	if runs := s.lines(t, "runs"); len(runs) != objects+3 || len(slices.Compact(slices.Sorted(slices.Values(runs)))) != objects+2 {
		t.Errorf("the command ran for %q, want each once and %q twice", runs, released)
	}
}

// checkEnded looks where an item, written name#generation, stands.
func (s *system) checkEnded(t *testing.T, id string, state queue.State, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	o, run, err := item.ParseID(item.ID(bucketName + "/" + id))
	if err != nil {
		t.Fatal(err)
	}
	records, err := s.queue.Lookup(ctx, []item.ID{item.Item{Object: o, Run: run}.ID()})
	if err != nil {
		t.Fatal(err)
	}
	if records[0].State != state {
		t.Errorf("after the worker %q has ended its item is %+v, want it %s", what, records[0], state)
	}
}

// workers says for each object who made the results that stand.
func (s *system) workers(t *testing.T) map[string]string {
	t.Helper()
	by := map[string]string{}
	for file := range s.store.list(t, manifests) {
		m, err := result.ParseManifest([]byte(s.store.read(t, manifests+file)))
		if err != nil {
			t.Fatal(err)
		}
		by[strings.TrimPrefix(m.Source, "gs://"+bucketName+"/")] = fmt.Sprintf("%s, attempt %d", m.Worker, m.Attempt)
	}
	return by
}
