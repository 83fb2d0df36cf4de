// Package bucket is the contract for object storage as Tidemill uses it: reads
// pinned to a generation, and writes that replace only the version they name.
package bucket

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that callers act on. Everything else that a Store returns is a fault of
// the environment and may be tried again.
var (
	// ErrNotExist: there is no such object, or no longer that generation of it.
	ErrNotExist = errors.New("object does not exist")
	// ErrPrecondition: the object is not at the generation that the call named.
	ErrPrecondition = errors.New("object is at another generation")
	// ErrDenied: the store refused the credentials or their rights (401, 403).
	ErrDenied = errors.New("access denied")
)

// Attrs describes one generation of an object.
type Attrs struct {
	Generation  int64
	Size        int64  // bytes as stored
	CRC32C      uint32 // Castagnoli, of the bytes as stored
	ContentType string
	Metadata    map[string]string
	Created     time.Time
}

// PutOptions are the conditions and attributes of a write.
type PutOptions struct {
	// Replaces is the generation to replace; 0 means that no object may stand
	// under the name. It makes every Put safe to repeat.
	Replaces    int64
	ContentType string // empty: the store guesses
	Metadata    map[string]string
	// Size is how many bytes are expected, to size buffers; -1 if unknown. It is
	// a hint, never checked.
	Size int64
}

// Entry is one line of a listing.
type Entry struct {
	Name string
	Attrs
}

// Store reads and writes objects. Implementations are safe for concurrent use,
// retry passing faults themselves until ctx ends, and verify checksums both ways.
type Store interface {
	// Open reads one generation, as stored (no decompression). Generation 0 means
	// the newest. The reader fails with an error, never with a short read, when
	// the content does not match its CRC32C. Errors: ErrNotExist, ErrDenied.
	Open(ctx context.Context, bucket, name string, generation int64) (io.ReadCloser, Attrs, error)
	// Stat describes the newest generation. Errors: ErrNotExist, ErrDenied.
	Stat(ctx context.Context, bucket, name string) (Attrs, error)
	// Put writes what r yields. The object appears whole or not at all: when r
	// or ctx fails before the end, nothing is written. A Put whose own earlier
	// try got through (same content and metadata stand there) is a success.
	// Errors: ErrPrecondition, ErrDenied, or r's own error, wrapped.
	Put(ctx context.Context, bucket, name string, r io.Reader, o PutOptions) (Attrs, error)
	// Delete removes the object if it stands at that generation; an object that
	// is already gone is no error. Errors: ErrPrecondition, ErrDenied.
	Delete(ctx context.Context, bucket, name string, generation int64) error
	// List calls f for the newest generation of each object below prefix, in the
	// store's order, until f fails.
	List(ctx context.Context, bucket, prefix string, f func(Entry) error) error
}
