package ingest_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tidemill/internal/ingest"
	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
)

const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a bridge into queues on an embedded Redis.
type rig struct {
	*testing.T
	mini     *miniredis.Miniredis
	server   *redisq.Server
	bridge   *ingest.Bridge
	registry *prometheus.Registry
	logs     *observer.ObservedLogs

	mu      sync.Mutex
	reached []error
	calls   map[string]int // to Enqueue, by pipeline
	before  func()         // each call to Enqueue; may be nil
}

// newRig makes a bridge without settings.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, mini: miniredis.NewMiniRedis(), registry: prometheus.NewRegistry(), calls: map[string]int{}}
	if err := r.mini.Start(); err != nil {
		t.Fatal(err)
	}
	connected, err := redisq.Open(t.Context(), redisq.Options{URL: "redis://" + r.mini.Addr(), AnyServer: true})
	if err != nil {
		t.Fatal(err)
	}
	r.server = connected
	metrics, err := ingest.NewMetrics(r.registry)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	r.logs = logs
	r.bridge = ingest.New(ingest.Config{
		Settings: connected, Queue: func(name string) queue.Producer { return producer{r, name} }, Log: zap.New(core), Metrics: metrics,
		Reached: func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reached = append(r.reached, err)
		},
	})
	t.Cleanup(func() {
		r.bridge.Close()
		r.bridge.Close()
		if err := connected.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		r.mini.Close()
	})
	return r
}

// producer counts the calls to a queue.
type producer struct {
	rig  *rig
	name string
}

func (p producer) Enqueue(ctx context.Context, items []item.Item) ([]queue.Added, error) {
	p.rig.mu.Lock()
	p.rig.calls[p.name]++
	before := p.rig.before
	p.rig.mu.Unlock()
	if before != nil {
		before()
	}
	return p.rig.server.Queue(p.name).Enqueue(ctx, items)
}

// accept makes settings of pipelines that take what lies below a folder each.
func (r *rig) accept(folders ...string) {
	r.Helper()
	pipelines := map[string]map[string]string{}
	for _, f := range folders {
		pipelines[f] = map[string]string{"bucket": "tides", "match": f + "/**"}
	}
	if _, err := r.server.Accept(r.Context(), pipelines); err != nil {
		r.Fatal(err)
	}
}

// ready makes settings for one pipeline, a, and waits until they are known.
func (r *rig) ready() {
	r.Helper()
	r.accept("a")
	if err := r.bridge.AwaitSettings(r.Context()); err != nil {
		r.Fatal(err)
	}
}

func event(name string, generation int) map[string]string {
	return map[string]string{
		"eventType": "OBJECT_FINALIZE", "bucketId": "tides", "objectId": name, "objectGeneration": strconv.Itoa(generation),
		"payloadFormat": "NONE",
	}
}

func (r *rig) handle(attrs map[string]string) bool {
	return r.bridge.Handle(r.Context(), "id", attrs, nil)
}

// handling runs Handle beside the test.
func (r *rig) handling(name string, generation int) <-chan bool {
	done := make(chan bool, 1)
	go func() { done <- r.handle(event(name, generation)) }()
	return done
}

func (r *rig) answer(done <-chan bool) bool {
	r.Helper()
	select {
	case acked := <-done:
		return acked
	case <-time.After(patience):
		r.Fatal("Handle does not return")
		return false
	}
}

func (r *rig) await(what string, done func() bool) {
	r.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			r.Fatalf("waited %s in vain for %s", patience, what)
		}
	}
}

func (r *rig) failures() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range r.reached {
		if err != nil {
			n++
		}
	}
	return n
}

func (r *rig) stats(pipeline string) queue.Stats {
	r.Helper()
	s, err := r.server.Queue(pipeline).Stats(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// outcomes are the events counted, by outcome.
func (r *rig) outcomes() map[string]int {
	r.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.Fatal(err)
	}
	counts := map[string]int{}
	for _, f := range families {
		if f.GetName() != "tidemill_ingest_events_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			counts[m.GetLabel()[0].GetValue()] = int(m.GetCounter().GetValue())
		}
	}
	return counts
}
