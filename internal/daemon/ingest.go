package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tidemill/internal/gcp"
	"tidemill/internal/ingest"
	"tidemill/internal/obs"
	"tidemill/internal/queue"
)

// Ingest are ingest's flags.
type Ingest struct {
	Common
	Subscription string
	Outstanding  int
	Streams      int
	Redelivery   time.Duration
}

// Flags adds the flags to a command.
func (i *Ingest) Flags(cmd *cobra.Command, env *Env) {
	i.Common.Flags(cmd, env)
	f := cmd.Flags()
	f.StringVar(&i.Subscription, "subscription", "", "Pub/Sub subscription of the bucket's notifications: projects/P/subscriptions/S, or S with --project (required)")
	f.IntVar(&i.Outstanding, "max-outstanding", 2000, "messages in hand at most")
	f.IntVar(&i.Streams, "streams", 1, "streams to pull with; one is good for thousands of messages a second")
	f.DurationVar(&i.Redelivery, "redelivery", 10*time.Second, "how soon messages in hand come again after a crash, 10s to 10m")
	env.Bind("subscription", "PUBSUB_SUBSCRIPTION")
}

// Run carries notifications until ctx is done.
func (i *Ingest) Run(ctx context.Context) error {
	if i.Subscription == "" {
		return Usage(errors.New("--subscription is required"))
	}
	health := obs.NewHealth("queue", "settings")
	return i.Host(ctx, "tidemill-ingest", health, func(b Base) error { return i.run(ctx, b, health) })
}

func (i *Ingest) run(ctx context.Context, b Base, health *obs.Health) error {
	metrics, err := ingest.NewMetrics(b.Registry)
	if err != nil {
		return err
	}
	bridge := ingest.New(ingest.Config{
		Settings: b.Redis, Queue: func(name string) queue.Producer { return b.Redis.Queue(name) },
		Log: b.Log, Metrics: metrics, Reached: func(err error) { health.Set("queue", err) },
	})
	return Bridge(ctx, bridge, gcp.Subscription{
		Project: i.Project, Name: i.Subscription, MaxOutstanding: i.Outstanding, Streams: i.Streams, MaxExtensionPeriod: i.Redelivery,
	}, b.Log, func() { health.Set("settings", nil) })
}

// Bridge receives a subscription's messages into a bridge until ctx is done.
// began is called once settings are in force and receiving begins.
func Bridge(ctx context.Context, b *ingest.Bridge, s gcp.Subscription, log *zap.Logger, began func()) error {
	defer b.Close()
	if err := b.AwaitSettings(ctx); err != nil {
		return nil // stopped before there was anything to do
	}
	following := make(chan struct{})
	inner, cancel := context.WithCancel(ctx)
	defer func() { cancel(); <-following }()
	go func() { defer close(following); b.FollowSettings(inner) }()
	// What still waits for the queue some time after the stop was asked for goes
	// back to Pub/Sub.
	received := make(chan struct{})
	defer close(received)
	defer context.AfterFunc(ctx, func() {
		t := time.NewTimer(returnAfter)
		defer t.Stop()
		select {
		case <-t.C:
			b.Close()
		case <-received:
		}
	})()
	log.Info("receiving", zap.String("subscription", s.Name))
	began()
	err := gcp.Receive(ctx, s, func(ctx context.Context, m gcp.Message) bool {
		return b.Handle(ctx, m.ID, m.Attributes, m.Data)
	})
	log.Info("stopped receiving", zap.Error(err))
	return err
}

// returnAfter is how long events in hand may wait for the queue after the stop
// was asked for.
const returnAfter = 5 * time.Second
