package work

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.uber.org/zap"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
	"tidemill/internal/result"
)

var (
	errFenced = errors.New("results of a newer generation or run stand")
	// errOutrun is not the same: what a later holder wrote of this very item need
	// not be complete, so that the item must not be taken for superseded.
	errOutrun = errors.New("a later holder of this item has written there")
	errGone   = errors.New("the object is gone")
)

const (
	// Manifests are far smaller, but for sets of a million files.
	maxManifest = 512 << 20

	metaKind   = "tidemill-kind"
	kindReport = "failure-report"
)

// opener gives a result's content afresh, so that a write can be tried again.
type opener func() (r io.ReadCloser, size int64, err error)

// standing describes what stands under a result name.
type standing struct {
	bucket.Attrs // Generation 0: nothing stands there
	fence        result.Fence
}

// look reads what stands at l and holds it against this job's fence: errFenced
// or errOutrun if it is newer, a permanent error if it is another object's or not
// ours at all.
func (j *job) look(ctx context.Context, l result.Location) (standing, error) {
	attrs, err := j.Store.Stat(ctx, l.Bucket, l.Name)
	if errors.Is(err, bucket.ErrNotExist) {
		return standing{}, nil
	}
	if err != nil {
		return standing{}, err
	}
	f, ok := result.FenceFrom(attrs.Metadata)
	switch {
	case !ok:
		return standing{}, &permanentError{fmt.Sprintf("result-collision: %s exists and was not written by Tidemill", l)}
	case f.Source != j.fence.Source:
		return standing{}, &permanentError{fmt.Sprintf("result-collision: %s is a result of gs://%s", l, f.Source)}
	}
	there := standing{Attrs: attrs, fence: f}
	switch {
	case !j.fence.Less(f):
		return there, nil
	case there.sameWork(j.fence):
		return there, errOutrun
	}
	return there, errFenced
}

// sameWork reports whether what stands there comes from the generation and run
// of f, whoever held the lease.
func (s standing) sameWork(f result.Fence) bool {
	return s.Generation != 0 && s.fence.Generation == f.Generation && s.fence.Run == f.Run
}

// write is one object to be put under the fence.
type write struct {
	result.Location
	contentType string
	kind        string // empty for a result
	open        opener
	// replacing is called with what the write is about to replace; it may be nil.
	replacing func(context.Context, standing) error
}

// put first supposes that nothing stands there, which is the common case and
// saves a round trip.
func (j *job) put(ctx context.Context, w write) (bucket.Attrs, error) {
	meta := j.fence.Metadata()
	if w.kind != "" {
		meta[metaKind] = w.kind
	}
	replaces := int64(0)
	for try := 0; ; try++ {
		r, size, err := w.open()
		if err != nil {
			return bucket.Attrs{}, err
		}
		attrs, err := j.Store.Put(ctx, w.Bucket, w.Name, r, bucket.PutOptions{
			Replaces: replaces, ContentType: w.contentType, Metadata: meta, Size: size,
		})
		_ = r.Close() // it was only read
		if !errors.Is(err, bucket.ErrPrecondition) || try == 4 {
			return attrs, err
		}
		there, err := j.look(ctx, w.Location)
		if err == nil && there.Generation != 0 && w.replacing != nil {
			err = w.replacing(ctx, there)
		}
		if err != nil {
			return bucket.Attrs{}, err
		}
		replaces = there.Generation
	}
}

// checkName refuses a result name that can't or must not be written.
func (j *job) checkName(l result.Location) error {
	if err := item.CheckName(l.Name); err != nil {
		return &permanentError{fmt.Sprintf("result-name: %.200q: %v", l.Name, err)}
	}
	reserved := j.settings.Results.ReservedFolder(j.lease.Item.Bucket)
	if l.Bucket == reserved.Bucket && strings.HasPrefix(l.Name, reserved.Name) {
		return &permanentError{fmt.Sprintf("result-collision: %.200q is in the reserved folder %s", l.Name, reserved)}
	}
	return nil
}

// before looks at what marks the result set as complete. stands means that it is
// this very generation's and run's, so that there is nothing left to do.
func (j *job) before(ctx context.Context, l result.Location) (there standing, stands bool, err error) {
	there, err = j.look(ctx, l)
	return there, there.sameWork(j.fence), err
}

// resultsOf reads the files that one generation of a manifest lists. They only
// serve to clear up, so that a manifest that can't be understood has none.
func (j *job) resultsOf(ctx context.Context, l result.Location, generation int64) ([]result.File, error) {
	r, _, err := j.Store.Open(ctx, l.Bucket, l.Name, generation)
	if errors.Is(err, bucket.ErrNotExist) {
		return nil, nil // replaced since: so will this write find
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return nil, err
	}
	m, err := result.ParseManifest(data)
	if err != nil {
		j.log.Warn("can't tell which results of an earlier generation to remove", zap.Stringer("url", l), zap.Error(err))
		return nil, nil
	}
	return m.Results, nil
}

func asJSON(v any) opener {
	return func() (io.ReadCloser, int64, error) {
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return nil, 0, fmt.Errorf("encoding JSON: %w", err)
		}
		data = append(data, '\n')
		return io.NopCloser(strings.NewReader(string(data))), int64(len(data)), nil
	}
}
