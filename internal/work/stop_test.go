package work_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/queue"
	"tidemill/internal/work"
)

func TestStopping(t *testing.T) {
	t.Parallel()
	const stubborn = `trap '' TERM; echo >>"$dir/began"; while :; do sleep 0.02; done`
	tests := map[string]struct {
		script string
		change func(*work.Config)
		act    func(r *rig, w *running)
		want   queue.Counters
	}{
		"in time": {
			script: untilGo,
			act:    func(r *rig, w *running) { w.stop(); r.leave("go") },
			want:   queue.Counters{Done: 1},
		},
		"failing in time": {
			script: untilGo + "exit 1",
			act:    func(r *rig, w *running) { w.stop(); r.leave("go") },
			want:   queue.Counters{Retried: 1},
		},
		"beyond the drain": {
			script: untilGo,
			change: func(c *work.Config) { c.Drain = 10 * time.Millisecond },
			act:    func(_ *rig, w *running) { w.stop() },
			want:   queue.Counters{Released: 1},
		},
		"beyond the drain, after the last delivery": {
			script: untilGo,
			change: func(c *work.Config) { c.Drain = 0 },
			act: func(r *rig, w *running) {
				r.accept("max-deliveries", "1", "max-attempts", "1")
				w.stop()
			},
			want: queue.Counters{Released: 1},
		},
		"beyond the drain and the grace": {
			script: stubborn,
			change: func(c *work.Config) { c.Drain, c.Command.Grace = time.Millisecond, 10*time.Millisecond },
			act:    func(_ *rig, w *running) { w.stop() },
			want:   queue.Counters{Released: 1},
		},
		"killed while it drains": {
			script: stubborn,
			act:    func(_ *rig, w *running) { w.stop(); w.kill() },
			want:   queue.Counters{Released: 1},
		},
		"killed": {
			script: stubborn,
			act:    func(_ *rig, w *running) { w.kill() },
			want:   queue.Counters{Released: 1},
		},
	}
	for name, tt := range tests {
		for _, io := range []string{"files", "stream"} {
			t.Run(name+"/"+io, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, "io", io, "retry-backoff", "1h..2h")
				it, other := r.uploaded("in", "content"), r.uploaded("other", "content")
				w := r.worker("w", tt.script, tt.change)
				r.awaitLeft("began")
				tt.act(r, w)
				if err := r.ended(w); err != nil {
					t.Errorf("Run = %v", err)
				}
				s := r.stats()
				tt.want.Enqueued, s.Counters.Busy = 2, 0
				if diff := cmp.Diff(tt.want, s.Counters); diff != "" {
					t.Errorf("counters (-want +got):\n%s", diff)
				}
				if s.Leased != 0 || s.Idle != 0 || r.record(other).State != queue.StateWaiting {
					t.Errorf("%+v after the stop; the other item is %s", s, r.record(other).State)
				}
				if tt.want.Released > 0 { // leasable at once, and nothing counted
					if l := r.lease("next"); l.Item.ID() != it.ID() || l.Attempt != 1 || l.Delivery != 1 {
						t.Errorf("leased %s, attempt %d, delivery %d", l.Item.ID(), l.Attempt, l.Delivery)
					}
				}
				if left := r.objects("failures/"); len(left) != 0 {
					t.Errorf("reports: %v", left)
				}
			})
		}
	}
}

func TestStoppingWhileIdle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.worker("w", "true", nil)
	r.await("the worker to be idle", func() bool { return r.stats().Idle == 1 })
	w.stop()
	if err := r.ended(w); err != nil {
		t.Errorf("Run = %v", err)
	}
	if s := r.stats(); s.Idle != 0 {
		t.Errorf("%+v: the worker did not sign off", s)
	}
}

func TestStoppingBeforeThereAreSettings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.mini.FlushAll()
	w := r.worker("w", "true", nil)
	r.await("the worker to say what it waits for", func() bool { return r.logs.FilterMessageSnippet("waiting for accepted settings").Len() > 0 })
	w.stop()
	if err := r.ended(w); err != nil {
		t.Errorf("Run = %v", err)
	}
	if got := w.readiness(); len(got) != 0 {
		t.Errorf("readiness %v", got)
	}
}

func TestStoppingWhileTheQueueIsAway(t *testing.T) {
	t.Parallel()
	for how, stop := range map[string]func(*running){
		"stop": func(w *running) { w.stop() },
		"kill": func(w *running) { w.kill() },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.uploaded("in", "content")
			w := r.worker("w", untilGo, func(c *work.Config) { c.Queue = &flaky{Consumer: r.q, fail: 1 << 30} })
			r.awaitLeft("began")
			stop(w)
			r.leave("go")
			began := time.Now()
			if err := r.ended(w); !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), "1 items not acknowledged") {
				t.Errorf("Run = %v", err)
			}
			if d := time.Since(began); how == "kill" && d > 9*time.Second {
				t.Errorf("a killed worker took %s", d)
			}
		})
	}
}

// flaky is a queue that does not answer some turns.
type flaky struct {
	queue.Consumer
	fail int
}

func (f *flaky) Turn(ctx context.Context, t queue.Turn) (queue.Turned, error) {
	turned, err := f.Consumer.Turn(ctx, t)
	if len(t.Completions) > 0 && f.fail > 0 {
		f.fail--
		return queue.Turned{}, errors.Join(queue.ErrUnavailable, err) // the answer is lost
	}
	return turned, err
}

func TestCompletionsSurviveLostAnswers(t *testing.T) {
	t.Parallel()
	for _, stopping := range []bool{false, true} {
		r := newRig(t)
		it := r.uploaded("in", "content")
		w := r.worker("w", untilGo, func(c *work.Config) { c.Queue = &flaky{Consumer: r.q, fail: 3} })
		r.awaitLeft("began")
		if stopping {
			w.stop()
		}
		r.leave("go")
		r.awaitState(it, queue.StateDone)
		if stopping {
			if err := r.ended(w); err != nil {
				t.Errorf("Run = %v", err)
			}
		}
		r.await("the worker to try again", func() bool { return r.logs.FilterMessageSnippet("trying again").Len() == 3 })
		if c := r.stats().Counters; c.Done != 1 || r.left("began") != 1 {
			t.Errorf("counters %+v", c)
		}
	}
}

func TestBarsAreReadiness(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.worker("w", "true", nil)
	idle := func() bool { return r.stats().Idle == 1 }
	r.await("the worker to be idle", idle)
	if _, err := r.q.Bar(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r.await("the worker to be unready", func() bool { return slices.Equal(w.readiness(), []bool{true, false}) })
	it := r.uploaded("in", "content")
	if s := r.stats(); s.Waiting != 1 {
		t.Errorf("%+v: a barred worker leased", s)
	}
	if err := r.q.Unbar(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.awaitState(it, queue.StateDone)
	if got := w.readiness(); !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("readiness %v", got)
	}
	r.await("the worker to be idle again", idle)
}

func TestSettingsAreFollowed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	script := `if [ -n "$TIDEMILL_OUTPUT" ]; then cp "$TIDEMILL_INPUT" "$TIDEMILL_OUTPUT/x"; else cat; fi`
	r.worker("w", script, nil)
	r.awaitState(r.uploaded("one", "1"), queue.StateDone)
	r.accept("io", "stream")
	r.awaitState(r.uploaded("two", "2"), queue.StateDone)
	r.accept("io", "neither") // a newer scaler's, say
	r.awaitState(r.uploaded("three", "3"), queue.StateDone)
	want := map[string]string{"results/one/x": "1", "results/two": "2", "results/three": "3"}
	if diff := cmp.Diff(want, r.results()); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if n := r.logs.FilterMessageSnippet("keeping the settings in force").Len(); n == 0 {
		t.Error("nobody says that settings were refused")
	}
}

func TestANewWorkerWaitsForSettingsThatItCanWorkWith(t *testing.T) {
	t.Parallel()
	r := newRig(t, "io", "stream")
	w := r.worker("w", "cat", func(c *work.Config) { c.Command.Argv = append(c.Command.Argv, "{input}") })
	it := r.uploaded("in", "content")
	r.await("a refusal", func() bool { return r.logs.FilterMessageSnippet("waiting for accepted settings").Len() > 0 })
	if len(w.readiness()) != 0 || r.record(it).State != queue.StateWaiting {
		t.Error("it works with a command that can't be run with these settings")
	}
	r.accept("io", "files")
	r.awaitState(it, queue.StateDone)
}
