package gcp_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tidemill/internal/gcp"
)

const (
	testTopic        = "projects/p/topics/t"
	testSubscription = "projects/p/subscriptions/s"
)

func newPubSub(t *testing.T) *pstest.Server {
	t.Helper()
	srv := pstest.NewServerWithAddress("127.0.0.1:0")
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("closing Pub/Sub: %v", err)
		}
	})
	if _, err := srv.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: testTopic}); err != nil {
		t.Fatal(err)
	}
	sub := &pubsubpb.Subscription{Name: testSubscription, Topic: testTopic, AckDeadlineSeconds: 10}
	if _, err := srv.GServer.CreateSubscription(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	return srv
}

// receiving runs Receive until stop, which returns what it returned.
func receiving(t *testing.T, s gcp.Subscription, handle func(context.Context, gcp.Message) bool) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- gcp.Receive(ctx, s, handle) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return within(t, done, "Receive to return")
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// within takes a value from c, and fails the test if none comes.
func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Errorf("waited a minute for %s", what)
		var zero T
		return zero
	}
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func TestReceive(t *testing.T) {
	t.Parallel()
	srv := newPubSub(t)
	got := make(chan gcp.Message, 10)
	stop := receiving(t, gcp.Subscription{Project: "p", Name: "s", Endpoint: srv.Addr}, func(_ context.Context, m gcp.Message) bool {
		got <- m
		return true
	})
	attributes := map[string]string{"objectId": "a/\tb\"é🌊%2F"}
	id := srv.Publish(testTopic, []byte("data"), attributes)
	m := within(t, got, "the message")
	want := gcp.Message{ID: id, Data: []byte("data"), Attributes: attributes}
	if diff := cmp.Diff(want, m, cmpopts.IgnoreFields(gcp.Message{}, "PublishTime")); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if age := time.Since(m.PublishTime); age < 0 || age > time.Hour {
		t.Errorf("published %s ago", age)
	}
	eventually(t, "the acknowledgement", func() bool { return srv.Message(id).Acks == 1 })
	if err := stop(); err != nil {
		t.Errorf("Receive returned %v, want nil once its context is done", err)
	}
}

func TestReceiveAgainWhatWasRefused(t *testing.T) {
	t.Parallel()
	srv := newPubSub(t)
	var mu sync.Mutex
	tries := map[string]int{}
	receiving(t, gcp.Subscription{Name: testSubscription, Endpoint: srv.Addr, Streams: 3, MaxOutstanding: 10}, func(_ context.Context, m gcp.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		tries[m.ID]++
		return tries[m.ID] == 2
	})
	want := map[string]int{}
	for i := range 20 {
		want[srv.Publish(testTopic, []byte{byte(i)}, nil)] = 2
	}
	eventually(t, "all to be acknowledged", func() bool {
		for id := range want {
			if srv.Message(id).Acks == 0 {
				return false
			}
		}
		return true
	})
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(want, tries); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}
}

// What is in hand when the context ends is finished, with a context that lives,
// and its acknowledgement arrives.
func TestReceiveFinishesWhatIsInHand(t *testing.T) {
	t.Parallel()
	srv := newPubSub(t)
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	started, release, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	done := make(chan error, 1)
	go func() {
		done <- gcp.Receive(ctx, gcp.Subscription{Name: testSubscription, Endpoint: srv.Addr}, func(ctx context.Context, _ gcp.Message) bool {
			close(started)
			<-release
			if ctx.Value(key{}) != "value" {
				t.Error("the handler's context lost its values")
			}
			result <- ctx.Err()
			return true
		})
	}()
	id := srv.Publish(testTopic, []byte("data"), nil)
	within(t, started, "the handler")
	cancel()
	select {
	case err := <-done:
		t.Fatalf("Receive returned %v with a message in hand", err)
	case <-time.After(200 * time.Millisecond): // long enough to see it, were it wrong
	}
	close(release)
	if err := within(t, result, "the handler"); err != nil {
		t.Errorf("the handler's context ended: %v", err)
	}
	if err := within(t, done, "Receive"); err != nil {
		t.Errorf("Receive: %v", err)
	}
	if acks := srv.Message(id).Acks; acks != 1 {
		t.Errorf("%d acknowledgements had arrived when Receive returned, want 1", acks)
	}
}

func TestReceiveLeavesAHandlerThatHangs(t *testing.T) {
	t.Parallel()
	srv := newPubSub(t)
	started, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	stop := receiving(t, gcp.Subscription{Name: testSubscription, Endpoint: srv.Addr, ShutdownTimeout: 100 * time.Millisecond},
		func(context.Context, gcp.Message) bool {
			close(started)
			<-release
			return true
		})
	srv.Publish(testTopic, []byte("data"), nil)
	within(t, started, "the handler")
	if err := stop(); err == nil || !strings.Contains(err.Error(), testSubscription) || !strings.Contains(err.Error(), "100ms") {
		t.Errorf("got %v, want an error with the subscription's name and the timeout", err)
	}
}

// denier refuses every stream.
type denier struct {
	pubsubpb.UnimplementedSubscriberServer
}

func (denier) StreamingPull(pubsubpb.Subscriber_StreamingPullServer) error {
	return status.Error(codes.PermissionDenied, "not you")
}

// denying starts a denier and returns its address.
func denying(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	pubsubpb.RegisterSubscriberServer(srv, denier{})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return l.Addr().String()
}

func TestReceiveThatCannotStart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		sub  gcp.Subscription
		want string
	}{
		{name: "missing", sub: gcp.Subscription{Project: "p", Name: "nosuch"}, want: "projects/p/subscriptions/nosuch: there is no such subscription"},
		{name: "denied", sub: gcp.Subscription{Name: testSubscription, Endpoint: denying(t)}, want: testSubscription + ": access denied"},
		{name: "no name", sub: gcp.Subscription{Project: "p"}, want: `subscription ""`},
		{name: "no project", sub: gcp.Subscription{Name: "s"}, want: "which project"},
		{name: "not a name", sub: gcp.Subscription{Name: "projects/p/topics/t"}, want: "projects/PROJECT/subscriptions/ID"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.sub.Endpoint == "" {
				tc.sub.Endpoint = newPubSub(t).Addr
			}
			done := make(chan error, 1)
			go func() {
				done <- gcp.Receive(t.Context(), tc.sub, func(context.Context, gcp.Message) bool { return true })
			}()
			if err := within(t, done, "Receive"); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestReceiveKeepsToMaxOutstanding(t *testing.T) {
	t.Parallel()
	srv := newPubSub(t)
	const limit = 4
	inHand := make(chan struct{}, 100)
	release := make(chan struct{})
	receiving(t, gcp.Subscription{Name: testSubscription, Endpoint: srv.Addr, Streams: 2, MaxOutstanding: limit},
		func(context.Context, gcp.Message) bool {
			inHand <- struct{}{}
			<-release
			return true
		})
	ids := make([]string, 0, 20)
	for i := range cap(ids) {
		ids = append(ids, srv.Publish(testTopic, fmt.Append(nil, i), nil))
	}
	eventually(t, "as many handlers as allowed", func() bool { return len(inHand) >= limit })
	if n := len(inHand); n > limit {
		t.Errorf("%d handlers at once, want at most %d", n, limit)
	}
	close(release)
	eventually(t, "all to be acknowledged", func() bool {
		for _, id := range ids {
			if srv.Message(id).Acks == 0 {
				return false
			}
		}
		return true
	})
}
