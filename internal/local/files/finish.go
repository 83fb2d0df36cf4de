package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
	"tidemill/internal/result"
)

// Done mirrors the results of an object that is finished, notes it in the
// journal and gives back its budget. When a newer generation's results stand
// already, it counts as skipped. An object that is not outstanding is ignored.
//
// After ErrNotMirrored (which names what is wrong, and is reported and counted
// as refused) the object has ended. After any other error it is still
// outstanding: Done may be called again.
func (f *Files) Done(ctx context.Context, obj item.Object) error {
	u := f.claim(obj)
	if u == nil {
		return nil
	}
	s, how, err := f.mirror(ctx, u)
	if err != nil && !errors.Is(err, ErrNotMirrored) {
		f.unclaim(u)
		return fmt.Errorf("taking over the result of %q: %w", u.rel, err)
	}
	f.settle(ctx, u, how, s.objects, s.bytes)
	if err != nil {
		f.o.Refused(u.rel, err)
		return fmt.Errorf("taking over the result of %q: %w", u.rel, err)
	}
	return nil
}

// Dead mirrors the failure report of an object that is a dead letter to OUT's
// bookkeeping folder, and returns it. What an earlier version left in OUT stays.
// An object that is not outstanding is ignored. After an error it is still
// outstanding.
func (f *Files) Dead(ctx context.Context, obj item.Object) (result.Report, error) {
	u := f.claim(obj)
	if u == nil {
		return result.Report{}, nil
	}
	report, objects, err := f.fail(ctx, u)
	if err != nil {
		f.unclaim(u)
		return report, fmt.Errorf("taking over the failure report of %q: %w", u.rel, err)
	}
	f.settle(ctx, u, isDead, objects, 0)
	return report, nil
}

// Skipped ends an object that no worker had to process: it was superseded or
// deleted. An object that is not outstanding is ignored.
func (f *Files) Skipped(ctx context.Context, obj item.Object) {
	if u := f.claim(obj); u != nil {
		f.settle(ctx, u, isSkipped, nil, 0)
	}
}

// settle ends a claimed object. Of ours, what it has in the bucket is kept for a
// while and then removed.
func (f *Files) settle(ctx context.Context, u *upload, how outcome, objects []stored, bytes int64) {
	f.mu.Lock()
	f.end(f.of(u.rel), u, how)
	f.mu.Unlock()
	if u.outside() {
		return
	}
	source := stored{u.obj.Bucket, u.obj.Name, u.obj.Generation}
	f.evict(ctx, finished{
		rel:     u.rel,
		objects: append([]stored{source}, objects...), // the source first: without it, no worker starts again
		bytes:   bytes + u.size,
	})
}

// name locks a path: only one result of it is written at a time.
func (f *Files) name(rel string) *sync.Mutex {
	return &f.names[maphash.String(f.seed, rel)%uint64(len(f.names))]
}

// mirror writes the results of a claimed object to OUT.
func (f *Files) mirror(ctx context.Context, u *upload) (set, outcome, error) {
	lock := f.name(u.rel)
	lock.Lock()
	defer lock.Unlock()
	if f.superseded(u) {
		return set{}, isSkipped, nil
	}
	// The set may be replaced while it is read: by a worker that was thought
	// lost, or because there is a newer generation of the object.
	const tries = 5
	var s set
	for try := 1; ; try++ {
		var err error
		s, err = f.fetch(ctx, u.obj)
		if err != nil {
			return s, isRefused, err
		}
		if s.generation > u.obj.Generation {
			return set{}, isSkipped, nil
		}
		if s.generation < u.obj.Generation {
			return s, isRefused, fmt.Errorf("the results that stand are of generation %d, not of %d", s.generation, u.obj.Generation)
		}
		err = f.write(ctx, u, s)
		switch {
		case err == nil:
			return s, isDone, nil
		case errors.Is(err, bucket.ErrNotExist) && try < tries:
			continue
		case errors.Is(err, ErrNotMirrored) && !u.outside() && f.gone(u.rel):
			// The file has made room for what stands where its result would go.
			f.o.Log(fmt.Sprintf("the result of %q is dropped: the file is gone, and %v", u.rel, err))
			return s, isSkipped, nil
		}
		return s, isRefused, err
	}
}

// fail reads the failure report of a claimed object and writes it to OUT.
func (f *Files) fail(ctx context.Context, u *upload) (result.Report, []stored, error) {
	lock := f.name(u.rel)
	lock.Lock()
	defer lock.Unlock()
	var report result.Report
	at := f.o.Failures.Report(u.obj)
	r, attrs, err := f.o.Store.Open(ctx, at.Bucket, at.Name, 0)
	if err != nil {
		return report, nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return report, nil, err
	}
	if err := json.Unmarshal(data, &report); err != nil {
		return report, nil, fmt.Errorf("%s: %w", at, err)
	}
	objects := []stored{{at.Bucket, at.Name, attrs.Generation}}
	if f.out == nil || report.Generation != u.obj.Generation || f.superseded(u) {
		return report, objects, nil
	}
	if err := f.out.checkPath(u.rel); err != nil {
		f.o.Log(fmt.Sprintf("the failure report stays in the bucket, as %s: %v", at, err))
		return report, objects, nil
	}
	return report, objects, f.out.saveReport(u.rel, data)
}
