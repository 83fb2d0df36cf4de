package work

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
	"tidemill/internal/result"
)

var (
	errFenced = errors.New("a newer holder's results stand")
	errGone   = errors.New("the object is gone")
)

// most manifests are far smaller; anything larger is not one of ours.
const maxManifest = 64 << 20

// opener gives a result's content afresh, so that a write can be tried again.
type opener func() (r io.ReadCloser, size int64, err error)

// standing describes what stands under a result name.
type standing struct {
	bucket.Attrs // Generation 0: nothing stands there
	fence        result.Fence
}

// look reads what stands at l and holds it against this job's fence: errFenced
// if it is newer, a permanent error if it is another object's or not ours at all.
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
	case j.fence.Less(f):
		return standing{Attrs: attrs, fence: f}, errFenced
	}
	return standing{Attrs: attrs, fence: f}, nil
}

// put writes one object under the fence. It first supposes that nothing stands
// there, which is the common case and saves a round trip.
func (j *job) put(ctx context.Context, l result.Location, contentType string, extra map[string]string, open opener) (bucket.Attrs, error) {
	meta := j.fence.Metadata()
	maps.Copy(meta, extra)
	replaces := int64(0)
	for try := 0; ; try++ {
		r, size, err := open()
		if err != nil {
			return bucket.Attrs{}, err
		}
		attrs, err := j.Store.Put(ctx, l.Bucket, l.Name, r, bucket.PutOptions{
			Replaces: replaces, ContentType: contentType, Metadata: meta, Size: size,
		})
		_ = r.Close() // it was only read
		if !errors.Is(err, bucket.ErrPrecondition) || try == 4 {
			return attrs, err
		}
		there, err := j.look(ctx, l)
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
	manifest := j.settings.Results.Manifest(j.lease.Item.Object)
	reserved := manifest.Name[:strings.LastIndex(manifest.Name, result.Reserved)+len(result.Reserved)+1]
	if l.Bucket == manifest.Bucket && strings.HasPrefix(l.Name, reserved) {
		return &permanentError{fmt.Sprintf("result-collision: %.200q is in the reserved folder %s", l.Name, reserved)}
	}
	return nil
}

// before looks at what marks the result set as complete. done means that it is
// this very generation's and run's, so that there is nothing left to do.
func (j *job) before(ctx context.Context, l result.Location) (there standing, done bool, err error) {
	there, err = j.look(ctx, l)
	same := there.fence.Generation == j.fence.Generation && there.fence.Run == j.fence.Run
	if errors.Is(err, errFenced) && same {
		err = nil // a later holder of the same run has finished already
	}
	return there, err == nil && there.Generation != 0 && same, err
}

func (j *job) readManifest(ctx context.Context, l result.Location, generation int64) (result.Manifest, error) {
	r, _, err := j.Store.Open(ctx, l.Bucket, l.Name, generation)
	if err != nil {
		return result.Manifest{}, err
	}
	defer func() { _ = r.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return result.Manifest{}, err
	}
	return result.ParseManifest(data)
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
