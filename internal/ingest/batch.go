package ingest

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

// A batch is what has come in while the one before was on its way, so that
// batches grow with the load and a lone event does not wait.
const maxBatch = 500

var (
	errClosed     = errors.New("ingest is stopping")
	errNoSettings = errors.New("none have ever been accepted")
)

type request struct {
	item item.Item
	done chan answer
}

type answer struct {
	added queue.Added
	err   error
}

// batcher enqueues into one pipeline's queue.
type batcher struct {
	bridge *Bridge
	queue  queue.Producer
	in     chan request
}

// add returns when the item is in the queue, or known there.
func (t *batcher) add(ctx context.Context, it item.Item) (queue.Added, error) {
	r := request{item: it, done: make(chan answer, 1)}
	select {
	case t.in <- r:
	case <-t.bridge.life.Done():
		return 0, errClosed
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	select {
	case a := <-r.done:
		return a.added, a.err
	case <-t.bridge.life.Done(): // the call may go on for a while; its outcome is not needed
		return 0, errClosed
	}
}

func (t *batcher) run() {
	for {
		var batch []request
		select {
		case r := <-t.in:
			batch = append(batch, r)
		case <-t.bridge.life.Done():
			return
		}
	more:
		for len(batch) < maxBatch {
			select {
			case r := <-t.in:
				batch = append(batch, r)
			default:
				break more
			}
		}
		t.enqueue(batch)
	}
}

// enqueue tries until it succeeds or the bridge closes.
func (t *batcher) enqueue(batch []request) {
	items := make([]item.Item, len(batch))
	for i, r := range batch {
		items[i] = r.item
	}
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(t.bridge.life, callTimeout)
		began := time.Now()
		added, err := t.queue.Enqueue(ctx, items)
		cancel()
		if err == nil || t.bridge.life.Err() == nil { // a call that Close cut short says nothing
			t.bridge.Reached(err)
		}
		if err == nil {
			t.bridge.Metrics.enqueueSeconds.Observe(time.Since(began).Seconds())
			for i, r := range batch {
				r.done <- answer{added: added[i]}
			}
			return
		}
		if try == 0 {
			t.bridge.Log.Warn("the queue takes no items; receiving waits for it", zap.Int("items", len(items)), zap.Error(err))
		}
		d := min(5*time.Second, 100*time.Millisecond<<min(try, 6))
		timer := time.NewTimer(d/2 + rand.N(d/2))
		select {
		case <-t.bridge.life.Done():
			timer.Stop()
			for _, r := range batch {
				r.done <- answer{err: errClosed}
			}
			return
		case <-timer.C:
		}
	}
}
