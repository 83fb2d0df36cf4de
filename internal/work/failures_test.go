package work_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tidemill/internal/queue"
	"tidemill/internal/result"
	"tidemill/internal/work"
)

func TestFailuresEndInADeadLetter(t *testing.T) {
	t.Parallel()
	code := func(n int) *int { return &n }
	tests := map[string]struct {
		keys     []string
		script   string
		argv     []string // instead of the script
		runs     int
		report   result.Report
		counters queue.Counters
	}{
		"exit code": {
			script: `echo >>"$dir/ran"; echo try $TIDEMILL_ATTEMPT; echo lost >"$TIDEMILL_OUTPUT/x"; exit 7`, runs: 3,
			report:   result.Report{Reason: "exit 7", Attempts: 3, Deliveries: 3, ExitCode: code(7), LastOutput: "try 3\n"},
			counters: queue.Counters{Retried: 2, Buried: 1},
		},
		"permanent exit code": {
			script: `echo >>"$dir/ran"; echo bad data >&2; exit 65`, runs: 1,
			report:   result.Report{Reason: "exit 65 (permanent)", Attempts: 1, Deliveries: 1, ExitCode: code(65), LastOutput: "bad data\n"},
			counters: queue.Counters{Buried: 1},
		},
		"permanent exit code of one's own": {
			keys: []string{"permanent-exit-codes", "3,4"}, script: `echo >>"$dir/ran"; exit 4`, runs: 1,
			report:   result.Report{Reason: "exit 4 (permanent)", Attempts: 1, Deliveries: 1, ExitCode: code(4)},
			counters: queue.Counters{Buried: 1},
		},
		"signal": {
			keys: []string{"max-attempts", "2"}, script: `echo >>"$dir/ran"; kill -KILL $$`, runs: 2,
			report:   result.Report{Reason: "killed by SIGKILL (possibly out of memory)", Attempts: 2, Deliveries: 2, Signal: "SIGKILL"},
			counters: queue.Counters{Retried: 1, Buried: 1},
		},
		"timeout": {
			keys: []string{"item-timeout", "1s", "max-attempts", "1"}, script: `echo >>"$dir/ran"; echo slow; exec sleep 600`, runs: 1,
			report:   result.Report{Reason: "timeout after 1s", Attempts: 1, Deliveries: 1, Signal: "SIGTERM", LastOutput: "slow\n"},
			counters: queue.Counters{Buried: 1},
		},
		"no such program in a shell": {
			keys: []string{"max-deliveries", "3"}, script: `echo >>"$dir/ran"; no-such-program; exit $?`, runs: 3,
			report:   result.Report{Reason: "exit 127 (as a shell reports a program that it doesn't find)", Attempts: 1, Deliveries: 3, ExitCode: code(127)},
			counters: queue.Counters{Deferred: 2, Buried: 1},
		},
		"no such program": {
			keys: []string{"max-deliveries", "2"}, argv: []string{"/no/such/program"},
			report:   result.Report{Reason: "not started: ", Attempts: 1, Deliveries: 2},
			counters: queue.Counters{Deferred: 1, Buried: 1},
		},
		"too large": {
			keys: []string{"max-object-size", "6"}, script: `echo >>"$dir/ran"`,
			report:   result.Report{Reason: "too-large: the object has 7 bytes, more than max-object-size, 6", Deliveries: 1},
			counters: queue.Counters{Buried: 1},
		},
		"stream, failing after it has written": {
			keys: []string{"io", "stream"}, script: `echo >>"$dir/ran"; cat; head -c 9000000 /dev/zero; exit 65`, runs: 1,
			report:   result.Report{Reason: "exit 65 (permanent)", Attempts: 1, Deliveries: 1, ExitCode: code(65)},
			counters: queue.Counters{Buried: 1},
		},
		"stream, its output held open": {
			keys: []string{"io", "stream", "max-attempts", "1"}, script: `echo >>"$dir/ran"; echo x; setsid sleep 20 2>/dev/null & until read -r c <"/proc/$!/comm" && [ "$c" = sleep ]; do :; done`, runs: 1,
			report:   result.Report{Reason: "output failed: ", Attempts: 1, Deliveries: 1, ExitCode: code(0)},
			counters: queue.Counters{Buried: 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.keys...)
			it := r.uploaded("a/in", "content")
			r.worker("w", tt.script, func(c *work.Config) {
				if tt.argv != nil {
					c.Command.Argv = tt.argv
				}
			})
			reason := r.awaitState(it, queue.StateDead)
			got := r.report(it)
			if got.Reason != reason || !strings.HasPrefix(reason, tt.report.Reason) {
				t.Errorf("reason %q in the queue, %q in the report; want %q", reason, got.Reason, tt.report.Reason)
			}
			if strings.Contains(tt.script, "no-such-program") {
				if !strings.Contains(got.LastOutput, "no-such-program") {
					t.Errorf("last output %q", got.LastOutput)
				}
				tt.report.LastOutput = got.LastOutput
			}
			want := tt.report
			want.Version, want.Source, want.Generation, want.Pipeline, want.Worker = 1, "gs://tidemill/a/in", it.Generation, pipe, "w"
			want.Reason = reason
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(result.Report{}, "Failed", "Seconds")); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if got.Failed.IsZero() {
				t.Error("the report has no time")
			}
			if n := r.left("ran"); n != tt.runs {
				t.Errorf("the command ran %d times, want %d", n, tt.runs)
			}
			if left := r.objects("results/"); len(left) != 0 {
				t.Errorf("results stand: %d", len(left))
			}
			tt.counters.Enqueued = 1
			counters := r.stats().Counters
			counters.Busy = 0
			if diff := cmp.Diff(tt.counters, counters); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAWorkerThatKeepsDyingIsReportedByALivingOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, "max-deliveries", "2")
	it := r.uploaded("in", "content")
	for range 2 {
		r.lease("dying")
		r.pass(2 * time.Hour)
	}
	r.worker("w", `echo >>"$dir/ran"`, nil)
	reason := r.awaitState(it, queue.StateDead)
	if got := r.report(it); !strings.HasPrefix(reason, "worker-lost: handed out 2 times") || got.Deliveries != 3 || got.Attempts != 0 {
		t.Errorf("reason %q, report %+v", reason, got)
	}
	if n := r.left("ran"); n != 0 {
		t.Errorf("the command ran %d times", n)
	}
}

// An item that was handed out too often, but whose results stand, has not failed.
func TestResultsThatStandComeBeforeTheLimitOfDeliveries(t *testing.T) {
	t.Parallel()
	for _, io := range []string{"files", "stream"} {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "max-deliveries", "1", "io", io)
			it := r.uploaded("in", "content")
			w := r.worker("first", `echo >>"$dir/ran"; echo x`, nil)
			r.awaitState(it, queue.StateDone)
			w.stop()
			if err := r.ended(w); err != nil {
				t.Fatal(err)
			}
			r.mini.FlushAll() // as if the acknowledgement had been lost
			r.accept()
			r.enqueue(it)
			r.lease("dying")
			r.pass(2 * time.Hour)
			r.worker("w", `echo >>"$dir/ran"; echo x`, nil)
			r.awaitState(it, queue.StateDone)
			if n := r.left("ran"); n != 1 {
				t.Errorf("the command ran %d times, want once", n)
			}
		})
	}
}

func TestSuccessRemovesTheFailureReport(t *testing.T) {
	t.Parallel()
	r := newRig(t, "max-attempts", "1")
	it := r.uploaded("in", "content")
	r.worker("w", `[ -e "$dir/go" ]`, nil)
	r.awaitState(it, queue.StateDead)
	r.report(it)
	r.leave("go")
	it.Run = 1
	r.enqueue(it)
	r.awaitState(it, queue.StateDone)
	if left := r.objects("failures/"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// Only reports are removed: odd templates let a result have a report's name.
func TestSuccessRemovesNoResultInAReportsPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t, "results", "gs://{bucket}/o/{object}", "failures", "gs://{bucket}/o/x/{object}")
	it := r.uploaded("x/x", "content")
	r.worker("w", `echo result >"$TIDEMILL_OUTPUT/x"`, nil)
	r.awaitState(it, queue.StateDone)
	if got, _ := r.read("o/x/x/x"); got != "result\n" {
		t.Errorf("result %q", got)
	}
}

func TestReasonsAreOneLine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	name := "evil\x1b[2J\u202e\tname"
	r.write("results/"+name+"/x", "someone else's", nil)
	it := r.uploaded(name, "content")
	r.worker("w", `: >"$TIDEMILL_OUTPUT/x"`, nil)
	reason := r.awaitState(it, queue.StateDead)
	if strings.ContainsAny(reason, "\x1b\u202e\t\n") || !strings.HasPrefix(reason, "result-collision: ") {
		t.Errorf("reason %q", reason)
	}
}
