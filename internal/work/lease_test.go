package work_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/bucket"
	"tidemill/internal/queue"
	"tidemill/internal/work"
)

const leasesKey = "tidemill:{default/" + pipe + "}:leases"

// expiry is when the one lease runs out, in ms of the queue's clock.
func (r *rig) expiry() float64 {
	r.Helper()
	members, err := r.mini.ZMembers(leasesKey)
	if err != nil || len(members) != 1 {
		r.Fatalf("leases %v, %v", members, err)
	}
	score, err := r.mini.ZScore(leasesKey, members[0])
	if err != nil {
		r.Fatal(err)
	}
	return score
}

func TestHeartbeatsOutlastTheLease(t *testing.T) {
	t.Parallel()
	r := newRig(t, "lease-duration", "5s")
	it := r.uploaded("in", "content")
	r.worker("w", untilGo+`: >"$TIDEMILL_OUTPUT/x"`, nil)
	r.awaitLeft("began")
	for range 2 { // 8 s of the queue's clock
		r.pass(4 * time.Second)
		want := float64(r.clock.Add(5 * time.Second).UnixMilli())
		r.await("a heartbeat", func() bool { return r.expiry() >= want })
	}
	r.leave("go")
	r.awaitState(it, queue.StateDone)
	if c := r.stats().Counters; c.Expired != 0 || r.left("began") != 1 {
		t.Errorf("counters %+v, and the command began %d times", c, r.left("began"))
	}
}

// The lease that is taken with an answer which announces a longer lease-duration
// is still the shorter one.
func TestANewLeaseDurationDoesNotLoseTheLeaseInHand(t *testing.T) {
	t.Parallel()
	r := newRig(t, "lease-duration", "5s")
	first := r.uploaded("first", "content")
	r.worker("w", `echo >>"$dir/began$TIDEMILL_OBJECT"; until [ -e "$dir/go$TIDEMILL_OBJECT" ]; do sleep 0.02; done`, nil)
	r.awaitLeft("beganfirst")
	r.accept("lease-duration", "1h")
	second := r.uploaded("second", "content")
	r.leave("gofirst")
	r.awaitState(first, queue.StateDone)
	r.awaitLeft("begansecond")
	want := float64(r.clock.Add(time.Hour).UnixMilli())
	r.await("a heartbeat within the shorter lease", func() bool { return r.expiry() >= want })
	r.leave("gosecond")
	r.awaitState(second, queue.StateDone)
}

func TestAZombieDoesNoHarm(t *testing.T) {
	t.Parallel()
	for _, io := range []string{"files", "stream"} {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "lease-duration", "5s", "io", io)
			it := r.uploaded("in", "content")
			out := `if [ -n "$TIDEMILL_OUTPUT" ]; then exec >"$TIDEMILL_OUTPUT/x"; fi; `
			r.worker("a", out+`echo from a; echo >>"$dir/began"; exec sleep 600`, nil)
			r.awaitLeft("began")
			r.pass(10 * time.Second)
			r.worker("b", out+`echo from b`, nil)
			r.awaitState(it, queue.StateDone)
			r.await("a to notice", func() bool { return r.logs.FilterMessageSnippet("the lease was lost").Len() > 0 })
			// a takes its next item as if nothing had been.
			next := r.upload("next", "content")
			r.enqueue(next)
			r.awaitState(next, queue.StateDone)
			for name, text := range r.results() {
				if strings.HasPrefix(name, "results/in") && text != "from b\n" {
					t.Errorf("%s is %q", name, text)
				}
			}
			if c := r.stats().Counters; c.Expired != 1 || c.Done != 2 || c.Retried+c.Buried+c.Deferred != 0 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

// gated is a queue whose heartbeats the test holds up.
type gated struct {
	queue.Consumer
	mu   sync.Mutex
	fail error
}

func (g *gated) set(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail = err
}

func (g *gated) Extend(ctx context.Context, worker string, d time.Duration, held []queue.Held) ([]queue.Held, error) {
	g.mu.Lock()
	err := g.fail
	g.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return g.Consumer.Extend(ctx, worker, d, held)
}

// A worker that has been late enough for its lease to go to another, which has
// finished, asks before it publishes.
func TestALateWorkerPublishesNothing(t *testing.T) {
	t.Parallel()
	for _, io := range []string{"files", "stream"} {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "io", io, "max-deliveries", "1") // a deferral would bury, and report
			it := r.uploaded("in", "content")
			r.worker("a", untilGo+`if [ -n "$TIDEMILL_OUTPUT" ]; then exec >"$TIDEMILL_OUTPUT/x"; fi; echo from a`, nil)
			r.awaitLeft("began")
			r.pass(2 * time.Minute)
			r.finish("b", r.lease("b"), queue.Done) // its results are somewhere else
			r.leave("go")
			r.await("a to notice", func() bool { return r.logs.FilterMessageSnippet("the lease was lost").Len() > 0 })
			got := r.objects("results/")
			delete(got, "results/in/x") // written before the manifest, and not valid without it
			if len(got) != 0 {
				t.Errorf("published: %v", got)
			}
			if reports := r.objects("failures/"); len(reports) != 0 {
				t.Errorf("reports: %v", reports)
			}
			if c := r.stats().Counters; c.Done != 1 || c.Buried+c.Deferred+c.Retried != 0 {
				t.Errorf("counters %+v of %s", c, it.ID())
			}
		})
	}
}

// A report of a failure is not written by somebody who has lost the lease.
func TestALateWorkerReportsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.uploaded("in", "content")
	r.worker("a", untilGo+`exit 65`, nil)
	r.awaitLeft("began")
	r.pass(2 * time.Minute)
	r.finish("b", r.lease("b"), queue.Done)
	r.leave("go")
	r.await("a to notice", func() bool { return r.logs.FilterMessageSnippet("the lease was lost").Len() > 0 })
	if reports := r.objects("failures/"); len(reports) != 0 {
		t.Errorf("reports: %v", reports)
	}
}

func TestUnreachableQueueEndsTheWorkWithTheLease(t *testing.T) {
	t.Parallel()
	for _, io := range []string{"files", "stream"} {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "lease-duration", "5s", "io", io)
			it := r.uploaded("in", "content")
			r.worker("w", `echo out; echo >>"$dir/began"; if [ "$(wc -l <"$dir/began")" = 1 ]; then trap 'echo >>"$dir/ended"; exit 0' TERM; while :; do sleep 0.02; done; fi`, nil)
			r.awaitLeft("began")
			r.mini.SetError("ERR the test says so")
			lost := time.Now()
			r.awaitLeft("ended")
			if d := time.Since(lost); d < time.Second {
				t.Errorf("the work ended after %s, long before the lease", d)
			}
			if left := r.objects("results/"); len(left) != 0 {
				t.Errorf("published: %v", left)
			}
			r.mini.SetError("")
			r.pass(time.Minute)
			r.awaitState(it, queue.StateDone)
			if c := r.stats().Counters; c.Expired != 1 || c.Done != 1 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

// A queue that is away for less than the lease, when the command ends, costs
// nothing of its work.
func TestAShortOutageBeforePublishingIsWaitedOut(t *testing.T) {
	t.Parallel()
	for _, io := range []string{"files", "stream"} {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "io", io)
			it := r.uploaded("in", "content")
			g := &gated{Consumer: r.q}
			failed := make(chan struct{}, 1000)
			r.worker("w", untilGo, func(c *work.Config) {
				c.Queue = g
				c.Reached = func(err error) {
					if err != nil {
						failed <- struct{}{}
					}
				}
			})
			r.awaitLeft("began")
			g.set(queue.ErrUnavailable)
			r.leave("go")
			for range 2 {
				select {
				case <-failed:
				case <-time.After(patience):
					t.Fatal("nobody asks whether the lease holds")
				}
			}
			g.set(nil)
			r.awaitState(it, queue.StateDone)
			if n := r.left("began"); n != 1 {
				t.Errorf("the command ran %d times", n)
			}
		})
	}
}

// The results stand, but the acknowledgement comes too late: whoever got the item
// finds them, and runs nothing.
func TestAnAcknowledgementThatComesTooLate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	it := r.uploaded("in", "content")
	var once sync.Once
	b := make(chan queue.Lease, 1)
	r.store.put = func(name string, body io.Reader, put func(io.Reader) (bucket.Attrs, error)) (bucket.Attrs, error) {
		attrs, err := put(body)
		if strings.Contains(name, "/.tidemill/") {
			once.Do(func() {
				r.pass(2 * time.Minute)
				b <- r.lease("b")
			})
		}
		return attrs, err
	}
	r.worker("a", `echo >>"$dir/ran"; echo >"$TIDEMILL_OUTPUT/x"`, nil)
	r.await("a to be refused", func() bool {
		return r.logs.FilterMessageSnippet("before the item could be acknowledged").Len() > 0
	})
	if v := r.finish("b", <-b, queue.Release); v != queue.Finished {
		t.Errorf("b's verdict is %v", v)
	}
	r.awaitState(it, queue.StateDone)
	if n := r.left("ran"); n != 1 {
		t.Errorf("the command ran %d times", n)
	}
	if diff := cmp.Diff(map[string]string{"results/in/x": "\n"}, r.results()); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}
