// Package ingest turns object notifications into queued items: decode, route
// to a pipeline, enqueue in batches, and only then acknowledge.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/item"
	"tidemill/internal/notify"
	"tidemill/internal/obs"
	"tidemill/internal/pipeline"
	"tidemill/internal/queue"
)

const (
	settingsEvery = time.Second // how soon accepted settings are in force here
	callTimeout   = 15 * time.Second
)

// Config is what a Bridge works with. All fields are required unless they say
// otherwise.
type Config struct {
	Settings queue.SettingsReader
	Queue    func(pipeline string) queue.Producer
	Log      *zap.Logger
	Metrics  *Metrics
	// Reached is told the outcome of each call to the queue. It may be nil.
	Reached func(error)
}

// Bridge carries notifications into queues. Handle is safe for concurrent use.
type Bridge struct {
	Config
	routes   atomic.Pointer[routes]
	mu       sync.Mutex
	batchers map[string]*batcher // nil once the bridge is closed
	running  sync.WaitGroup
	life     context.Context //nolint:containedctx // the bridge's, over many calls
	end      context.CancelFunc
}

type routes struct {
	set      pipeline.Set
	revision int64
}

// New returns a bridge that has no settings yet.
func New(c Config) *Bridge {
	if c.Reached == nil {
		c.Reached = func(error) {}
	}
	life, end := context.WithCancel(context.Background())
	return &Bridge{Config: c, batchers: map[string]*batcher{}, life: life, end: end}
}

// AwaitSettings returns once a complete accepted set of settings has been read.
// Before that nothing may be received: an event that matches no pipeline is
// acknowledged, and unknown is not the same as unmatched.
func (b *Bridge) AwaitSettings(ctx context.Context) error {
	t := time.NewTicker(settingsEvery)
	defer t.Stop()
	for told := ""; ; {
		err := b.readSettings(ctx)
		if err == nil && b.routes.Load() != nil {
			return nil
		}
		if err == nil {
			err = errNoSettings
		}
		if text := err.Error(); text != told && ctx.Err() == nil {
			b.Log.Warn("waiting for accepted settings; the scaler writes them", zap.Error(err))
			told = text
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// FollowSettings keeps the settings current until ctx is done.
func (b *Bridge) FollowSettings(ctx context.Context) {
	t := time.NewTicker(settingsEvery)
	defer t.Stop()
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		err := b.readSettings(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			b.Log.Warn("could not read the settings; those in force stay", zap.Error(err))
		}
		failing = err != nil
	}
}

func (b *Bridge) readSettings(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	accepted, err := b.Settings.Settings(ctx)
	b.Reached(err)
	if err != nil {
		return err
	}
	if now := b.routes.Load(); accepted.Revision == 0 || now != nil && now.revision == accepted.Revision {
		return nil
	}
	set, problems := pipeline.NewSet(accepted.Pipelines)
	if len(problems) > 0 {
		return fmt.Errorf("the accepted settings are not valid for this version of ingest: %w", problems[0])
	}
	b.routes.Store(&routes{set: set, revision: accepted.Revision})
	b.Log.Info("settings are in force", zap.Int64("revision", accepted.Revision), zap.Strings("pipelines", set.Names()))
	return nil
}

// Handle takes one Pub/Sub message and reports whether to acknowledge it. It
// returns only when that is certain: while the queue can't take the item it
// waits, so that flow control stops the stream, and no delivery attempt of the
// subscription's dead-letter policy is used up. false means the bridge closed
// before the item was queued.
func (b *Bridge) Handle(ctx context.Context, id string, attributes map[string]string, data []byte) bool {
	event, err := notify.Decode(attributes, data)
	switch {
	case errors.Is(err, notify.ErrUnknownEvent):
		b.Metrics.events.WithLabelValues("unknown").Inc()
		return true
	case err != nil:
		b.Metrics.events.WithLabelValues("rejected").Inc()
		b.Log.Error("a message is not an object notification; it is dropped", zap.String("message", id), zap.Error(err))
		return true
	case event.Kind != notify.Finalize:
		b.Metrics.events.WithLabelValues("other").Inc()
		return true
	case event.Placeholder():
		b.Metrics.events.WithLabelValues("placeholder").Inc()
		return true
	}
	now := b.routes.Load()
	if now == nil { // not unmatched: nobody knows
		b.Metrics.events.WithLabelValues("returned").Inc()
		return false
	}
	name, ok := now.set.Route(event.Object.Bucket, event.Object.Name)
	if !ok {
		b.Metrics.events.WithLabelValues("unmatched").Inc()
		return true
	}
	var added queue.Added
	err = errClosed
	if t := b.batcher(name); t != nil {
		added, err = t.add(ctx, item.Item{
			Object: event.Object, Size: max(0, event.Size), ContentType: event.ContentType, Traceparent: event.Traceparent,
		})
	}
	if err != nil {
		b.Metrics.events.WithLabelValues("returned").Inc()
		return false
	}
	outcome := "queued"
	if added != queue.AddedNew {
		outcome = "duplicate"
	}
	b.Metrics.events.WithLabelValues(outcome).Inc()
	b.Log.Debug("event taken", obs.Label("pipeline", name), obs.Label("item", event.Object.String()), zap.String("outcome", outcome))
	return true
}

// batcher returns nil once the bridge is closed.
func (b *Bridge) batcher(name string) *batcher {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.batchers == nil {
		return nil
	}
	if b.batchers[name] == nil {
		t := &batcher{bridge: b, queue: b.Queue(name), in: make(chan request)}
		b.batchers[name] = t
		b.running.Go(t.run)
	}
	return b.batchers[name]
}

// Close ends the bridge. Handle calls that still wait for the queue return
// false at once, also those whose items are on their way: the message comes
// again, and the queue knows the item. Close itself returns when the last call
// to the queue has, some seconds at most. It may be called twice.
func (b *Bridge) Close() {
	b.end()
	b.mu.Lock()
	b.batchers = nil
	b.mu.Unlock()
	b.running.Wait()
}
