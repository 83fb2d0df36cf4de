package files

import (
	"context"
	"errors"
	"fmt"
	"io"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
	"tidemill/internal/result"
)

// stored names one generation of an object in the bucket.
type stored struct {
	bucket, name string
	generation   int64
}

// part is one file of a result set.
type part struct {
	at   stored
	path string // below OUT, unchecked
	size int64
	sum  uint32 // CRC32C
}

// set is a result set as the bucket holds it.
type set struct {
	generation int64 // of the object it was made from
	parts      []part
	objects    []stored // all that it has in the bucket
	bytes      int64
}

// fetch finds the result set that stands for an object.
func (f *Files) fetch(ctx context.Context, obj item.Object) (set, error) {
	if f.o.Mode == ModeStream {
		return f.fetchStream(ctx, obj)
	}
	return f.fetchFiles(ctx, obj)
}

func (f *Files) fetchStream(ctx context.Context, obj item.Object) (set, error) {
	at := f.o.Results.Expand(obj)
	attrs, err := f.o.Store.Stat(ctx, at.Bucket, at.Name)
	if err != nil {
		return set{}, err
	}
	fence, ok := result.FenceFrom(attrs.Metadata)
	if !ok || fence.Source != obj.Path() {
		return set{}, fmt.Errorf("%s is not a result of %s", at, obj.Path())
	}
	o := stored{at.Bucket, at.Name, attrs.Generation}
	return set{
		generation: fence.Generation,
		parts:      []part{{at: o, path: f.rel(obj), size: attrs.Size, sum: attrs.CRC32C}},
		objects:    []stored{o},
		bytes:      attrs.Size,
	}, nil
}

func (f *Files) fetchFiles(ctx context.Context, obj item.Object) (set, error) {
	at := f.o.Results.Manifest(obj)
	r, attrs, err := f.o.Store.Open(ctx, at.Bucket, at.Name, 0)
	if err != nil {
		return set{}, fmt.Errorf("the manifest of the results: %w", err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return set{}, fmt.Errorf("the manifest of the results: %w", err)
	}
	m, err := result.ParseManifest(data)
	if err != nil {
		return set{}, fmt.Errorf("%s: %w", at, err)
	}
	if source := (result.Location{Bucket: obj.Bucket, Name: obj.Name}).String(); m.Source != source {
		return set{}, fmt.Errorf("%s is the manifest of %s, not of %s", at, m.Source, source)
	}
	s := set{
		generation: m.Generation,
		objects:    []stored{{at.Bucket, at.Name, attrs.Generation}},
		bytes:      attrs.Size,
	}
	for _, file := range m.Results {
		l := f.o.Results.File(obj, file.Path)
		o := stored{l.Bucket, l.Name, file.Generation}
		s.parts = append(s.parts, part{at: o, path: f.rel(obj) + "/" + file.Path, size: file.Size, sum: file.CRC32C})
		s.objects = append(s.objects, o)
		s.bytes += file.Size
	}
	return s, nil
}

// finished is what an ended object has in the bucket.
type finished struct {
	rel     string
	objects []stored // the source first
	bytes   int64
}

// evict adds to what is kept of ended objects and removes the oldest of it past
// MaxFiles and MaxBytes: the embedded bucket lives in memory. What can't be
// removed stays; it has been replaced, mostly.
func (f *Files) evict(ctx context.Context, last finished) {
	var old []finished
	f.mu.Lock()
	f.finished = append(f.finished, last)
	f.kept += last.bytes
	for len(f.finished) > f.o.MaxFiles || f.kept > f.o.MaxBytes && len(f.finished) > 1 {
		o := f.finished[0]
		f.finished[0] = finished{}
		f.finished = f.finished[1:]
		f.kept -= o.bytes
		old = append(old, o)
	}
	f.mu.Unlock()
	for _, o := range old {
		for i, s := range o.objects {
			err := f.o.Store.Delete(ctx, s.bucket, s.name, s.generation)
			if err != nil && !errors.Is(err, bucket.ErrPrecondition) && ctx.Err() == nil {
				f.o.Log(fmt.Sprintf("removing gs://%s/%s from the bucket: %v", s.bucket, s.name, err))
			}
			if i > 0 || err != nil {
				continue
			}
			f.mu.Lock()
			if r := f.of(o.rel); r.stored == s.generation {
				r.stored = 0
			}
			f.mu.Unlock()
		}
	}
}
