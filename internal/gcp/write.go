package gcp

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"sync"
	"time"

	"cloud.google.com/go/storage"

	"tidemill/internal/bucket"
)

// A writer holds a buffer of one chunk, which is also what it can repeat.
// Content that fits goes up in one request, the rest at a round trip per chunk.
const (
	minChunk   = 256 << 10
	chunk      = 4 << 20
	largeChunk = 16 << 20
	largeFrom  = 256 << 20 // content from here on gets large chunks

	// chunkRetries bounds how long one chunk is repeated; ctx ends it before.
	chunkRetries = 24 * time.Hour
)

func chunkSize(size int64) int {
	switch {
	case size < 0 || size >= chunk && size < largeFrom:
		return chunk
	case size >= largeFrom:
		return largeChunk
	}
	// One byte more than the content, or its end would not be seen in the first chunk.
	return int((size + minChunk) / minChunk * minChunk)
}

// Put implements bucket.Store.
func (s *Store) Put(ctx context.Context, bucketName, name string, r io.Reader, o bucket.PutOptions) (bucket.Attrs, error) {
	const doing = "writing"
	src := &source{r: r}
	got, err := s.upload(ctx, bucketName, name, src, o)
	switch {
	case src.err != nil:
		return bucket.Attrs{}, fmt.Errorf("%s %s: taking in its content: %w", doing, uri(bucketName, name), src.err)
	case err == nil:
		return got, nil
	}
	err = failure(ctx, doing, bucketName, name, err)
	if ctx.Err() != nil || errors.Is(err, bucket.ErrDenied) {
		return bucket.Attrs{}, err
	}
	// The server may have stored an earlier try whose answer was lost. What it
	// refused before the end of r has to be read to be compared.
	if _, drainErr := io.Copy(io.Discard, src); drainErr != nil {
		return bucket.Attrs{}, fmt.Errorf("%s %s: taking in its content: %w", doing, uri(bucketName, name), drainErr)
	}
	if stands, statErr := s.Stat(ctx, bucketName, name); statErr == nil && src.matches(stands, o) {
		return stands, nil
	}
	return bucket.Attrs{}, err
}

// upload sends all of src. Where the server's checksum differs from that of what
// was sent, it takes the object away again.
func (s *Store) upload(ctx context.Context, bucketName, name string, src *source, o bucket.PutOptions) (bucket.Attrs, error) {
	// Cancelling is what makes the writer drop an object; closing would finish it.
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	cond := storage.Conditions{GenerationMatch: o.Replaces}
	if o.Replaces == 0 {
		cond = storage.Conditions{DoesNotExist: true}
	}
	var last lastFault
	w := s.object(bucketName, name).If(cond).Retryer(storage.WithErrorFunc(last.transient)).NewWriter(writing)
	w.ChunkSize = chunkSize(o.Size)
	w.ChunkRetryDeadline = chunkRetries
	w.ContentType = o.ContentType
	w.Metadata = o.Metadata

	if _, err := io.Copy(w, src); err != nil {
		cancel()
		_ = w.Close() // waits for the writer; the error that counts is err
		return bucket.Attrs{}, last.explain(err)
	}
	if err := w.Close(); err != nil {
		return bucket.Attrs{}, last.explain(err)
	}
	got := attrs(w.Attrs())
	if got.CRC32C != src.sum || got.Size != src.size {
		err := fmt.Errorf("the server stored %d bytes with CRC32C %08x, sent were %d bytes with %08x: damaged on the way",
			got.Size, got.CRC32C, src.size, src.sum)
		if delErr := s.Delete(ctx, bucketName, name, got.Generation); delErr != nil {
			err = fmt.Errorf("%w; and removing it failed: %w", err, delErr)
		}
		return bucket.Attrs{}, err
	}
	return got, nil
}

// lastFault keeps what an upload was last repeated for: when time runs out, the
// client says only that.
type lastFault struct {
	mu  sync.Mutex
	err error
}

func (l *lastFault) transient(err error) bool {
	passing := transient(err)
	if passing {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = err
	}
	return passing
}

func (l *lastFault) explain(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil || errors.Is(err, l.err) {
		return err
	}
	return fmt.Errorf("%w; repeated because of: %w", err, l.err)
}

// source sums up what is read through it, and keeps the reader's own error apart
// from the server's.
type source struct {
	r    io.Reader
	size int64
	sum  uint32
	err  error // never io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.size += int64(n)
	s.sum = crc32.Update(s.sum, castagnoli(), p[:n])
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// matches says that what stands there is what was to be written, at a version
// that can come from this write.
func (s *source) matches(stands bucket.Attrs, o bucket.PutOptions) bool {
	return stands.Generation != o.Replaces &&
		stands.CRC32C == s.sum && stands.Size == s.size &&
		maps.Equal(stands.Metadata, o.Metadata)
}
