//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tidemill/internal/queue"
	"tidemill/internal/result"
)

// TestFailuresAreReported fails some objects for good: each has a report, the
// others are done, and an upload that mends one takes its report away.
func TestFailuresAreReported(t *testing.T) {
	const objects, failing, attempts = 30, 6, 2
	s := start(t, map[string]string{
		"match": uploads + "**", "max-attempts": fmt.Sprint(attempts), "retry-backoff": "100ms..200ms", "permanent-exit-codes": "65",
	})
	script := sumScript + `
if grep -q ^broken "$TIDEMILL_INPUT"; then
	echo "can't read $TIDEMILL_OBJECT" >&2
	exit "$(cut -d' ' -f2 "$TIDEMILL_INPUT")"
fi
`
	for i := range 2 {
		s.startWorker(t, fmt.Sprintf("worker-%d", i), script)
	}
	want := map[string]object{}
	wantReports := map[string]result.Report{}
	for i := range objects {
		name := fmt.Sprintf("%sa #%d", uploads, i) // ends as an item's ID does
		if i >= failing {
			content := strings.Repeat("fine", i)
			want[name] = object{s.store.upload(t, name, content), sum(content)}
			continue
		}
		code, tries := 7, attempts
		if i%2 == 1 {
			code, tries = 65, 1
		}
		wantReports[name] = result.Report{
			Version: result.Version, Source: "gs://" + bucketName + "/" + name, Pipeline: pipelineName,
			Generation: s.store.upload(t, name, fmt.Sprintf("broken %d", code)),
			Attempts:   tries, Deliveries: tries, ExitCode: &code, LastOutput: "can't read " + name + "\n",
		}
	}
	s.awaitIdle(t, soon, "every object is done or dead", func(q queue.Stats) bool {
		return q.Counters.Done == objects-failing && q.Dead == failing
	})
	s.checkResults(t, want)
	gotReports := map[string]result.Report{}
	for file := range s.store.list(t, failures) {
		var r result.Report
		if err := json.Unmarshal([]byte(s.store.read(t, failures+file)), &r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if !strings.HasPrefix(r.Reason, fmt.Sprintf("exit %d", *r.ExitCode)) || r.Worker == "" || r.Failed.IsZero() || r.Seconds <= 0 {
			t.Errorf("the report %s says %+v", file, r)
		}
		gotReports[strings.TrimSuffix(file, ".json")] = r
	}
	ignored := cmpopts.IgnoreFields(result.Report{}, "Reason", "Worker", "Failed", "Seconds", "Traceparent")
	if diff := cmp.Diff(wantReports, gotReports, ignored); diff != "" {
		t.Errorf("failure reports (-want +got):\n%s", diff)
	}

	fixed := uploads + "a #0"
	want[fixed] = object{s.store.upload(t, fixed, "mended"), sum("mended")}
	s.awaitIdle(t, soon, "the mended object is done", func(q queue.Stats) bool { return q.Counters.Done == objects-failing+1 })
	s.stop(t)
	s.checkResults(t, want)
	reports := s.store.list(t, failures)
	if _, ok := reports[fixed+".json"]; ok || len(reports) != failing-1 {
		t.Errorf("after %q was mended these reports stand: %v", fixed, reports)
	}
}
