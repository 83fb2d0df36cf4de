//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tidemill/internal/queue"
)

// TestEndpoints asks the three daemons, after they have done something, for what
// an operator's tools ask them.
func TestEndpoints(t *testing.T) {
	s := start(t, map[string]string{"match": uploads + "**"})
	worker := s.startWorker(t, "worker-0", sumScript)
	want := map[string]object{uploads + "one": {s.store.upload(t, uploads+"one", "1"), sum("1")}}
	s.awaitIdle(t, soon, "the object is done", func(q queue.Stats) bool { return q.Counters.Done == 1 })
	for _, tt := range []struct {
		daemon  *daemon
		metrics []string
	}{
		{s.scaler, []string{"tidemill_build_info{"}},
		{s.ingest, []string{`tidemill_ingest_events_total{outcome="queued"} 1`, "tidemill_ingest_enqueue_seconds_count 1"}},
		{worker, []string{`tidemill_worker_items_total{outcome="done"} 1`, "tidemill_worker_busy 0"}},
	} {
		for path, body := range map[string]string{"/healthz": `"alive":true`, "/readyz": `"ready":true`} {
			status, text, err := tt.daemon.get(t.Context(), path)
			if err != nil || status != http.StatusOK || !strings.Contains(text, body) {
				t.Errorf("%s of %s: %d %q, %v; want 200 with %s", path, tt.daemon.name, status, text, err, body)
			}
		}
		for _, line := range tt.metrics {
			// A worker counts an item only once its acknowledgement is answered.
			await(t, "the metrics of "+tt.daemon.name+" are in", soon, func(ctx context.Context) error {
				status, text, err := tt.daemon.get(ctx, "/metrics")
				if err == nil && (status != http.StatusOK || !strings.Contains(text, line)) {
					err = fmt.Errorf("they answer %d without %s:\n%s", status, line, text)
				}
				return err
			})
		}
	}
	s.stop(t)
	s.checkResults(t, want)
}

// TestHelp holds the help against the flags and their variables, which are the
// contract with the manifests that use them.
func TestHelp(t *testing.T) {
	t.Parallel()
	common := []string{
		"--redis-url", "$REDIS_URL", "--prefix", "$TIDEMILL_PREFIX", "--allow-any-redis", "--listen", "$TIDEMILL_LISTEN",
		"--log-level", "$TIDEMILL_LOG_LEVEL", "--log-format", "$TIDEMILL_LOG_FORMAT", "--project", "$GOOGLE_CLOUD_PROJECT",
		"--help", "--version",
	}
	for _, tt := range []struct {
		argv []string
		want []string
	}{
		{[]string{"ingest"}, []string{"--subscription", "$PUBSUB_SUBSCRIPTION", "--max-outstanding", "--streams", "--redelivery", "PUBSUB_EMULATOR_HOST"}},
		{[]string{"scaler"}, []string{"--namespace", "$TIDEMILL_NAMESPACE", "--kubeconfig", "--pipelines", "$TIDEMILL_PIPELINES", "--tick"}},
		{[]string{"worker", "run"}, []string{
			"--pipeline", "$TIDEMILL_PIPELINE", "--name", "$TIDEMILL_WORKER", "--work-dir", "$TIDEMILL_WORK_DIR",
			"--drain", "$TIDEMILL_DRAIN", "STORAGE_EMULATOR_HOST", "TIDEMILL_INPUT",
		}},
	} {
		code, stdout, stderr := call(t, append(tt.argv, "--help"))
		if code != 0 || stderr != "" {
			t.Errorf("%q --help: exit code %d, standard error %q", tt.argv, code, stderr)
		}
		for _, word := range append(tt.want, common...) {
			if word == "--version" && len(tt.argv) > 1 {
				continue // the command above has it
			}
			if !strings.Contains(stdout, word) {
				t.Errorf("%q --help doesn't mention %s:\n%s", tt.argv, word, stdout)
			}
		}
	}
}

// TestWrongCalls has the exit code 2 and an error that names what is wrong.
func TestWrongCalls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		argv []string
		says string
	}{
		{[]string{"ingest"}, "--subscription"},
		{[]string{"ingest", "--no-such-flag"}, "--no-such-flag"},
		{[]string{"ingest", "surplus"}, "surplus"},
		{[]string{"ingest", "--subscription", "s", "--streams", "many"}, "many"},
		{[]string{"ingest", "--subscription", "projects/p/subscriptions/s", "--log-level", "loud"}, "loud"},
		{[]string{"scaler", "--tick", "often"}, "often"},
		{[]string{"scaler", "--pipelines", ".", "--namespace", "n"}, "--namespace"},
		{[]string{"worker", "walk"}, "walk"},
		{[]string{"worker", "run", "--", "true"}, "--pipeline"},
		{[]string{"worker", "run", "--pipeline", "p"}, "no command"},
		{[]string{"worker", "run", "--pipeline", "p", "--drain", "soon", "--", "true"}, "soon"},
	} {
		code, stdout, stderr := call(t, tt.argv)
		if code != 2 || stdout != "" || !strings.Contains(stderr, tt.says) {
			t.Errorf("%q: exit code %d, standard output %q, standard error %q; want 2 and an error about %q", tt.argv, code, stdout, stderr, tt.says)
		}
	}
}

// call runs a binary to its end.
func call(t *testing.T, argv []string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, argv[0]), argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), &out, &errs
	cmd.Env = []string{"PATH=/usr/bin:/bin"} // no variable stands in for a flag
	return exitCode(t, cmd.Run()), out.String(), errs.String()
}
