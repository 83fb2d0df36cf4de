package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
	"tidemill/internal/local/files"
	"tidemill/internal/queue"
)

const (
	lookEvery = 50 * time.Millisecond
	// An object whose event has not arrived after this long is put into the queue
	// without it: the embedded bucket sends each event once, whatever happens.
	lostEventAfter = 3 * time.Second
	callTimeout    = 10 * time.Second
	takeTimeout    = 5 * time.Minute // one result set from the bucket to disk
	takeTries      = 3
)

// follower takes results over as items end, and shows progress.
type follower struct {
	*session
	unknown map[item.Object]time.Time // outstanding, not in the queue, since when
	ended   int64                     // items that had ended at the last look
	listed  int64                     // items that had been queued when the bucket was last listed
	looked  time.Time
	fail    func(error)

	mu     sync.Mutex
	taking map[item.Object]bool
	tries  map[item.Object]int // failed ones
	group  sync.WaitGroup
	slots  chan struct{}
}

// newFollower makes fail hear of what the run can't go on with.
func newFollower(s *session, fail func(error)) *follower {
	return &follower{
		session: s, fail: fail, unknown: map[item.Object]time.Time{},
		taking: map[item.Object]bool{}, tries: map[item.Object]int{}, slots: make(chan struct{}, 8),
	}
}

// follow returns true when everything is done (with --once), and false when ctx is.
func (f *follower) follow(ctx context.Context) bool {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
		complete := f.allUploaded() // before looking, so that nothing comes in between
		stats, err := f.look(ctx)
		if err != nil {
			if ctx.Err() == nil {
				f.console.Status(fmt.Sprintf("can't see the queue: %v", err))
			}
			continue
		}
		f.progress(stats)
		if f.once && complete && stats.Waiting+stats.Leased+stats.Delayed == 0 && len(f.files.Outstanding()) == 0 {
			return true
		}
	}
}

// last takes over what ended while the workers were leaving.
func (f *follower) last() {
	ctx, cancel := context.WithTimeout(context.Background(), takeTimeout)
	defer cancel()
	f.group.Wait() // what the end of the run cut off is taken up again
	f.ended = -1
	if _, err := f.look(ctx); err != nil {
		f.console.Say("could not see what was finished last: %v", err)
	}
	f.group.Wait()
}

// look reads the queue and, if items have ended, takes their results over.
func (f *follower) look(ctx context.Context) (queue.Stats, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stats, err := f.queue.Stats(call)
	if err != nil {
		return stats, err
	}
	if err := f.trackOthers(call, stats.Counters.Enqueued); err != nil {
		return stats, err
	}
	ended := stats.Counters.Done + stats.Counters.Skipped + stats.Counters.Buried
	if ended == f.ended && time.Since(f.looked) < time.Second {
		return stats, nil
	}
	f.ended, f.looked = ended, time.Now()
	return stats, f.takeOver(ctx)
}

// trackOthers finds objects that other clients uploaded.
func (f *follower) trackOthers(ctx context.Context, enqueued int64) error {
	c := f.files.Counts()
	if enqueued <= int64(c.Uploaded+c.Tracked) || enqueued == f.listed {
		return nil
	}
	f.listed = enqueued
	return f.store.List(ctx, localName, uploads, func(e bucket.Entry) error {
		f.files.Track(item.Object{Bucket: localName, Name: e.Name, Generation: e.Generation})
		return nil
	})
}

// takeOver ends the outstanding objects whose items have ended.
func (f *follower) takeOver(ctx context.Context) error {
	objects := f.files.Outstanding()
	ids := make([]item.ID, len(objects))
	for i, o := range objects {
		ids[i] = item.Item{Object: o}.ID()
	}
	records, err := f.queue.Lookup(ctx, ids)
	if err != nil {
		return err
	}
	var lost []item.Item
	unknown := map[item.Object]time.Time{}
	for i, o := range objects {
		switch records[i].State {
		case queue.StateDone, queue.StateDead:
			f.take(ctx, o, records[i])
		case queue.StateUnknown:
			since, ok := f.unknown[o]
			if !ok {
				since = time.Now()
			}
			if unknown[o] = since; time.Since(since) > lostEventAfter {
				// What the event would have told is asked of the bucket.
				attrs, err := f.store.Stat(ctx, o.Bucket, o.Name)
				if err == nil || errors.Is(err, bucket.ErrNotExist) { // then a worker skips it
					lost = append(lost, item.Item{Object: o, Size: attrs.Size, ContentType: attrs.ContentType})
				}
			}
		}
	}
	f.unknown = unknown
	if len(lost) > 0 {
		_, err = f.queue.Enqueue(ctx, lost)
	}
	return err
}

// take takes one result over in the background, a few at a time. What can't be
// taken over after some tries (a full disk, say) fails the run.
func (f *follower) take(ctx context.Context, o item.Object, r queue.Record) {
	f.mu.Lock()
	busy := f.taking[o]
	f.taking[o] = true
	f.mu.Unlock()
	if busy {
		return
	}
	f.group.Go(func() {
		f.slots <- struct{}{}
		defer func() { <-f.slots }()
		ctx, cancel := context.WithTimeout(ctx, takeTimeout)
		defer cancel()
		err := f.end(ctx, o, r)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.taking, o)
		if err == nil || errors.Is(err, files.ErrNotMirrored) || errors.Is(err, context.Canceled) {
			return
		}
		if f.tries[o]++; f.tries[o] >= takeTries {
			f.fail(err)
		}
	})
}

func (f *follower) end(ctx context.Context, o item.Object, r queue.Record) error {
	if r.State == queue.StateDead {
		report, err := f.files.Dead(ctx, o)
		switch {
		case errors.Is(err, bucket.ErrNotExist):
			// The worker could not write it; the queue holds the reason.
			f.files.Unreported(ctx, o)
			f.console.Say("failed: %q: %s", o.Name[len(uploads):], r.Reason)
		case err != nil:
			return err
		case report.Reason != "": // empty: it had been taken over already
			f.console.Say("failed: %q after %s: %s", o.Name[len(uploads):], amount(report.Attempts, "attempt"), report.Reason)
		}
		return nil
	}
	err := f.files.Done(ctx, o)
	if errors.Is(err, bucket.ErrNotExist) {
		f.files.Skipped(ctx, o) // it was gone before its turn
		return nil
	}
	return err
}

func (f *follower) progress(s queue.Stats) {
	c := f.files.Counts()
	status := fmt.Sprintf("%s · %d waiting · %d in work · %d retrying · %d done · %d failed",
		amount(f.fleet.Running(), "worker"), s.Waiting, s.Leased, s.Delayed, c.Done, c.Dead)
	if c.Unchanged > 0 {
		status += fmt.Sprintf(" · %d unchanged", c.Unchanged)
	}
	f.console.Status(status)
}
