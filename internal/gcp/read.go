package gcp

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"

	"tidemill/internal/bucket"
)

// overwrites is how often Open of the newest generation starts again because
// the one it had just looked up was replaced.
const overwrites = 5

// Open implements bucket.Store. It asks for the attributes first: those that
// come with the content lack some, and the checksum to hold the content against
// should not come from the same answer.
func (s *Store) Open(ctx context.Context, bucketName, name string, generation int64) (io.ReadCloser, bucket.Attrs, error) {
	const doing = "reading"
	for try := 1; ; try++ {
		o := s.object(bucketName, name)
		if generation != 0 {
			o = o.Generation(generation)
		}
		a, err := o.Attrs(ctx)
		if err != nil {
			return nil, bucket.Attrs{}, failure(ctx, doing, bucketName, name, err)
		}
		r, err := s.object(bucketName, name).Generation(a.Generation).NewReader(ctx)
		if err != nil {
			err = failure(ctx, doing, bucketName, name, err)
			if generation == 0 && try < overwrites && errors.Is(err, bucket.ErrNotExist) {
				continue
			}
			return nil, bucket.Attrs{}, err
		}
		return &verified{src: r, name: uri(bucketName, name), want: attrs(a)}, attrs(a), nil
	}
}

// asStored asks for content without decompression. The client's own ReadCompressed
// does this by a header that its JSON reads then refuse.
type asStored struct {
	next http.RoundTripper
}

func (a *asStored) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet && req.URL.Query().Get("alt") == "media" {
		req = req.Clone(req.Context())
		// Set by hand, it also keeps net/http from decompressing.
		req.Header.Set("Accept-Encoding", "gzip")
	}
	return a.next.RoundTrip(req)
}

// verified passes on what src yields and ends with io.EOF only if that was the
// whole content.
type verified struct {
	src  io.ReadCloser
	name string
	want bucket.Attrs

	seen int64
	sum  uint32
	err  error // what ended it; stays
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.src.Read(p)
	v.seen += int64(n)
	v.sum = crc32.Update(v.sum, castagnoli(), p[:n])
	switch {
	case err == io.EOF: // bare: a wrapped one is a lost connection
		v.err = v.verdict()
	case err != nil:
		v.err = fmt.Errorf("reading %s at byte %d: %w", v.name, v.seen, err)
	case v.seen > v.want.Size:
		v.err = v.verdict()
	}
	return n, v.err
}

func (v *verified) verdict() error {
	switch {
	case v.seen != v.want.Size:
		return fmt.Errorf("reading %s generation %d: got %d bytes of %d", v.name, v.want.Generation, v.seen, v.want.Size)
	case v.sum != v.want.CRC32C:
		return fmt.Errorf("reading %s generation %d: the content's CRC32C is %08x, not %08x: it was damaged on the way",
			v.name, v.want.Generation, v.sum, v.want.CRC32C)
	}
	return io.EOF
}

func (v *verified) Close() error { return v.src.Close() }

// castagnoli costs nothing: the package keeps the table.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
