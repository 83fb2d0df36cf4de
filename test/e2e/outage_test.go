//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tidemill/internal/queue"
)

// TestRedisOutage kills Redis while items are worked on and events arrive. Nothing
// is lost, and ingest says that it isn't ready for as long as it lasts.
func TestRedisOutage(t *testing.T) {
	const before, during, after = 25, 25, 10
	s := start(t, map[string]string{"match": uploads + "**", "lease-duration": "5s", "retry-backoff": "0s..1s"},
		"--appendonly", "yes", "--appendfsync", "always")
	var fleet []*daemon
	for i := range 2 {
		fleet = append(fleet, s.startWorker(t, fmt.Sprintf("worker-%d", i), sumScript+"sleep 0.2\n"))
	}
	want := map[string]object{}
	upload := func(n int) {
		for range n {
			name := fmt.Sprintf("%s%d", uploads, len(want))
			want[name] = object{s.store.upload(t, name, name), sum(name)}
		}
	}
	upload(before)
	s.awaitStats(t, soon, "some are done", func(q queue.Stats) bool { return q.Counters.Done >= 3 })
	s.redis.Kill()
	upload(during)
	await(t, "ingest is not ready", soon, func(ctx context.Context) error {
		return s.ingest.answers(ctx, "/readyz", http.StatusServiceUnavailable)
	})
	await(t, "ingest holds events back", soon, logs(t, s.ingest, "the queue takes no items"))
	for _, d := range fleet {
		await(t, "the workers notice", soon, logs(t, d, "the queue did not answer"))
	}
	s.redis.Restart()
	await(t, "ingest is ready again", soon, func(ctx context.Context) error {
		return s.ingest.answers(ctx, "/readyz", http.StatusOK)
	})
	upload(after)

	s.awaitIdle(t, soon, "all objects are done", func(q queue.Stats) bool { return q.Counters.Done == int64(len(want)) })
	s.stop(t)
	s.checkResults(t, want)
	stats := s.stats(t)
	if c := stats.Counters; stats.Dead != 0 || c.Retried+c.Deferred+c.Skipped != 0 {
		t.Errorf("the queue ends at %+v", stats)
	}
	s.checkRuns(t, len(want), stats)
}

// logs is a condition: the daemon has logged text.
func logs(t *testing.T, d *daemon, text string) func(context.Context) error {
	return func(context.Context) error {
		if !strings.Contains(readFile(t, d.log), text) {
			return fmt.Errorf("%s has not logged %q", d.name, text)
		}
		return nil
	}
}
