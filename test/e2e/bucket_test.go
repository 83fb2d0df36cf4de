//go:build e2e

package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"cloud.google.com/go/storage"
	"github.com/fsouza/fake-gcs-server/fakestorage"
	"google.golang.org/api/iterator"
)

// store is a bucket that announces each upload to a topic, and a client for it.
type store struct {
	url    string // what STORAGE_EMULATOR_HOST takes
	bucket *storage.BucketHandle
}

// startStore expects PUBSUB_EMULATOR_HOST in the environment, and puts
// STORAGE_EMULATOR_HOST there.
func startStore(t *testing.T) *store {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, Scheme: "http", ExternalURL: "http://" + host, PublicHost: host,
		EventOptions: fakestorage.EventManagerOptions{
			ProjectID: project, TopicName: topic, Bucket: bucketName,
			NotifyOn: fakestorage.EventNotificationOptions{Finalize: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: bucketName})
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: pinned(fake.HTTPHandler())}}
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		fake.Stop()
	})
	t.Setenv("STORAGE_EMULATOR_HOST", server.URL)
	client, err := storage.NewClient(context.Background(), storage.WithJSONReads())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &store{url: server.URL, bucket: client.Bucket(bucketName)}
}

// pinned puts right what the fake gets wrong and the tests depend on: it ignores
// the condition of a delete. The condition becomes the generation to delete.
func pinned(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if generation := query.Get("ifGenerationMatch"); r.Method == http.MethodDelete && generation != "" {
			r = r.Clone(r.Context())
			r.URL.RawQuery = url.Values{"generation": {generation}}.Encode()
		}
		next.ServeHTTP(w, r)
	})
}

// upload writes an object and returns its generation.
func (s *store) upload(t *testing.T, name, content string) int64 {
	t.Helper()
	w := s.bucket.Object(name).NewWriter(t.Context())
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatalf("uploading %q: %v", name, err)
	}
	if err := w.Close(); err != nil {
		t.Fatalf("uploading %q: %v", name, err)
	}
	return w.Attrs().Generation
}

// list returns the objects below prefix: name without prefix -> generation.
func (s *store) list(t *testing.T, prefix string) map[string]int64 {
	t.Helper()
	found := map[string]int64{}
	it := s.bucket.Objects(t.Context(), &storage.Query{Prefix: prefix})
	for {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return found
		}
		if err != nil {
			t.Fatalf("listing %q: %v", prefix, err)
		}
		found[attrs.Name[len(prefix):]] = attrs.Generation
	}
}

func (s *store) read(t *testing.T, name string) string {
	t.Helper()
	r, err := s.bucket.Object(name).NewReader(t.Context())
	if err != nil {
		t.Fatalf("reading %q: %v", name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("reading %q: %v", name, err)
	}
	return string(data)
}
