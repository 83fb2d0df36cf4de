package daemon_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tidemill/internal/bucket"
	"tidemill/internal/daemon"
	"tidemill/internal/gcp"
	"tidemill/internal/ingest"
	"tidemill/internal/local/embed"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
)

func usage(err error) bool {
	var exit *daemon.Exit
	return errors.As(err, &exit) && exit.Code == daemon.ExitUsage
}

func TestWhatIsMissingIsAUsageError(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		run  func(context.Context) error
		want string
	}{
		"ingest, subscription": {(&daemon.Ingest{}).Run, "--subscription"},
		"worker, pipeline":     {(&daemon.Worker{Argv: []string{"true"}}).Run, "--pipeline"},
		"worker, command":      {(&daemon.Worker{Pipeline: "p"}).Run, "--"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tt.run(t.Context()); !usage(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run = %v, want a usage error about %s", err, tt.want)
			}
		})
	}
}

// A worker's directory bears its name and is emptied when it starts.
func TestAWorkersNameCannotLeadOutOfTheWorkDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(filepath.Join(work, "other"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"..", ".", "/", "../precious", "a/b", "a\nb", "-x", strings.Repeat("n", 254)} {
		w := daemon.Worker{Pipeline: "p", Name: name, WorkDir: work, Argv: []string{"true"}}
		if err := w.Run(t.Context()); !usage(err) || !strings.Contains(err.Error(), "--name") {
			t.Errorf("Run as %q = %v, want a usage error", name, err)
		}
		for _, path := range []string{precious, filepath.Join(work, "other")} {
			if _, err := os.Stat(path); err != nil {
				t.Fatalf("%q removed %s", name, path)
			}
		}
	}
}

// mill is an ingest between embedded services, whose queue is a Redis of its own.
type mill struct {
	*testing.T
	mini     *miniredis.Miniredis
	server   *redisq.Server
	services *embed.Services
	began    chan struct{}
	failed   chan error // what the queue answered, if it was an error
	stop     context.CancelFunc
	done     chan error
}

func newMill(t *testing.T) *mill {
	t.Helper()
	m := &mill{T: t, mini: miniredis.RunT(t), began: make(chan struct{}), failed: make(chan error, 1000), done: make(chan error, 1)}
	var err error
	if m.server, err = redisq.Open(t.Context(), redisq.Options{URL: "redis://" + m.mini.Addr(), AnyServer: true}); err != nil {
		t.Fatal(err)
	}
	if m.services, err = embed.Start(t.Context(), embed.Options{}); err != nil {
		t.Fatal(err)
	}
	metrics, err := ingest.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	bridge := ingest.New(ingest.Config{
		Settings: m.server, Queue: func(name string) queue.Producer { return m.server.Queue(name) }, Log: zap.NewNop(), Metrics: metrics,
		Reached: func(err error) {
			if err != nil {
				m.failed <- err
			}
		},
	})
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	var running sync.WaitGroup
	running.Go(func() {
		s := gcp.Subscription{Name: m.services.Subscription, Endpoint: m.services.PubSubAddr, Streams: 2}
		m.done <- daemon.Bridge(ctx, bridge, s, zap.NewNop(), func() { close(m.began) })
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := errors.Join(m.server.Close(), m.services.Close()); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return m
}

func (m *mill) ended() error {
	m.Helper()
	select {
	case err := <-m.done:
		return err
	case <-time.After(patience):
		m.Fatal("it does not end")
		return nil
	}
}

// receiving waits until messages are received, which takes settings.
func (m *mill) receiving() {
	m.Helper()
	select {
	case <-m.began:
		m.Fatal("it receives before there are settings")
	default:
	}
	if _, err := m.server.Accept(m.Context(), map[string]map[string]string{"p": {"bucket": m.services.Bucket}}); err != nil {
		m.Fatal(err)
	}
	select {
	case <-m.began:
	case <-time.After(patience):
		m.Fatal("it receives nothing")
	}
}

func (m *mill) upload(name string) {
	m.Helper()
	store, err := gcp.NewStore(m.Context(), gcp.WithEndpoint(m.services.BucketURL))
	if err != nil {
		m.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Put(m.Context(), m.services.Bucket, name, strings.NewReader("x"), bucket.PutOptions{}); err != nil {
		m.Fatal(err)
	}
}

func TestBridgeReceivesAndStops(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.receiving()
	m.upload("x")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		s, err := m.server.Queue("p").Stats(t.Context())
		if err == nil && s.Waiting == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %v: the upload does not arrive", s, err)
		}
	}
	m.stop()
	if err := m.ended(); err != nil {
		t.Errorf("Bridge = %v", err)
	}
}

// A stop must not wait for a queue that does not come back.
func TestBridgeStopsWhileTheQueueIsAway(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.receiving()
	m.mini.SetError("OOM command not allowed when used memory > 'maxmemory'.")
	m.upload("x")
	for {
		var err error
		select {
		case err = <-m.failed:
		case <-time.After(patience):
			t.Fatal("the upload does not arrive")
		}
		if strings.Contains(err.Error(), "enqueuing") {
			break
		}
	}
	m.stop()
	if err := m.ended(); err != nil {
		t.Errorf("Bridge = %v", err)
	}
}

func TestBridgeStopsBeforeThereAreSettings(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.stop()
	if err := m.ended(); err != nil {
		t.Errorf("Bridge = %v", err)
	}
}

// Two workers of one name would empty each other's directory.
func TestTwoWorkersOfOneNameDoNotShareADirectory(t *testing.T) {
	redis := miniredis.RunT(t)
	dir := t.TempDir()
	worker := func() *daemon.Worker {
		w := &daemon.Worker{Pipeline: "p", Name: "w", WorkDir: dir, Argv: []string{"true"}}
		w.RedisURL, w.AnyRedis, w.LogFormat, w.LogLevel = "redis://"+redis.Addr(), true, "console", "error"
		return w
	}
	t.Setenv("STORAGE_EMULATOR_HOST", redis.Addr()) // never called
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker().Run(ctx) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(dir, "w")); err == nil {
			break
		}
		<-tick.C
	}
	if err := worker().Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another worker of that name") {
		t.Errorf("the second worker: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "w")); err != nil {
		t.Errorf("the first worker's directory: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the first worker: %v", err)
	}
}
