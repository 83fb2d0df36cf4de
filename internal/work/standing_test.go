package work_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/result"
)

// marker is the name of what marks an object's results as complete.
func marker(io string, it item.Item) string {
	t := result.Template("gs://{bucket}/results/{object}")
	if io == "stream" {
		return t.Expand(it.Object).Name
	}
	return t.Manifest(it.Object).Name
}

func fence(it item.Item, seq int64) map[string]string {
	return result.FenceOf(it, queue.Token{Seq: seq, Nonce: "00000000"}).Metadata()
}

func TestWhatStandsBeforeTheCommandRuns(t *testing.T) {
	t.Parallel()
	const future = int64(1) << 52 // a token later than any
	other := item.Item{Object: item.Object{Bucket: bin, Name: "other", Generation: 1}}
	tests := map[string]struct {
		stands func(it item.Item) map[string]string // the marker's metadata
		state  queue.State
		runs   int
		reason string // of a dead letter, its start
		skips  int64
	}{
		"nothing of this object": {stands: func(item.Item) map[string]string { return map[string]string{"a": "b"} }, state: queue.StateDead, reason: "result-collision: "},
		"another object's":       {stands: func(item.Item) map[string]string { return fence(other, 1) }, state: queue.StateDead, reason: "result-collision: "},
		"this run's, earlier":    {stands: func(it item.Item) map[string]string { return fence(it, 1) }, state: queue.StateDone},
		"this run's, later":      {stands: func(it item.Item) map[string]string { return fence(it, future) }, state: queue.StateDone},
		"an older generation's": {stands: func(it item.Item) map[string]string {
			it.Generation--
			return fence(it, future)
		}, state: queue.StateDone, runs: 1},
		"a newer generation's": {stands: func(it item.Item) map[string]string {
			it.Generation++
			return fence(it, 1)
		}, state: queue.StateDone, skips: 1},
		"a later run's": {stands: func(it item.Item) map[string]string {
			it.Run++
			return fence(it, 1)
		}, state: queue.StateDone, skips: 1},
	}
	for name, tt := range tests {
		for _, io := range []string{"files", "stream"} {
			t.Run(name+"/"+io, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, "io", io)
				it := r.upload("in", "content")
				text := `{"version":1,"results":[]}`
				before := r.write(marker(io, it), text, tt.stands(it))
				r.enqueue(it)
				r.worker("w", `echo >>"$dir/ran"; echo result; [ "$TIDEMILL_OUTPUT" = "" ] || echo >"$TIDEMILL_OUTPUT/x"`, nil)
				reason := r.awaitState(it, tt.state)
				if !strings.HasPrefix(reason, tt.reason) || tt.reason == "" && reason != "" {
					t.Errorf("reason %q, want %q", reason, tt.reason)
				}
				if n := r.left("ran"); n != tt.runs {
					t.Errorf("the command ran %d times, want %d", n, tt.runs)
				}
				if c := r.stats().Counters; c.Skipped != tt.skips {
					t.Errorf("counters %+v, want %d skipped", c, tt.skips)
				}
				_, after := r.read(marker(io, it))
				if replaced := after.Generation != before.Generation; replaced != (tt.runs > 0) {
					t.Errorf("what stood there was replaced: %v", replaced)
				}
			})
		}
	}
}

func TestResultNamesOfOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	other := item.Item{Object: item.Object{Bucket: bin, Name: "other", Generation: 1}}
	for name, meta := range map[string]map[string]string{"not ours": nil, "another object's": fence(other, 1)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.write("results/in/x", "precious", meta)
			it := r.uploaded("in", "content")
			r.worker("w", `echo mine >"$TIDEMILL_OUTPUT/x"`, nil)
			if reason := r.awaitState(it, queue.StateDead); !strings.HasPrefix(reason, "result-collision: gs://tidemill/results/in/x ") {
				t.Errorf("reason %q", reason)
			}
			if diff := cmp.Diff(map[string]string{"results/in/x": "precious"}, r.objects("results/")); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
			if got := r.report(it); got.ExitCode == nil || *got.ExitCode != 0 || got.Attempts != 1 {
				t.Errorf("report %+v, want one of a run", got)
			}
		})
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	for _, io := range []string{"files", "stream"} {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "io", io)
			deleted, replaced := r.upload("deleted", "content"), r.upload("replaced", "content")
			if err := r.real.Delete(t.Context(), bin, "deleted", deleted.Generation); err != nil {
				t.Fatal(err)
			}
			newer := r.upload("replaced", "newer content")
			r.enqueue(deleted, replaced, newer)
			r.worker("w", `echo >>"$dir/ran"; cat >/dev/null`, nil)
			for _, it := range []item.Item{deleted, replaced, newer} {
				r.awaitState(it, queue.StateDone)
			}
			if c := r.stats().Counters; c.Skipped != 2 || c.Done != 1 || r.left("ran") != 1 {
				t.Errorf("%+v, and the command ran %d times; want two skipped and one done", c, r.left("ran"))
			}
			if left := r.objects("failures/"); len(left) != 0 {
				t.Errorf("reports: %v", left)
			}
		})
	}
}

func TestANewGenerationRemovesWhatItDoesNotHave(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	it := r.uploaded("in", "a b c")
	r.worker("w", `for f in $(cat "$TIDEMILL_INPUT"); do echo $TIDEMILL_GENERATION >"$TIDEMILL_OUTPUT/$f"; done`, nil)
	r.awaitState(it, queue.StateDone)
	foreign := r.write("results/in/c", "changed by hand", nil)
	it = r.uploaded("in", "b d")
	r.awaitState(it, queue.StateDone)
	got := r.results()
	if _, still := r.read("results/in/c"); still.Generation != foreign.Generation {
		t.Error("an object that is not a result any more was touched")
	}
	delete(got, "results/in/c")
	for name := range got {
		_, attrs := r.read(name)
		r.wantFence(attrs, it)
	}
	if len(got) != 2 || got["results/in/b"] == "" || got["results/in/d"] == "" {
		t.Errorf("results %v, want b and d", got)
	}
	if m, _ := r.manifest(it); len(m.Results) != 2 || m.Generation != it.Generation {
		t.Errorf("manifest %+v", m)
	}
}

// An older generation that is published while the newer one is being worked on
// leaves nothing behind: neither what it had published when it lost, nor what it
// had published before.
func TestAnOlderGenerationIsOvertaken(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		firstDone int // which of the two finishes first
		counters  queue.Counters
	}{
		"newer first": {1, queue.Counters{Enqueued: 2, Done: 1, Skipped: 1}},
		"older first": {0, queue.Counters{Enqueued: 2, Done: 2}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			script := `c=$(cat "$TIDEMILL_INPUT"); echo >>"$dir/began$c"; until [ -e "$dir/go$c" ]; do sleep 0.02; done; echo $c >"$TIDEMILL_OUTPUT/both"; echo >"$TIDEMILL_OUTPUT/alone$c"`
			var items []item.Item
			for _, content := range []string{"0", "1"} {
				items = append(items, r.uploaded("in", content))
				r.worker("w"+content, script, nil)
				r.awaitLeft("began" + content)
			}
			for _, i := range []int{tt.firstDone, 1 - tt.firstDone} {
				r.leave("go" + string(rune('0'+i)))
				r.awaitState(items[i], queue.StateDone)
			}
			want := map[string]string{"results/in/both": "1\n", "results/in/alone1": "\n"}
			if diff := cmp.Diff(want, r.results()); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
			counters := r.stats().Counters
			counters.Busy = 0
			if diff := cmp.Diff(tt.counters, counters); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
			if m, _ := r.manifest(items[1]); m.Generation != items[1].Generation {
				t.Errorf("the manifest is that of generation %d", m.Generation)
			}
		})
	}
}

// What a later holder of the same item wrote, after a loss of the queue's data
// and a step of its clock, say, does not make the item superseded.
func TestALaterTokenWithoutAManifestIsNotSuperseded(t *testing.T) {
	t.Parallel()
	r := newRig(t, "max-deliveries", "2")
	it := r.upload("in", "content")
	r.write("results/in/x", "half a set", fence(it, 1<<52))
	r.enqueue(it)
	r.worker("w", `echo mine >"$TIDEMILL_OUTPUT/x"`, nil)
	if reason := r.awaitState(it, queue.StateDead); !strings.Contains(reason, "a later holder") {
		t.Errorf("reason %q", reason)
	}
	if c := r.stats().Counters; c.Skipped != 0 || c.Deferred != 1 {
		t.Errorf("counters %+v", c)
	}
}

// Somebody writes between the look and the write.
func TestRacesAtTheStore(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"files", "stream"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "io", mode, "max-attempts", "1")
			it := r.upload("in", "content")
			older := it
			older.Generation--
			races := map[string]int{}
			// Three times, an older generation's write gets in between.
			r.store.put = func(name string, body io.Reader, put func(io.Reader) (bucket.Attrs, error)) (bucket.Attrs, error) {
				if races[name]++; races[name] <= 3 {
					r.write(name, `{"version":1,"results":[]}`, fence(older, 1))
				}
				return put(body)
			}
			r.enqueue(it)
			r.worker("w", `echo >>"$dir/ran"; cat; if [ -n "$TIDEMILL_OUTPUT" ]; then cp "$TIDEMILL_INPUT" "$TIDEMILL_OUTPUT/x"; fi`, nil)
			r.awaitState(it, queue.StateDone)
			want, runs := map[string]string{"results/in/x": "content"}, 1
			if mode == "stream" {
				want, runs = map[string]string{"results/in": "content"}, 4 // a stream is not put twice
			}
			if diff := cmp.Diff(want, r.results()); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
			if n := r.left("ran"); n != runs {
				t.Errorf("the command ran %d times, want %d", n, runs)
			}
			if c := r.stats().Counters; c.Retried != 0 || c.Buried != 0 {
				t.Errorf("counters %+v: a race at the store is not the command's failure", c)
			}
		})
	}
}

var errFault = errors.New("a fault for the test")

// broken yields some of the content, and then an error.
type broken struct {
	io.ReadCloser
	left int
}

func (b *broken) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errFault
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func TestFaultsOfTheStoreBurnNoAttempt(t *testing.T) {
	t.Parallel()
	type hook = func(r *rig, failures *int)
	tests := map[string]hook{
		"reading": func(r *rig, failures *int) {
			r.store.open = func(_ string, body io.ReadCloser) (io.ReadCloser, error) {
				if *failures++; *failures > 2 {
					return body, nil
				}
				return &broken{body, 3}, nil
			}
		},
		"writing, at once": func(r *rig, failures *int) {
			r.store.put = func(_ string, body io.Reader, put func(io.Reader) (bucket.Attrs, error)) (bucket.Attrs, error) {
				if *failures++; *failures > 2 {
					return put(body)
				}
				return bucket.Attrs{}, errFault
			}
		},
		"writing, in the end": func(r *rig, failures *int) {
			r.store.put = func(_ string, body io.Reader, put func(io.Reader) (bucket.Attrs, error)) (bucket.Attrs, error) {
				if *failures++; *failures > 2 {
					return put(body)
				}
				_, err := io.Copy(io.Discard, body)
				return bucket.Attrs{}, errors.Join(errFault, err)
			}
		},
		// The contract forbids it, but it must not hang the command.
		"writing, over too early": func(r *rig, failures *int) {
			r.store.put = func(_ string, body io.Reader, put func(io.Reader) (bucket.Attrs, error)) (bucket.Attrs, error) {
				if *failures++; *failures > 2 || r.keys["io"] == "files" {
					return put(body)
				}
				return bucket.Attrs{}, nil
			}
		},
		"denied": func(r *rig, failures *int) {
			r.store.open = func(_ string, body io.ReadCloser) (io.ReadCloser, error) {
				if *failures++; *failures > 2 {
					return body, nil
				}
				return nil, errors.Join(bucket.ErrDenied, body.Close())
			}
		},
	}
	content := strings.Repeat("more than a pipe can hold. ", 20_000)
	for name, arm := range tests {
		for _, mode := range []string{"files", "stream"} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, "io", mode, "max-attempts", "1")
				it := r.upload("in", content)
				failures := 0
				arm(r, &failures)
				r.enqueue(it)
				r.worker("w", `if [ -n "$TIDEMILL_OUTPUT" ]; then cp "$TIDEMILL_INPUT" "$TIDEMILL_OUTPUT/x"; else cat; fi`, nil)
				r.awaitState(it, queue.StateDone)
				if c := r.stats().Counters; c.Retried != 0 || c.Buried != 0 || c.Done != 1 {
					t.Errorf("counters %+v", c)
				}
				got := r.results()
				if len(got) != 1 || got["results/in"]+got["results/in/x"] != content {
					t.Errorf("%d results, or not the right content", len(got))
				}
			})
		}
	}
}
