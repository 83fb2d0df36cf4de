package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

func TestHandle(t *testing.T) {
	t.Parallel()
	with := func(attrs map[string]string, key, value string) map[string]string {
		attrs[key] = value
		return attrs
	}
	tests := map[string]struct {
		attrs   map[string]string
		outcome string
		queued  int64
	}{
		"queued":           {event("a/x", 1), "queued", 1},
		"duplicate":        {event("a/known", 1), "duplicate", 0},
		"newer generation": {event("a/known", 2), "queued", 1},
		"unmatched":        {event("b/x", 1), "unmatched", 0},
		"another bucket":   {with(event("a/x", 1), "bucketId", "other"), "unmatched", 0},
		"own result":       {event("results/a/x", 1), "unmatched", 0},
		"placeholder":      {event("a/folder/", 1), "placeholder", 0},
		"not a finalize":   {with(event("a/x", 1), "eventType", "OBJECT_DELETE"), "other", 0},
		"unknown event":    {with(event("a/x", 1), "eventType", "OBJECT_EXPLODE"), "unknown", 0},
		"no notification":  {map[string]string{"hello": "world"}, "rejected", 0},
		"hostile name":     {event("a/\r\nb", 1), "rejected", 0},
		"generation zero":  {event("a/x", 0), "rejected", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.ready()
			known := item.Item{Object: item.Object{Bucket: "tides", Name: "a/known", Generation: 1}}
			if _, err := r.server.Queue("a").Enqueue(t.Context(), []item.Item{known}); err != nil {
				t.Fatal(err)
			}
			if !r.handle(tt.attrs) {
				t.Error("not acknowledged")
			}
			if diff := cmp.Diff(map[string]int{tt.outcome: 1}, r.outcomes()); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			if s := r.stats("a"); s.Waiting != 1+tt.queued {
				t.Errorf("%d items wait, want %d", s.Waiting, 1+tt.queued)
			}
		})
	}
}

func TestItemsKeepWhatTheEventSays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ready()
	attrs := event("a/x", 7)
	attrs["payloadFormat"] = "JSON_API_V1"
	attrs["googclient_traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	payload := `{"name":"a/x","bucket":"tides","generation":"7","contentType":"image/tiff","size":"1234"}`
	if !r.bridge.Handle(t.Context(), "id", attrs, []byte(payload)) {
		t.Fatal("not acknowledged")
	}
	turned, err := r.server.Queue("a").Turn(t.Context(), queue.Turn{Worker: "w", Want: 1, Lease: time.Minute})
	if err != nil || len(turned.Leases) != 1 {
		t.Fatalf("Turn = %+v, %v", turned, err)
	}
	want := item.Item{
		Object: item.Object{Bucket: "tides", Name: "a/x", Generation: 7}, Size: 1234, ContentType: "image/tiff",
		Traceparent: attrs["googclient_traceparent"],
	}
	if diff := cmp.Diff(want, turned.Leases[0].Item); diff != "" {
		t.Errorf("item (-want +got):\n%s", diff)
	}
}

func TestSettingsComeFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if r.handle(event("a/x", 1)) {
		t.Error("acknowledged, though nobody knows which pipelines there are")
	}
	waited := make(chan error, 1)
	go func() { waited <- r.bridge.AwaitSettings(t.Context()) }()
	r.await("it to say what it waits for", func() bool { return r.logs.FilterMessageSnippet("waiting for accepted settings").Len() == 1 })
	r.mini.SetError("ERR the test says so")
	r.await("it to say what is new", func() bool { return r.logs.FilterMessageSnippet("waiting for accepted settings").Len() == 2 })
	r.mini.SetError("")
	select {
	case err := <-waited:
		t.Fatalf("AwaitSettings = %v without settings", err)
	default:
	}
	r.accept() // none at all is an answer, too
	select {
	case err := <-waited:
		if err != nil {
			t.Fatalf("AwaitSettings = %v", err)
		}
	case <-time.After(patience):
		t.Fatal("AwaitSettings does not return")
	}
	if !r.handle(event("a/x", 1)) || r.outcomes()["unmatched"] != 1 {
		t.Errorf("outcomes %v", r.outcomes())
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if err := newRig(t).bridge.AwaitSettings(ctx); !errors.Is(err, why) {
		t.Errorf("AwaitSettings = %v, want the cause of the context", err)
	}
}

func TestSettingsAreFollowed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ready()
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { r.bridge.FollowSettings(ctx) })
	defer following.Wait()
	defer cancel()
	if !r.handle(event("b/1", 1)) || r.outcomes()["unmatched"] != 1 {
		t.Fatalf("outcomes %v", r.outcomes())
	}
	r.accept("a", "b")
	generation := 1
	r.await("the new pipeline to take objects", func() bool {
		generation++
		return r.handle(event("b/1", generation)) && r.stats("b").Waiting > 0
	})
	// What this version can't read does not replace what it could.
	if _, err := r.server.Accept(t.Context(), map[string]map[string]string{"a": {"bucket": "tides", "of-the-future": "1"}}); err != nil {
		t.Fatal(err)
	}
	r.await("a warning", func() bool { return r.logs.FilterMessageSnippet("those in force stay").Len() > 0 })
	if !r.handle(event("b/2", 1)) || r.outcomes()["queued"] < 2 {
		t.Errorf("outcomes %v", r.outcomes())
	}
}

func TestNothingIsAcknowledgedWhileTheQueueIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ready()
	r.mini.SetError("LOADING Redis is loading the dataset in memory")
	var waiting []<-chan bool
	for i := range 20 {
		waiting = append(waiting, r.handling(fmt.Sprintf("a/%d", i), 1))
	}
	r.await("tries", func() bool { return r.failures() >= 2 })
	if got := r.outcomes(); len(got) != 0 {
		t.Errorf("outcomes %v while the queue is down", got)
	}
	for _, done := range waiting {
		select {
		case acked := <-done:
			t.Fatalf("Handle = %v while the queue is down", acked)
		default:
		}
	}
	// Acknowledging is what other messages may do.
	if !r.handle(event("elsewhere/x", 1)) {
		t.Error("an unmatched message waits for the queue")
	}
	r.mini.SetError("")
	for _, done := range waiting {
		if !r.answer(done) {
			t.Error("not acknowledged after the queue is back")
		}
	}
	if s := r.stats("a"); s.Waiting != 20 {
		t.Errorf("%d items wait, want 20", s.Waiting)
	}
}

// The server dies for good in the midst of many events: exactly what was
// acknowledged by then is in the queue.
func TestAcknowledgedMeansQueued(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ready()
	calls := 0
	r.before = func() { // one batcher, so one goroutine
		if calls++; calls == 4 {
			r.mini.SetError("OOM command not allowed when used memory > 'maxmemory'.")
		}
	}
	const events = 200
	acked := make(chan string, events)
	handle := func(i int) {
		name := fmt.Sprintf("a/%d", i)
		if r.handle(event(name, 1)) {
			acked <- name
		}
	}
	var all sync.WaitGroup
	for i := range events {
		if i < 3 { // a call each
			handle(i)
		} else {
			all.Go(func() { handle(i) })
		}
	}
	r.await("a failure", func() bool { return r.failures() > 0 })
	r.bridge.Close()
	all.Wait()
	close(acked)
	r.mini.SetError("")
	known := map[string]bool{}
	for name := range acked {
		known[name] = true
		records, err := r.server.Queue("a").Lookup(t.Context(), []item.ID{item.ID("tides/" + name + "#1")})
		if err != nil || records[0].State != queue.StateWaiting {
			t.Errorf("%s was acknowledged and is %+v, %v", name, records, err)
		}
	}
	got := r.outcomes()
	if len(known) == 0 || len(known) == events || got["queued"] != len(known) || got["returned"] != events-len(known) {
		t.Errorf("%d of %d acknowledged, outcomes %v", len(known), events, got)
	}
}

func TestCloseReturnsWhatWaits(t *testing.T) {
	t.Parallel()
	tests := map[string]func(r *rig, release <-chan struct{}){
		"between tries": func(r *rig, _ <-chan struct{}) { r.mini.SetError("ERR the test says so") },
		"in a call": func(r *rig, release <-chan struct{}) { // the server accepts, and does not answer
			r.mini.Server().SetPreHook(func(*server.Peer, string, ...string) bool { <-release; return false })
		},
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.ready()
			release := make(chan struct{})
			fault(r, release)
			first := r.handling("a/1", 1)
			r.await("a call", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.calls["a"] > 0
			})
			second := r.handling("a/2", 1)
			began := time.Now()
			var closing sync.WaitGroup
			closing.Go(r.bridge.Close)
			defer closing.Wait()
			defer close(release)
			if r.answer(first) || r.answer(second) {
				t.Error("acknowledged, though not queued")
			}
			if d := time.Since(began); d > 9*time.Second {
				t.Errorf("they were returned after %s", d)
			}
			for _, attrs := range []map[string]string{event("a/3", 1), event("a/1", 1)} {
				if r.handle(attrs) {
					t.Error("acknowledged after Close")
				}
			}
			if got := r.outcomes(); got["returned"] != 4 {
				t.Errorf("outcomes %v", got)
			}
		})
	}
}

func TestEventsThatComeTogetherAreQueuedTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.accept("a", "b")
	if err := r.bridge.AwaitSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	const events = 1200
	entered, open := make(chan struct{}, events), make(chan struct{})
	r.before = func() { entered <- struct{}{}; <-open }
	var waiting []<-chan bool
	first := r.handling("a/first", 1)
	<-entered // its batch is on its way, and everything else comes meanwhile
	for i := range events {
		waiting = append(waiting, r.handling(fmt.Sprintf("a/%d", i%1000), 1)) // some twice
	}
	other := r.handling("b/x", 1)
	<-entered // another pipeline does not wait for the first
	close(open)
	for _, done := range append(waiting, first, other) {
		if !r.answer(done) {
			t.Error("not acknowledged")
		}
	}
	if got := r.outcomes(); got["queued"] != 1002 || got["duplicate"] != 200 {
		t.Errorf("outcomes %v", got)
	}
	if s := r.stats("a"); s.Waiting != 1001 {
		t.Errorf("%d items wait", s.Waiting)
	}
	if r.calls["a"] > events/4 {
		t.Errorf("%d calls for %d events", r.calls["a"], events)
	}
}

func TestACanceledMessageIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ready()
	entered, open := make(chan struct{}, 10), make(chan struct{})
	r.before = func() { entered <- struct{}{}; <-open }
	first := r.handling("a/first", 1)
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan bool, 1)
	go func() { second <- r.bridge.Handle(ctx, "id", event("a/second", 1), nil) }()
	cancel()
	if r.answer(second) {
		t.Error("acknowledged")
	}
	close(open)
	if !r.answer(first) {
		t.Error("the other one was not")
	}
}

func TestRejectedMessagesAreLoggedWithTheirReason(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.ready()
	if !r.bridge.Handle(t.Context(), "message-7", event("a/x", -3), nil) {
		t.Error("not acknowledged")
	}
	entries := r.logs.FilterMessageSnippet("not an object notification").All()
	if len(entries) != 1 || entries[0].ContextMap()["message"] != "message-7" ||
		!strings.Contains(fmt.Sprint(entries[0].ContextMap()["error"]), "objectGeneration") {
		t.Errorf("logged %v", entries)
	}
}
