package files

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// uploaders is how many files are read and sent at a time.
const uploaders = 8

// Run uploads what stands below IN. Without watch it returns when every file has
// been uploaded, refused or found unchanged; with watch it goes on with new and
// changed files until ctx ends, and returns nil then. While MaxFiles or MaxBytes
// are uploaded and not finished, it waits for Done, Dead or Skipped. An error is
// a fault of the bucket or of IN itself. Run must be called once.
func (f *Files) Run(ctx context.Context, watch bool) error {
	if f.in == "" {
		f.scanOnce.Do(func() { close(f.scanned) })
		if watch {
			<-ctx.Done()
		}
		return nil
	}
	outer := ctx
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	jobs := make(chan job)
	for range uploaders {
		group.Go(func() error { return f.work(ctx, jobs, watch) })
	}
	group.Go(func() error { f.quiet.deliver(ctx, jobs); return nil })
	group.Go(func() error {
		if watch {
			return f.watch(ctx, jobs)
		}
		defer stop() // ends the others: there is nothing left to do
		if err := f.walk(ctx, ".", nil, jobs); err != nil {
			return err
		}
		f.scanOnce.Do(func() { close(f.scanned) })
		f.quiet.settle(ctx)
		return nil
	})
	err := group.Wait()
	if outer.Err() != nil {
		if watch {
			return nil
		}
		return fmt.Errorf("uploading: %w", outer.Err())
	}
	return err
}

func (f *Files) work(ctx context.Context, jobs <-chan job, watch bool) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-jobs:
			err := f.look(ctx, j, watch)
			f.quiet.done()
			if err != nil {
				return fmt.Errorf("uploading %q: %w", j.rel, err)
			}
		}
	}
}

// watch scans IN, and then whatever needs to be scanned again.
func (f *Files) watch(ctx context.Context, jobs chan<- job) error {
	w := newWatcher(f.o.tuning.watch, f.o.Log)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		f.listen(ctx, w)
	}()
	defer func() {
		if w.notify != nil {
			_ = w.notify.Close() // ends listen
		}
		<-heard
	}()

	if err := f.walk(ctx, ".", w, jobs); err != nil {
		return err
	}
	f.scanOnce.Do(func() { close(f.scanned) })
	poll := time.NewTicker(f.o.tuning.poll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.scans.wake:
		case <-poll.C:
			select {
			case <-w.blind:
				f.scans.request(".")
			default:
				continue
			}
		}
		for _, rel := range f.scans.take() {
			if err := f.walk(ctx, rel, w, jobs); err != nil {
				return err
			}
		}
	}
}
