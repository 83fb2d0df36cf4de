package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
)

// readError is a fault of the file, as opposed to one of the bucket.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// source reads a file as it was at one version, or fails: a reader of it never
// sees the end of a file that changed meanwhile.
type source struct {
	file *os.File
	at   fingerprint
	left int64
}

// open opens a file that should be at a version.
func (f *Files) open(rel string, at fingerprint) (*source, error) {
	// Not blocking: a named pipe may have taken the file's place.
	file, err := os.OpenFile(filepath.Join(f.in, rel), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &readError{err}
	}
	s := &source{file: file, at: at, left: at.Size}
	if err := s.check(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *source) check() error {
	info, err := s.file.Stat()
	switch {
	case err != nil:
		return &readError{err}
	case !info.Mode().IsRegular() || fingerprintOf(info) != s.at:
		return &readError{errRestless}
	}
	return nil
}

// Read implements io.Reader. Its errors are *readError, or io.EOF.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.file.Read(p)
	s.left -= int64(n)
	switch {
	case s.left < 0 || err == io.EOF && s.left > 0:
		return n, &readError{errRestless}
	case err == io.EOF:
		if err := s.check(); err != nil {
			return n, err
		}
		return n, io.EOF
	case err != nil:
		return n, &readError{err}
	}
	return n, nil
}

func (s *source) close() { _ = s.file.Close() } // nothing was written

// upload puts one version of a file into the bucket once the budget allows it.
func (f *Files) upload(ctx context.Context, rel string, at fingerprint) error {
	weight := min(at.Size, f.o.MaxBytes)
	if err := f.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	if err := f.bytes.Acquire(ctx, weight); err != nil {
		f.slots.Release(1)
		return err
	}
	// The notification may be here before the answer to the write is: until then,
	// nobody can tell that the object is ours.
	stands := make(chan struct{})
	f.mu.Lock()
	f.putting[rel] = stands
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.putting, rel)
		f.mu.Unlock()
		close(stands)
	}()
	attrs, err := f.put(ctx, rel, at)
	if err != nil {
		f.release(weight)
		return err
	}
	f.register(&upload{
		obj:     item.Object{Bucket: f.o.Bucket, Name: f.o.Prefix + rel, Generation: attrs.Generation},
		rel:     rel,
		version: &version{Source: at, CRC32C: attrs.CRC32C},
		size:    attrs.Size,
		weight:  weight,
	})
	return nil
}

func (f *Files) release(weight int64) {
	f.bytes.Release(weight)
	f.slots.Release(1)
}

// put writes the object over whatever generation stands there.
func (f *Files) put(ctx context.Context, rel string, at fingerprint) (bucket.Attrs, error) {
	name := f.o.Prefix + rel
	f.mu.Lock()
	stored := f.of(rel).stored
	f.mu.Unlock()
	// Random, so that a repeated request knows its own object from another
	// client's with the same content.
	meta := map[string]string{"tidemill-upload": rand.Text()}
	const tries = 10 // each lost to another client's write
	for try := 1; ; try++ {
		src, err := f.open(rel, at)
		if err != nil {
			return bucket.Attrs{}, err
		}
		attrs, err := f.o.Store.Put(ctx, f.o.Bucket, name, src, bucket.PutOptions{Replaces: stored, Metadata: meta, Size: at.Size})
		src.close()
		if err == nil || !errors.Is(err, bucket.ErrPrecondition) || try == tries {
			return attrs, err
		}
		switch stands, err := f.o.Store.Stat(ctx, f.o.Bucket, name); {
		case err == nil:
			stored = stands.Generation
		case errors.Is(err, bucket.ErrNotExist):
			stored = 0
		default:
			return bucket.Attrs{}, fmt.Errorf("looking at what stands under its name: %w", err)
		}
	}
}
