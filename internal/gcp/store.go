package gcp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"

	"tidemill/internal/bucket"
)

// Store is Cloud Storage as a bucket.Store. It is safe for concurrent use.
type Store struct {
	client    *storage.Client
	transport *http.Transport
}

var _ bucket.Store = (*Store)(nil)

type settings struct {
	endpoint string
	stall    time.Duration
}

// Option changes how NewStore connects.
type Option func(*settings)

// WithEndpoint talks to the server at url (such as http://127.0.0.1:4443)
// without credentials.
func WithEndpoint(url string) Option {
	return func(s *settings) { s.endpoint = url }
}

// WithStallTimeout sets after how long without a byte moving in either direction
// a request is given up and tried again; 60 seconds unless set.
func WithStallTimeout(d time.Duration) Option {
	return func(s *settings) { s.stall = d }
}

// NewStore connects with the process's default credentials, or to an emulator
// without any. ctx may end afterwards without harm to the store.
func NewStore(ctx context.Context, opts ...Option) (*Store, error) {
	s := settings{stall: time.Minute}
	for _, o := range opts {
		o(&s)
	}
	// The client keeps this context to refresh its tokens.
	ctx = context.WithoutCancel(ctx)

	base := baseTransport()
	guarded := &asStored{next: &stallGuard{next: base, limit: s.stall}}
	auth := []option.ClientOption{option.WithScopes(storage.ScopeReadWrite), option.WithUserAgent("tidemill")}
	client := []option.ClientOption{storage.WithJSONReads()}
	if s.endpoint != "" {
		client = append(client, option.WithEndpoint(s.endpoint+"/storage/v1/"))
	}
	if s.endpoint != "" || os.Getenv("STORAGE_EMULATOR_HOST") != "" {
		auth = append(auth, option.WithoutAuthentication())
		client = append(client, option.WithoutAuthentication())
	}
	transport, err := htransport.NewTransport(ctx, guarded, auth...)
	if err != nil {
		return nil, fmt.Errorf("finding Google Cloud credentials for Cloud Storage (Workload Identity in a cluster, "+
			"GOOGLE_APPLICATION_CREDENTIALS elsewhere, STORAGE_EMULATOR_HOST for an emulator): %w", err)
	}
	c, err := storage.NewClient(ctx, append(client, option.WithHTTPClient(&http.Client{Transport: transport}))...)
	if err != nil {
		return nil, fmt.Errorf("connecting to Cloud Storage: %w", err)
	}
	// Always: there is no call here that is unsafe to repeat.
	c.SetRetry(
		storage.WithPolicy(storage.RetryAlways),
		storage.WithErrorFunc(transient),
		storage.WithBackoff(gax.Backoff{Initial: 100 * time.Millisecond, Max: 10 * time.Second, Multiplier: 2}),
	)
	return &Store{client: c, transport: base}, nil
}

// baseTransport is the default one with a pool for many workers' requests to one
// host, and pings that notice a dead HTTP/2 connection.
func baseTransport() *http.Transport {
	t := &http.Transport{}
	if d, ok := http.DefaultTransport.(*http.Transport); ok {
		t = d.Clone()
	}
	t.MaxIdleConnsPerHost = 100
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
	return t
}

// Close frees the connections; calls under way may fail.
func (s *Store) Close() error {
	err := s.client.Close()
	s.transport.CloseIdleConnections()
	return err
}

func (s *Store) object(bucketName, name string) *storage.ObjectHandle {
	return s.client.Bucket(bucketName).Object(name)
}

// Stat implements bucket.Store.
func (s *Store) Stat(ctx context.Context, bucketName, name string) (bucket.Attrs, error) {
	a, err := s.object(bucketName, name).Attrs(ctx)
	if err != nil {
		return bucket.Attrs{}, failure(ctx, "reading the attributes of", bucketName, name, err)
	}
	return attrs(a), nil
}

// Delete implements bucket.Store.
func (s *Store) Delete(ctx context.Context, bucketName, name string, generation int64) error {
	const doing = "deleting"
	if generation <= 0 {
		return fmt.Errorf("%s %s: a generation is needed to say which version to delete, got %d",
			doing, uri(bucketName, name), generation)
	}
	err := s.object(bucketName, name).If(storage.Conditions{GenerationMatch: generation}).Delete(ctx)
	if err == nil || isNotFound(err) {
		return nil
	}
	err = failure(ctx, doing, bucketName, name, err)
	if errors.Is(err, bucket.ErrPrecondition) {
		// A condition on an object that is gone fails like one on another version.
		if _, statErr := s.Stat(ctx, bucketName, name); errors.Is(statErr, bucket.ErrNotExist) {
			return nil
		}
	}
	return err
}

// List implements bucket.Store.
func (s *Store) List(ctx context.Context, bucketName, prefix string, f func(bucket.Entry) error) error {
	q := &storage.Query{Prefix: prefix, Projection: storage.ProjectionNoACL}
	fields := []string{"Name", "Generation", "Size", "CRC32C", "ContentType", "Metadata", "Created"}
	if err := q.SetAttrSelection(fields); err != nil {
		return fmt.Errorf("listing %s: %w", uri(bucketName, prefix), err)
	}
	it := s.client.Bucket(bucketName).Objects(ctx, q)
	for {
		a, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return failure(ctx, "listing", bucketName, prefix, err)
		}
		if err := f(bucket.Entry{Name: a.Name, Attrs: attrs(a)}); err != nil {
			return err
		}
	}
}

func attrs(a *storage.ObjectAttrs) bucket.Attrs {
	return bucket.Attrs{
		Generation:  a.Generation,
		Size:        a.Size,
		CRC32C:      a.CRC32C,
		ContentType: a.ContentType,
		Metadata:    a.Metadata,
		Created:     a.Created,
	}
}
