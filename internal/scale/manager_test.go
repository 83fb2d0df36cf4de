package scale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tidemill/internal/item"
	"tidemill/internal/pipeline"
	"tidemill/internal/policy"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// await polls until check is true.
func await(t *testing.T, what string, check func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !check(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not after 30 s: %s", what)
		}
	}
}

// slowFleet never gets a worker to run: all that it wants is pending.
type slowFleet struct {
	mu     sync.Mutex
	wanted int
}

func (f *slowFleet) Observe(context.Context) (Size, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Size{Wanted: f.wanted, Pending: f.wanted}, nil
}

func (f *slowFleet) Resize(_ context.Context, from, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if from != f.wanted {
		return fmt.Errorf("the fleet has %d workers, not %d", f.wanted, from)
	}
	f.wanted = n
	return nil
}

// bench is a store, and fleets that outlive managers.
type bench struct {
	t      *testing.T
	redis  *miniredis.Miniredis
	server *redisq.Server

	mu      sync.Mutex
	fleets  map[string]*slowFleet
	refused []string
	decided []string
	reached []error
	left    []string // what Fleets answers
	leftErr error
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, redis: miniredis.RunT(t), fleets: map[string]*slowFleet{}}
	server, err := redisq.Open(t.Context(), redisq.Options{URL: "redis://" + b.redis.Addr(), AnyServer: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	b.server = server
	return b
}

func (b *bench) fleet(name string) *slowFleet {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fleets[name] == nil {
		b.fleets[name] = &slowFleet{}
	}
	return b.fleets[name]
}

func (b *bench) wants(name string, n int) func() bool {
	return func() bool {
		size, _ := b.fleet(name).Observe(b.t.Context())
		return size.Wanted == n
	}
}

func (b *bench) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.refused)
}

func (b *bench) inForce() settings {
	b.t.Helper()
	s, err := b.server.Settings(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Pipelines
}

// manager returns one that does not run yet.
func (b *bench) manager() *Manager {
	b.t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.t.Fatal(err)
	}
	return NewManager(ManagerConfig{
		Store: b.server, Tick: 200 * time.Millisecond, Log: zap.NewNop(), Metrics: metrics,
		Queue: func(name string) queue.Supervisor { return b.server.Queue(name) },
		Fleet: func(name string) Fleet { return b.fleet(name) },
		Fleets: func(context.Context) ([]string, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.left, b.leftErr
		},
		Reached: func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.reached = append(b.reached, err)
		},
		Refused: func(p pipeline.Problem) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.refused = append(b.refused, p.Pipeline+"/"+p.Key)
		},
		Decided: func(name string, d policy.Decision) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.decided = append(b.decided, fmt.Sprint(name, " ", d.From, " to ", d.Workers))
		},
	})
}

// run runs a manager, and returns how to end it.
func (b *bench) run(m *Manager) (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	stop = func() { cancel(); <-ended }
	b.t.Cleanup(stop)
	return stop
}

func TestSettingsComeIntoForce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := b.manager()
	b.run(m)
	m.Offer(settings{"a": keys("a/**", "min-workers", "2"), "b": keys("b/**", "min-workers", "1")})
	await(t, "a at 2", b.wants("a", 2))
	await(t, "b at 1", b.wants("b", 1))

	m.Offer(settings{"a": keys("a/**", "min-workers", "5"), "b": keys("b/**", "min-workers", "x")})
	await(t, "a at 5", b.wants("a", 5))
	if diff := cmp.Diff([]string{"b/min-workers"}, b.told()); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	want := settings{"a": keys("a/**", "min-workers", "5"), "b": keys("b/**", "min-workers", "1")}
	if diff := cmp.Diff(want, b.inForce()); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
	if !b.wants("b", 1)() {
		t.Error("the last good settings of b are not in force")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.decided, "a 0 to 2") || !slices.Contains(b.decided, "a 2 to 5") {
		t.Errorf("decisions that were told: %v", b.decided)
	}
	if err := errors.Join(b.reached...); err != nil || len(b.reached) == 0 {
		t.Errorf("%d readings, error %v", len(b.reached), err)
	}
}

func TestANewLeaderTakesTheSettingsOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := b.manager()
	stop := b.run(m)
	m.Offer(settings{"a": keys("a/**", "min-workers", "2")})
	await(t, "a at 2", b.wants("a", 2))
	stop()
	b.fleets["a"] = &slowFleet{wanted: 1} // somebody meddled meanwhile
	b.run(b.manager())                    // nothing is offered
	await(t, "a at 2 again", b.wants("a", 2))
}

func TestADeletedPipelineRunsOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := b.manager()
	stop := b.run(m)
	a, gone := keys("a/**", "min-workers", "2"), keys("b/**", "min-workers", "3")
	m.Offer(settings{"a": a, "gone": gone})
	await(t, "gone at 3", b.wants("gone", 3))
	m.Offer(settings{"a": a})
	await(t, "gone at 0", b.wants("gone", 0))
	if !b.wants("a", 2)() {
		t.Error("a runs out too")
	}

	// Deleted while no scaler ran: the settings still name it.
	m.Offer(settings{"a": a, "gone": gone})
	await(t, "gone at 3", b.wants("gone", 3))
	stop()
	m = b.manager()
	m.Offer(settings{"a": a})
	stop = b.run(m)
	await(t, "gone at 0", b.wants("gone", 0))
	stop()

	// Or they do not any more, but it has a fleet.
	b.fleet("old").wanted = 4
	b.left = []string{"a", "old"}
	b.leftErr = errors.New("only some could be read")
	m = b.manager()
	b.run(m)
	await(t, "old looked at", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.Contains(b.decided, "old 4 to 4")
	})
	m.Offer(settings{"a": a}) // until then nobody knows that it was deleted
	await(t, "old at 0", b.wants("old", 0))
}

// What a newer program finds fault with stays as it is, and is not forgotten.
func TestSettingsThatAreNotValidAnyMore(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stale := keys("a/**", "a-key-of-old", "1")
	if _, err := b.server.Accept(t.Context(), settings{"a": stale}); err != nil {
		t.Fatal(err)
	}
	b.fleet("a").wanted = 3
	m := b.manager()
	m.Offer(settings{"a": stale, "b": keys("b/**", "min-workers", "1")})
	b.run(m)
	await(t, "b at 1", b.wants("b", 1))
	await(t, "a looked at", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.Contains(b.decided, "a 3 to 3")
	})
	if diff := cmp.Diff(stale, b.inForce()["a"]); diff != "" {
		t.Errorf("what is stored of a (-want +got):\n%s", diff)
	}
}

func TestANewerOfferReplacesOneThatWaits(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := b.manager()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { m.Offer(settings{"a": keys("a/**", "min-workers", fmt.Sprint(10+i))}) })
	}
	all.Wait()
	m.Offer(settings{"a": keys("a/**", "min-workers", "2")})
	b.run(m)
	await(t, "a at 2", b.wants("a", 2))
	b.mu.Lock()
	defer b.mu.Unlock()
	if diff := cmp.Diff([]string{"a 0 to 2"}, b.decided[:1]); diff != "" {
		t.Errorf("the first decision (-want +got):\n%s", diff)
	}
}

func TestAStoreThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.redis.SetError("LOADING the data set")
	m := b.manager()
	b.run(m)
	m.Offer(settings{"a": keys("a/**", "min-workers", "2"), "b": keys("b/**", "io", "x")})
	await(t, "the offer to be taken up", func() bool { return len(m.offers) == 0 })
	b.redis.SetError("")
	await(t, "a at 2", b.wants("a", 2))
	if diff := cmp.Diff([]string{"b/io"}, b.told()); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

// failingStore reads, but does not write.
type failingStore struct {
	queue.SettingsStore
	mu    sync.Mutex
	tries int
}

func (s *failingStore) Accept(ctx context.Context, p map[string]map[string]string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tries++; s.tries <= 2 {
		return 0, queue.ErrFull
	}
	return s.SettingsStore.Accept(ctx, p)
}

// Settings that could not be stored are not in force, and a problem is told of once.
func TestAStoreThatIsFull(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := b.manager()
	store := &failingStore{SettingsStore: b.server}
	m.Store = store
	b.run(m)
	m.Offer(settings{"a": keys("a/**", "min-workers", "2"), "b": keys("b/**", "io", "x")})
	await(t, "a at 2", b.wants("a", 2))
	store.mu.Lock()
	defer store.mu.Unlock()
	if store.tries < 3 {
		t.Errorf("a is scaled after %d tries to store the settings", store.tries)
	}
	if diff := cmp.Diff([]string{"b/io"}, b.told()); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

// The queue's wake and Kick are what a controller acts on; the tick is an hour.
func TestWakes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := b.manager()
	m.Tick = time.Hour
	b.run(m)
	m.Offer(settings{"a": keys("**", "items-per-worker", "1")})
	await(t, "a looked at", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.Contains(b.decided, "a 0 to 0")
	})
	for i := range 3 {
		it := item.Item{Object: item.Object{Bucket: "in-bucket", Name: fmt.Sprint(i), Generation: 1}}
		if _, err := b.server.Queue("a").Enqueue(t.Context(), []item.Item{it}); err != nil {
			t.Fatal(err)
		}
		await(t, "one worker more", b.wants("a", i+1))
	}
	f := b.fleet("a")
	f.mu.Lock()
	f.wanted = 1 // somebody meddled
	f.mu.Unlock()
	m.Kick("nobody")
	m.Kick("a")
	await(t, "three workers again", b.wants("a", 3))
}

// A store that comes back empty gets the settings again, those of a pipeline
// whose newest edit was refused too.
func TestALosingStoreGetsTheSettingsAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := b.manager()
	b.run(m)
	good := settings{"a": keys("a/**", "min-workers", "2"), "b": keys("b/**", "min-workers", "1")}
	m.Offer(good)
	await(t, "a at 2", b.wants("a", 2))
	m.Offer(settings{"a": good["a"], "b": keys("b/**", "min-workers", "x")})
	await(t, "the refusal", func() bool { return len(b.told()) == 1 })
	b.redis.FlushAll()
	await(t, "the settings again", func() bool { return len(b.inForce()) > 0 })
	if diff := cmp.Diff(good, b.inForce()); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
}
