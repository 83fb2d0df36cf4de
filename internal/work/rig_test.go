package work_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tidemill/internal/bucket"
	"tidemill/internal/command"
	"tidemill/internal/gcp"
	"tidemill/internal/item"
	"tidemill/internal/local/embed"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
	"tidemill/internal/result"
	"tidemill/internal/work"
)

const (
	patience = 90 * time.Second
	pipe     = "p" // the pipeline's name
	bin      = "tidemill"
)

// rig is a queue whose clock only the test moves, and a bucket.
type rig struct {
	*testing.T
	mini   *miniredis.Miniredis
	clock  time.Time
	server *redisq.Server
	q      *redisq.Queue
	real   bucket.Store
	store  *faulty // what workers use
	keys   map[string]string
	dir    string // where commands and the test leave files for each other
	logs   *observer.ObservedLogs
	log    *zap.Logger
}

// newRig accepts the keys, given as name and value in turn, as settings.
func newRig(t *testing.T, keys ...string) *rig {
	t.Helper()
	r := &rig{T: t, mini: miniredis.RunT(t), clock: time.Now(), dir: t.TempDir()}
	r.mini.SetTime(r.clock)
	server, err := redisq.Open(t.Context(), redisq.Options{URL: "redis://" + r.mini.Addr(), AnyServer: true})
	if err != nil {
		t.Fatal(err)
	}
	services, err := embed.Start(t.Context(), embed.Options{Bucket: bin})
	if err != nil {
		t.Fatal(err)
	}
	store, err := gcp.NewStore(t.Context(), gcp.WithEndpoint(services.BucketURL))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), store.Close(), services.Close()); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	r.server, r.q, r.real, r.store = server, server.Queue(pipe), store, &faulty{Store: store}
	core, logs := observer.New(zap.DebugLevel)
	r.logs, r.log = logs, zap.New(core)
	r.keys = map[string]string{"bucket": bin, "retry-backoff": "0s..0s", "lease-duration": "60s"}
	r.accept(keys...)
	return r
}

func (r *rig) accept(keys ...string) {
	r.Helper()
	for i := 0; i < len(keys); i += 2 {
		r.keys[keys[i]] = keys[i+1]
	}
	if _, err := r.server.Accept(r.Context(), map[string]map[string]string{pipe: maps.Clone(r.keys)}); err != nil {
		r.Fatal(err)
	}
}

// pass moves the queue's clock.
func (r *rig) pass(d time.Duration) {
	r.clock = r.clock.Add(d)
	r.mini.SetTime(r.clock)
}

// upload writes an object, over what is there, and returns its item.
func (r *rig) upload(name, content string) item.Item {
	r.Helper()
	attrs := r.write(name, content, nil)
	return item.Item{
		Object: item.Object{Bucket: bin, Name: name, Generation: attrs.Generation}, Size: int64(len(content)), ContentType: "text/plain",
	}
}

func (r *rig) write(name, content string, meta map[string]string) bucket.Attrs {
	r.Helper()
	there, err := r.real.Stat(r.Context(), bin, name)
	if err != nil && !errors.Is(err, bucket.ErrNotExist) {
		r.Fatal(err)
	}
	attrs, err := r.real.Put(r.Context(), bin, name, strings.NewReader(content),
		bucket.PutOptions{Replaces: there.Generation, Metadata: meta, ContentType: "text/plain"})
	if err != nil {
		r.Fatal(err)
	}
	return attrs
}

func (r *rig) enqueue(items ...item.Item) {
	r.Helper()
	if _, err := r.q.Enqueue(r.Context(), items); err != nil {
		r.Fatal(err)
	}
}

// uploaded uploads an object and enqueues its item.
func (r *rig) uploaded(name, content string) item.Item {
	r.Helper()
	it := r.upload(name, content)
	r.enqueue(it)
	return it
}

// running is a worker at work.
type running struct {
	stop context.CancelFunc
	kill func()
	done chan error // gets Run's answer

	mu    sync.Mutex
	ready []bool
}

func (w *running) readiness() []bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]bool(nil), w.ready...)
}

// worker starts a worker with a shell script as its command; change may be nil.
func (r *rig) worker(name, script string, change func(*work.Config)) *running {
	r.Helper()
	metrics, err := work.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		r.Fatal(err)
	}
	kill := make(chan struct{})
	w := &running{kill: sync.OnceFunc(func() { close(kill) }), done: make(chan error, 1)}
	c := work.Config{
		Name: name, Pipeline: pipe, Queue: r.q, Settings: r.server, Store: r.store, WorkDir: r.TempDir(), Drain: patience,
		Kill: kill, Log: r.log, Metrics: metrics,
		Command: command.Spec{Argv: []string{"/bin/sh", "-euc", "dir='" + r.dir + "'; " + script}, Grace: patience},
		Ready: func(ready bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ready = append(w.ready, ready)
		},
	}
	if change != nil {
		change(&c)
	}
	loop, err := work.New(c)
	if err != nil {
		r.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.done <- loop.Run(ctx)
	}()
	r.Cleanup(func() {
		w.kill()
		stop()
		<-ended
	})
	return w
}

// ended waits for the end of a worker.
func (r *rig) ended(w *running) error {
	r.Helper()
	select {
	case err := <-w.done:
		return err
	case <-time.After(patience):
		r.Fatal("the worker does not end")
		return nil
	}
}

func (r *rig) await(what string, done func() bool) {
	r.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			for _, e := range r.logs.All() {
				r.Log(e.Message, e.ContextMap())
			}
			r.Fatalf("waited %s in vain for %s", patience, what)
		}
	}
}

func (r *rig) record(it item.Item) queue.Record {
	r.Helper()
	records, err := r.q.Lookup(r.Context(), []item.ID{it.ID()})
	if err != nil {
		r.Fatal(err)
	}
	return records[0]
}

// awaitState waits until an item is where it should be, and returns why.
func (r *rig) awaitState(it item.Item, want queue.State) string {
	r.Helper()
	r.await(string(it.ID())+" to be "+string(want), func() bool { return r.record(it).State == want })
	return r.record(it).Reason
}

func (r *rig) stats() queue.Stats {
	r.Helper()
	s, err := r.q.Stats(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// lease takes the next item as another worker would.
func (r *rig) lease(worker string) queue.Lease {
	r.Helper()
	turned, err := r.q.Turn(r.Context(), queue.Turn{Worker: worker, Want: 1, Lease: time.Hour})
	if err != nil || len(turned.Leases) != 1 {
		r.Fatalf("%s leases %v, %v", worker, turned.Leases, err)
	}
	return turned.Leases[0]
}

func (r *rig) finish(worker string, l queue.Lease, kind queue.Kind) queue.Verdict {
	r.Helper()
	turned, err := r.q.Turn(r.Context(), queue.Turn{Worker: worker, Completions: []queue.Completion{{ID: l.Item.ID(), Token: l.Token, Kind: kind}}})
	if err != nil {
		r.Fatal(err)
	}
	return turned.Verdicts[0]
}

// objects returns the content of what stands below a prefix, by name.
func (r *rig) objects(prefix string) map[string]string {
	r.Helper()
	out := map[string]string{}
	err := r.real.List(r.Context(), bin, prefix, func(e bucket.Entry) error {
		if strings.HasPrefix(e.Name, prefix) {
			out[e.Name] = ""
		}
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
	for name := range out {
		out[name], _ = r.read(name)
	}
	return out
}

// results are the result objects, without manifests.
func (r *rig) results() map[string]string {
	r.Helper()
	out := r.objects("results/")
	maps.DeleteFunc(out, func(name, _ string) bool { return strings.HasPrefix(name, "results/.tidemill/manifests/") })
	return out
}

func (r *rig) read(name string) (string, bucket.Attrs) {
	r.Helper()
	body, attrs, err := r.real.Open(r.Context(), bin, name, 0)
	if err != nil {
		r.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		r.Fatal(err)
	}
	return string(data), attrs
}

func (r *rig) manifest(it item.Item) (result.Manifest, bucket.Attrs) {
	r.Helper()
	text, attrs := r.read(result.Template("gs://{bucket}/results/{object}").Manifest(it.Object).Name)
	m, err := result.ParseManifest([]byte(text))
	if err != nil {
		r.Fatal(err)
	}
	return m, attrs
}

func (r *rig) report(it item.Item) result.Report {
	r.Helper()
	text, attrs := r.read("failures/" + it.Name + ".json")
	r.wantFence(attrs, it)
	var report result.Report
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		r.Fatal(err)
	}
	return report
}

func (r *rig) wantFence(attrs bucket.Attrs, it item.Item) {
	r.Helper()
	f, ok := result.FenceFrom(attrs.Metadata)
	if !ok || f.Source != it.Path() || f.Generation != it.Generation || f.Run != it.Run || f.Token.Seq == 0 {
		r.Errorf("metadata %v is not the fence of %s", attrs.Metadata, it.ID())
	}
}

// left is how often commands have written a line to a file.
func (r *rig) left(file string) int {
	r.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Fatal(err)
	}
	return bytes.Count(data, []byte("\n"))
}

// leave makes a file that commands wait for.
func (r *rig) leave(file string) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, file), nil, 0o600); err != nil {
		r.Fatal(err)
	}
}

// awaitLeft waits until a command has written to a file.
func (r *rig) awaitLeft(file string) {
	r.Helper()
	r.await("a command to write to "+file, func() bool { return r.left(file) > 0 })
}

// untilGo is a part of a script that waits for the test.
const untilGo = `echo >>"$dir/began"; until [ -e "$dir/go" ]; do sleep 0.02; done; `

// faulty is a store with faults; each hook may be nil.
type faulty struct {
	bucket.Store
	put  func(name string, body io.Reader, put func(io.Reader) (bucket.Attrs, error)) (bucket.Attrs, error)
	open func(name string, body io.ReadCloser) (io.ReadCloser, error)
}

func (f *faulty) Put(ctx context.Context, b, name string, r io.Reader, o bucket.PutOptions) (bucket.Attrs, error) {
	put := func(r io.Reader) (bucket.Attrs, error) { return f.Store.Put(ctx, b, name, r, o) }
	if f.put == nil {
		return put(r)
	}
	return f.put(name, r, put)
}

func (f *faulty) Open(ctx context.Context, b, name string, generation int64) (io.ReadCloser, bucket.Attrs, error) {
	body, attrs, err := f.Store.Open(ctx, b, name, generation)
	if err == nil && f.open != nil {
		body, err = f.open(name, body)
	}
	return body, attrs, err
}
