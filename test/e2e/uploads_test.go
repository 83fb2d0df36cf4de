//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

// TestUploadsBecomeResults is the product's main job, with the accidents that it
// has to survive: a worker and ingest crash, and an event comes twice.
func TestUploadsBecomeResults(t *testing.T) {
	const perBatch, workers = 150, 4
	s := start(t, map[string]string{"match": uploads + "**", "lease-duration": "5s", "retry-backoff": "0s..1s"})
	var fleet []*daemon
	for i := range workers {
		fleet = append(fleet, s.startWorker(t, fmt.Sprintf("worker-%d", i), sumScript+"sleep 0.1\n"))
	}
	first, second := filepath.Join(s.dir, "first"), filepath.Join(s.dir, "second")
	want := makeFiles(t, first, perBatch)
	s.gcloudUpload(t, first)
	s.publishAgain(t)
	s.awaitStats(t, soon, "the event that came twice is noticed", func(q queue.Stats) bool { return q.Counters.Duplicates >= 1 })
	// The second batch's events are in hand of an ingest that answers none of
	// them, and are lost with it.
	s.ingest.signal(t, syscall.SIGSTOP)
	crashHolding(t, s, fleet[0], "worker-0", want)
	for name, sum := range makeFiles(t, second, perBatch) {
		want[name] = sum
	}
	s.gcloudUpload(t, second)
	s.ingest.kill(t)
	s.startIngest(t)

	s.awaitIdle(t, 3*time.Minute, "all objects are done", func(q queue.Stats) bool { return q.Counters.Done == 2*perBatch })
	s.stop(t)

	objects := map[string]object{}
	for name, generation := range s.store.list(t, uploads) {
		objects[uploads+name] = object{Generation: generation, Sum: want[uploads+name]}
	}
	if len(objects) != 2*perBatch {
		t.Errorf("gcloud uploaded %d objects, want %d", len(objects), 2*perBatch)
	}
	s.checkResults(t, objects)
	if reports := s.store.list(t, failures); len(reports) > 0 {
		t.Errorf("failure reports: %v", reports)
	}
	stats := s.stats(t)
	if c := stats.Counters; stats.Dead != 0 || c.Done != 2*perBatch || c.Enqueued != 2*perBatch || c.Expired < 1 ||
		c.Skipped+c.Retried+c.Buried+c.Deferred+c.Released != 0 {
		t.Errorf("the queue ends at %+v", stats)
	}
	s.checkRuns(t, 2*perBatch, stats)
}

// checkRuns makes sure that the command ran for each object generation, and again
// only where a lease was lost.
func (s *system) checkRuns(t *testing.T, objects int, stats queue.Stats) {
	t.Helper()
	lines := s.lines(t, "runs")
	runs := map[string]int{}
	for _, run := range lines {
		runs[run]++
	}
	if again := len(lines) - len(runs); len(runs) != objects || int64(again) > stats.Counters.Expired {
		t.Errorf("the command ran for %d objects, and %d times again; want %d objects, and %d leases were lost",
			len(runs), again, objects, stats.Counters.Expired)
	}
}

// hostile names are to come through as they are. (gcloud itself cuts a name at a #
// with a number after it; TestFailuresAreReported has such names.)
var hostile = []string{
	"-rf", "--help", " leading and trailing ", "tab\there", "new#draft", "100%", "a%2Fb", "%00", "ünïcödé", "ファイル",
	"🌊.txt", "quote'\"quote", "back\\slash", "$(touch x)", "`id`", "a&b=c", "a+b", "semi;colon", "{input}", ".hidden", "...", "~", "@",
	"a,b", "a?b", "q=1&name=x", "\u202e.txt", "e\u0301", "CON", "<b>",
}

// makeFiles makes n files of 0 B to 3 MB in dir and returns the sum of each by the
// name of its object.
func makeFiles(t *testing.T, dir string, n int) map[string]string {
	t.Helper()
	sums := map[string]string{}
	random := rand.NewChaCha8([32]byte{})
	for i := range n {
		name := fmt.Sprintf("deep/er/%04d.bin", i)
		if i < len(hostile) {
			name = hostile[i]
		}
		size := i * 37 // 0 B first
		if i%30 == 29 {
			size = i / 30 * 750_000
		}
		content := make([]byte, size)
		_, _ = random.Read(content) // it never fails
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		sums[uploads+filepath.Base(dir)+"/"+name] = sum(string(content))
	}
	return sums
}

// publishAgain publishes one of the uploads' events as a new message.
func (s *system) publishAgain(t *testing.T) {
	t.Helper()
	var event *pubsubpb.PubsubMessage
	await(t, "an event comes by", soon, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		resp, err := s.pubsub.SubscriptionAdminClient.Pull(ctx, &pubsubpb.PullRequest{Subscription: tap, MaxMessages: 100})
		if err != nil {
			return err
		}
		for _, m := range resp.GetReceivedMessages() {
			if id := m.GetMessage().GetAttributes()["objectId"]; len(id) > len(uploads) && id[:len(uploads)] == uploads {
				event = m.GetMessage()
				return nil
			}
		}
		return fmt.Errorf("no upload's among %d events", len(resp.GetReceivedMessages()))
	})
	publisher := s.pubsub.Publisher(topic)
	defer publisher.Stop()
	_, err := publisher.Publish(t.Context(), &pubsub.Message{Data: event.GetData(), Attributes: event.GetAttributes()}).Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

// crashHolding kills a worker while it holds a lease: it is frozen first, so that
// it can't finish between the look and the kill.
func crashHolding(t *testing.T, s *system, d *daemon, worker string, objects map[string]string) {
	t.Helper()
	var ids []item.ID
	for name, generation := range s.store.list(t, uploads) {
		ids = append(ids, item.Item{Object: item.Object{Bucket: bucketName, Name: uploads + name, Generation: generation}}.ID())
	}
	if len(ids) != len(objects) {
		t.Fatalf("%d objects are uploaded, want %d", len(ids), len(objects))
	}
	await(t, worker+" holds a lease", soon, func(ctx context.Context) error {
		d.signal(t, syscall.SIGSTOP)
		records, err := s.queue.Lookup(ctx, ids)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.State == queue.StateLeased && r.Worker == worker {
				d.kill(t)
				return nil
			}
		}
		d.signal(t, syscall.SIGCONT)
		return fmt.Errorf("it holds none")
	})
}
