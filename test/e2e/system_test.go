//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
	"tidemill/internal/testutil/redistest"
	"tidemill/test/emulator"
)

const (
	project      = "e2e"
	bucketName   = "e2e-bucket"
	topic        = "uploads"
	topicPath    = "projects/" + project + "/topics/" + topic
	subscription = "projects/" + project + "/subscriptions/ingest"
	tap          = "projects/" + project + "/subscriptions/tap" // the test's own
	pipelineName = "sums"
)

// system is everything but the workers, each part of it this test's own.
type system struct {
	redis  *redistest.Server
	store  *store
	pubsub *pubsub.Client
	queue  *redisq.Queue
	dir    string // logs, work directories, and what commands leave

	scaler  *daemon
	ingest  *daemon
	daemons []*daemon // all that were ever started
}

// start brings the system up with one pipeline. Tests that start one can't run in
// parallel: Google's clients find the stand-ins by the environment.
func start(t *testing.T, settings map[string]string, redisOptions ...string) *system {
	t.Helper()
	s := &system{dir: t.TempDir()}
	t.Setenv("PUBSUB_EMULATOR_HOST", emulator.Start(t).Host)
	s.redis = redistest.Start(t, redisOptions...)
	s.startPubSub(t)
	s.store = startStore(t)

	pipelines := filepath.Join(s.dir, "pipelines")
	if err := os.Mkdir(pipelines, 0o700); err != nil {
		t.Fatal(err)
	}
	manifest := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + pipelineName + "\ndata:\n  bucket: " + bucketName + "\n"
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		manifest += "  " + key + ": " + strconv.Quote(settings[key]) + "\n"
	}
	if err := os.WriteFile(filepath.Join(pipelines, pipelineName+".yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end(t) })
	s.scaler = s.startDaemon(t, "scaler", "--pipelines", pipelines)
	s.startIngest(t)

	server, err := redisq.Open(t.Context(), redisq.Options{URL: s.redis.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s.queue = server.Queue(pipelineName)
	return s
}

// startPubSub makes the topic and its subscriptions.
func (s *system) startPubSub(t *testing.T) {
	t.Helper()
	client, err := pubsub.NewClient(context.Background(), project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topicPath}); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{subscription, tap} {
		_, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
			Name: sub, Topic: topicPath, AckDeadlineSeconds: 10,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.pubsub = client
}

func (s *system) startIngest(t *testing.T) {
	t.Helper()
	s.ingest = s.startDaemon(t, "ingest", "--subscription", subscription)
	await(t, "ingest is ready", soon, func(ctx context.Context) error { return s.ingest.answers(ctx, "/readyz", 200) })
}

// startWorker starts a worker that runs script in a shell, with s.dir as $1.
func (s *system) startWorker(t *testing.T, worker, script string, flags ...string) *daemon {
	t.Helper()
	args := slices.Concat([]string{"run", "--pipeline", pipelineName, "--name", worker, "--work-dir", filepath.Join(s.dir, "work")},
		flags, []string{"--", "sh", "-c", script, "sh", s.dir})
	return s.startDaemon(t, "worker", args...)
}

func (s *system) stats(t *testing.T) queue.Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	stats, err := s.queue.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// awaitStats waits until what is asked of the queue holds.
func (s *system) awaitStats(t *testing.T, within time.Duration, what string, holds func(queue.Stats) bool) {
	t.Helper()
	await(t, what, within, func(ctx context.Context) error {
		stats, err := s.queue.Stats(ctx)
		if err == nil && !holds(stats) {
			err = fmt.Errorf("the queue is at %+v", stats)
		}
		return err
	})
}

// awaitIdle waits until nothing is waiting, leased or delayed, and what is asked
// besides holds.
func (s *system) awaitIdle(t *testing.T, within time.Duration, what string, also func(queue.Stats) bool) {
	t.Helper()
	s.awaitStats(t, within, what, func(q queue.Stats) bool { return q.Waiting+q.Leased+q.Delayed == 0 && also(q) })
}

// lines returns the lines of a file that commands append to; none if there is no
// such file yet.
func (s *system) lines(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return slices.Collect(func(yield func(string) bool) {
		for line := range strings.Lines(string(data)) {
			if !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	})
}

// touch makes the file that a command waits for.
func (s *system) touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, file), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
