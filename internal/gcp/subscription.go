package gcp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Subscription says where messages come from and how many are taken at once.
// Zero values mean the defaults given.
type Subscription struct {
	Project string // not needed with a full name
	Name    string // an ID, or projects/P/subscriptions/S

	// MaxOutstanding and MaxBytes bound the messages that the handler has in
	// hand, over all streams together: 2,000 messages, 64 MiB.
	MaxOutstanding int
	MaxBytes       int
	// Streams is how many streams pull: 1, which is good for thousands of
	// messages a second from the real service. Stand-ins may need more.
	Streams int
	// MaxExtensionPeriod is by how much a message's deadline is extended at a
	// time, 10 s to 600 s: 10 s. It is how long a message waits for redelivery
	// after a crash; the subscription's own deadline doesn't count on a stream.
	MaxExtensionPeriod time.Duration
	// ShutdownTimeout is how long handlers may take to finish, and their
	// acknowledgements to be sent, once the context is done: 20 s.
	ShutdownTimeout time.Duration
	// Endpoint is HOST:PORT of a server to talk to in plain text without
	// credentials; empty: Pub/Sub itself, or PUBSUB_EMULATOR_HOST.
	Endpoint string
}

// Message is one delivery of a message. The same event can come under several IDs.
type Message struct {
	ID              string
	Data            []byte
	Attributes      map[string]string
	PublishTime     time.Time
	DeliveryAttempt int // from 1; 0 where the subscription has no dead-letter policy
}

// Receive calls handle for each message, many at a time, until ctx is done or the
// subscription can't be read. handle's true acknowledges the message, false asks
// for it again at once. Its context carries ctx's values but doesn't end when ctx
// does: what is in hand is finished. Receive returns nil when ctx is done and
// every handler has returned, and an error if they take more than ShutdownTimeout;
// their messages come again.
func Receive(ctx context.Context, s Subscription, handle func(ctx context.Context, m Message) (ack bool)) error {
	name, project, err := s.fullName()
	if err != nil {
		return err
	}
	s = s.withDefaults()
	var opts []option.ClientOption
	if s.Endpoint != "" {
		opts = append(opts, option.WithEndpoint(s.Endpoint), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
	// Handlers and acknowledgements outlive ctx, so the client does too.
	lasting := context.WithoutCancel(ctx)
	client, err := pubsub.NewClient(lasting, project, opts...)
	if err != nil {
		return fmt.Errorf("connecting to Pub/Sub for subscription %s: %w", name, err)
	}
	defer client.Close() //nolint:errcheck // nothing is left to lose by then

	sub := client.Subscriber(name)
	sub.ReceiveSettings = s.receiveSettings()
	done := make(chan error, 1)
	go func() {
		done <- sub.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
			if handle(lasting, message(m)) {
				m.Ack()
			} else {
				m.Nack()
			}
		})
	}()
	select {
	case err := <-done:
		return ended(ctx, name, err)
	case <-ctx.Done():
	}
	grace := time.NewTimer(s.ShutdownTimeout)
	defer grace.Stop()
	select {
	case err := <-done:
		return ended(ctx, name, err)
	case <-grace.C:
		return fmt.Errorf("stopping to receive from %s: messages still in hand after %s; they will be delivered again",
			name, s.ShutdownTimeout)
	}
}

// receiveSettings leaves ShutdownOptions alone: without a timeout the client
// also waits until the last acknowledgements are sent; with one it drops them.
// Receive bounds the wait itself.
func (s Subscription) receiveSettings() pubsub.ReceiveSettings {
	// Flow control is per stream, because only then does the service know of it
	// and hands the rest to other subscribers.
	each := func(total int) int { return (total + s.Streams - 1) / s.Streams }
	return pubsub.ReceiveSettings{
		MaxExtension:               time.Hour,
		MaxDurationPerAckExtension: s.MaxExtensionPeriod,
		MaxOutstandingMessages:     each(s.MaxOutstanding),
		MaxOutstandingBytes:        each(s.MaxBytes),
		EnablePerStreamFlowControl: true,
		NumGoroutines:              s.Streams,
	}
}

func (s Subscription) withDefaults() Subscription {
	if s.MaxOutstanding <= 0 {
		s.MaxOutstanding = 2000
	}
	if s.MaxBytes <= 0 {
		s.MaxBytes = 64 << 20
	}
	if s.Streams <= 0 {
		s.Streams = 1
	}
	if s.MaxExtensionPeriod <= 0 {
		s.MaxExtensionPeriod = 10 * time.Second
	}
	if s.ShutdownTimeout <= 0 {
		s.ShutdownTimeout = 20 * time.Second
	}
	return s
}

func (s Subscription) fullName() (name, project string, err error) {
	parts := strings.Split(s.Name, "/")
	switch {
	case len(parts) == 4 && parts[0] == "projects" && parts[1] != "" && parts[2] == "subscriptions" && parts[3] != "":
		return s.Name, parts[1], nil
	case len(parts) != 1 || s.Name == "":
		return "", "", fmt.Errorf("subscription %q: want an ID, or projects/PROJECT/subscriptions/ID", s.Name)
	case s.Project == "":
		return "", "", fmt.Errorf("subscription %q: say which project it is in, or give it as projects/PROJECT/subscriptions/%s",
			s.Name, s.Name)
	}
	return fmt.Sprintf("projects/%s/subscriptions/%s", s.Project, s.Name), s.Project, nil
}

// ended turns what the client's Receive returned into what ours does.
func ended(ctx context.Context, name string, err error) error {
	switch {
	case err == nil && ctx.Err() == nil:
		return fmt.Errorf("receiving from %s: the stream ended", name)
	case err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil
	}
	switch status.Code(err) {
	case codes.NotFound:
		return fmt.Errorf("receiving from %s: there is no such subscription; create it, or correct the name: %w", name, err)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("receiving from %s: access denied; it takes roles/pubsub.subscriber on the subscription: %w", name, err)
	}
	return fmt.Errorf("receiving from %s: %w", name, err)
}

func message(m *pubsub.Message) Message {
	out := Message{ID: m.ID, Data: m.Data, Attributes: m.Attributes, PublishTime: m.PublishTime}
	if m.DeliveryAttempt != nil {
		out.DeliveryAttempt = *m.DeliveryAttempt
	}
	return out
}
