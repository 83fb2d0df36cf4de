//go:build e2e

package emulator_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tidemill/internal/testutil/proctest"
	"tidemill/test/emulator"
)

const (
	project      = "repair"
	topic        = "projects/repair/topics/uploads"
	subscription = "projects/repair/subscriptions/ingest"
	messages     = 50
	// roleEnv makes the test binary a subscriber that takes and never answers.
	roleEnv = "EMULATOR_TEST_ROLE"
	holder  = "holder"
	holding = "holding "
	// lease is how long the server leaves a message with a client before it gives
	// it to another: the shortest that the client library asks for.
	lease = 10 * time.Second
	// redelivery is how long the second subscriber tries. The repaired emulator
	// takes one lease; unrepaired it took three, whatever the lease's length.
	redelivery = 5 * lease / 2
	deadline   = 2 * time.Minute
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != holder {
		m.Run()
		return
	}
	if err := hold(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "holder:", err)
	}
}

// hold receives messages, prints each one's data, and keeps them all in hand until
// the process is killed.
func hold(ctx context.Context) error {
	client, err := pubsub.NewClient(ctx, project)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	return subscriber(client).Receive(ctx, func(ctx context.Context, m *pubsub.Message) {
		mu.Lock()
		fmt.Println(holding + string(m.Data))
		mu.Unlock()
		<-ctx.Done()
	})
}

func subscriber(client *pubsub.Client) *pubsub.Subscriber {
	s := client.Subscriber(subscription)
	s.ReceiveSettings.MaxOutstandingMessages = 10 * messages
	s.ReceiveSettings.MaxDurationPerAckExtension = lease
	return s
}

// TestRedeliveryAfterASubscriberIsKilled guards the repair: without it the emulator
// gives the messages to the dead subscriber's stream again, lease after lease.
func TestRedeliveryAfterASubscriberIsKilled(t *testing.T) {
	e := emulator.Start(t)
	t.Setenv("PUBSUB_EMULATOR_HOST", e.Host)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	client, err := pubsub.NewClient(ctx, project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	want := publish(ctx, t, client)

	victim, held := startHolder(ctx, t)
	if diff := cmp.Diff(want, held); diff != "" {
		t.Fatalf("what the first subscriber holds (-want +got):\n%s", diff)
	}
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff(want, pull(ctx, t, client)); diff != "" {
		t.Errorf("what the second subscriber got (-want +got):\n%s", diff)
	}
}

// publish creates the topic and its subscription and returns what it published,
// sorted.
func publish(ctx context.Context, t *testing.T, client *pubsub.Client) []string {
	t.Helper()
	if _, err := client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{
		Name: subscription, Topic: topic, AckDeadlineSeconds: int32(lease.Seconds()),
	}); err != nil {
		t.Fatal(err)
	}
	publisher := client.Publisher(topic)
	defer publisher.Stop()
	want := make([]string, messages)
	results := make([]*pubsub.PublishResult, messages)
	for i := range want {
		want[i] = fmt.Sprintf("m%02d", i)
		results[i] = publisher.Publish(ctx, &pubsub.Message{Data: []byte(want[i])})
	}
	for _, r := range results {
		if _, err := r.Get(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return want
}

// startHolder starts the subscriber process and returns what it holds once it has
// as many messages as were published, sorted.
func startHolder(ctx context.Context, t *testing.T) (*proctest.Process, []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), roleEnv+"="+holder)
	cmd.Stdout = w
	p, err := proctest.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := w.Close(); err != nil { // the child has its own
		t.Fatal(err)
	}
	if end, ok := ctx.Deadline(); ok {
		if err := r.SetReadDeadline(end); err != nil {
			t.Fatal(err)
		}
	}
	var held []string
	lines := bufio.NewScanner(r)
	for len(held) < messages && lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), holding); ok && !slices.Contains(held, data) {
			held = append(held, data)
		}
	}
	if len(held) < messages {
		t.Fatalf("the subscriber process took %d messages of %d: %v; it wrote:\n%s", len(held), messages, lines.Err(), p.Output())
	}
	slices.Sort(held)
	return p, held
}

// pull takes what the server has to give until it has as many different messages
// as were published, or until the deadline, and returns them sorted.
//
// It asks and goes away again, and never waits at the server: a waiting subscriber
// would compete with the dead one's stream, which the unrepaired emulator still
// believes in, and could win.
func pull(ctx context.Context, t *testing.T, client *pubsub.Client) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, redelivery)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var got []string
	for len(got) < messages {
		select {
		case <-ctx.Done():
			slices.Sort(got)
			return got
		case <-tick.C:
		}
		resp, err := client.SubscriptionAdminClient.Pull(ctx, &pubsubpb.PullRequest{
			Subscription: subscription, MaxMessages: messages,
			ReturnImmediately: true, //nolint:staticcheck // deprecated for its cost; here not waiting is the point
		})
		if err != nil {
			// The call can notice the deadline a moment before the context does.
			if ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
				continue
			}
			t.Fatal(err)
		}
		for _, m := range resp.GetReceivedMessages() {
			if data := string(m.GetMessage().GetData()); !slices.Contains(got, data) {
				got = append(got, data)
			}
		}
	}
	slices.Sort(got)
	return got
}
