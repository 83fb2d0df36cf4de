package files

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQuiet(200 * time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		jobs := make(chan job)
		start := time.Now()
		var got []string
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			q.deliver(ctx, jobs)
		}()
		go func() {
			for {
				select {
				case j := <-jobs:
					got = append(got, fmt.Sprintf("%s at %s", j.rel, time.Since(start)))
					q.done()
				case <-ctx.Done():
					return
				}
			}
		}()
		// A large copy: it is heard of all the time, and must hold up nobody.
		q.touch(job{rel: "copied"})
		for i := range 10 {
			<-time.After(100 * time.Millisecond)
			q.touch(job{rel: "copied"})
			if i == 3 {
				q.touch(job{rel: "small"})
			}
		}
		q.settle(ctx)
		stop()
		<-ended
		synctest.Wait()
		if diff := cmp.Diff([]string{"small at 600ms", "copied at 1.2s"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestQuietIsBounded(t *testing.T) {
	t.Parallel()
	q := newQuiet(time.Hour)
	for i := range maxWaiting {
		if !q.touch(job{rel: fmt.Sprint(i)}) {
			t.Fatalf("refused number %d", i)
		}
	}
	if q.touch(job{rel: "one more"}) {
		t.Error("took one more")
	}
	if !q.touch(job{rel: "7"}) {
		t.Error("refused one that it has")
	}
	q.again(job{rel: "must not be lost"})
	if len(q.waiting) != maxWaiting+1 {
		t.Errorf("%d wait", len(q.waiting))
	}
}
