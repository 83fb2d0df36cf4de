package gcp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tidemill/internal/bucket"
	"tidemill/internal/gcp"
)

const testBucket = "b"

// server is a fake Cloud Storage behind a handler that can go wrong.
type server struct {
	*fakestorage.Server
	url  string
	hook atomic.Pointer[hook]
}

// hook answers a request itself, or has next answer it.
type hook func(w http.ResponseWriter, r *http.Request, next http.Handler)

func newServer(t *testing.T) *server {
	t.Helper()
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, Scheme: "http"})
	if err != nil {
		t.Fatal(err)
	}
	fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: testBucket})
	s := &server{Server: fake}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := s.hook.Load(); h != nil {
			(*h)(w, r, fake.HTTPHandler())
			return
		}
		fake.HTTPHandler().ServeHTTP(w, r)
	}))
	s.url = ts.URL
	t.Cleanup(func() {
		ts.CloseClientConnections()
		ts.Close()
		fake.Stop()
	})
	return s
}

func (s *server) misbehave(h hook) { s.hook.Store(&h) }

func (s *server) store(t *testing.T, opts ...gcp.Option) *gcp.Store {
	t.Helper()
	store, err := gcp.NewStore(t.Context(), append([]gcp.Option{gcp.WithEndpoint(s.url)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return store
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func put(t *testing.T, s *gcp.Store, name string, data []byte, o bucket.PutOptions) bucket.Attrs {
	t.Helper()
	a, err := s.Put(testContext(t), testBucket, name, bytes.NewReader(data), o)
	if err != nil {
		t.Fatalf("Put(%q): %v", name, err)
	}
	return a
}

// read opens and reads to the end, and returns the first error of either.
func read(t *testing.T, s *gcp.Store, name string, generation int64) ([]byte, bucket.Attrs, error) {
	t.Helper()
	r, a, err := s.Open(testContext(t), testBucket, name, generation)
	if err != nil {
		return nil, a, err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Logf("closing the reader of %q: %v", name, err)
		}
	}()
	got, err := io.ReadAll(r)
	return got, a, err
}

func TestPutThenOpen(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ size, hint int }{
		{0, 0}, {0, -1}, {1, 1}, {1, 0},
		{256<<10 - 1, 256<<10 - 1}, {256 << 10, 256 << 10}, {256<<10 + 1, 256 << 10},
		{4 << 20, 4 << 20}, {5 << 20, -1}, {3 << 20, 1 << 20},
	} {
		t.Run(fmt.Sprintf("%d bytes, hint %d", tc.size, tc.hint), func(t *testing.T) {
			t.Parallel()
			store := newServer(t).store(t)
			data := content(tc.size)
			want := bucket.Attrs{
				Size: int64(tc.size), CRC32C: checksum(data), ContentType: "text/x-test",
				Metadata: map[string]string{"Key": "välue"},
			}
			o := bucket.PutOptions{ContentType: want.ContentType, Metadata: want.Metadata, Size: int64(tc.hint)}
			put := put(t, store, "dir/o", data, o)
			if put.Generation == 0 || put.Created.IsZero() {
				t.Errorf("Put returned generation %d, created %s", put.Generation, put.Created)
			}
			ignore := cmpopts.IgnoreFields(bucket.Attrs{}, "Generation", "Created")
			if diff := cmp.Diff(want, put, ignore); diff != "" {
				t.Errorf("Put's attributes (-want +got):\n%s", diff)
			}
			got, opened, err := read(t, store, "dir/o", put.Generation)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) {
				t.Errorf("read %d bytes that differ from the %d written", len(got), len(data))
			}
			if diff := cmp.Diff(put, opened); diff != "" {
				t.Errorf("Open's attributes (-put +opened):\n%s", diff)
			}
			stat, err := store.Stat(testContext(t), testBucket, "dir/o")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(put, stat); diff != "" {
				t.Errorf("Stat's attributes (-put +stat):\n%s", diff)
			}
		})
	}
}

func TestAnyName(t *testing.T) {
	t.Parallel()
	store := newServer(t).store(t)
	for _, name := range []string{
		"per%cent%2Fnot-a-slash%", "ha#sh", "que?ry=1&generation=5", "pl+us and space", "tab\tquote\"'`", "back\\slash",
		"..x", "x..", "a/..b/c", "/leading", "trailing/", "a//b///c", "-rf", "日本語/é/e\u0301", "🌊", "\x01\x7f",
		"b/acl", "b/compose", "b/rewriteTo/b/c/o/d", strings.Repeat("d/", 511) + "xy", strings.Repeat("n", 1024),
	} {
		data := []byte("content of " + name)
		a := put(t, store, name, data, bucket.PutOptions{Size: -1})
		got, _, err := read(t, store, name, a.Generation)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q: read %q, %v", name, got, err)
		}
		var listed []string
		err = store.List(testContext(t), testBucket, name, func(e bucket.Entry) error {
			listed = append(listed, e.Name)
			return nil
		})
		if diff := cmp.Diff([]string{name}, listed); diff != "" || err != nil {
			t.Errorf("%q: listing it as a prefix (-want +got): %v\n%s", name, err, diff)
		}
		if err := store.Delete(testContext(t), testBucket, name, a.Generation); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := store.Stat(testContext(t), testBucket, name); !errors.Is(err, bucket.ErrNotExist) {
			t.Errorf("%q after Delete: Stat says %v, want ErrNotExist", name, err)
		}
	}
}

func TestOpenIsPinned(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	store := srv.store(t)
	first := put(t, store, "o", []byte("first"), bucket.PutOptions{})
	second := put(t, store, "o", []byte("second"), bucket.PutOptions{Replaces: first.Generation})
	if _, _, err := read(t, store, "o", first.Generation); !errors.Is(err, bucket.ErrNotExist) {
		t.Errorf("opening a replaced generation: %v, want ErrNotExist", err)
	}
	for _, generation := range []int64{0, second.Generation} {
		got, a, err := read(t, store, "o", generation)
		if err != nil || string(got) != "second" || a.Generation != second.Generation {
			t.Errorf("generation %d: %q, %d, %v", generation, got, a.Generation, err)
		}
	}
}

func TestOpenGivesCompressedContentAsStored(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	// The bytes needn't be gzip: whoever decompresses them fails, or changes them.
	data := content(1000)
	srv.CreateObject(fakestorage.Object{
		ObjectAttrs: fakestorage.ObjectAttrs{BucketName: testBucket, Name: "o.gz", ContentEncoding: "gzip"},
		Content:     data,
	})
	got, a, err := read(t, srv.store(t), "o.gz", 0)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) || a.CRC32C != checksum(data) {
		t.Errorf("got %d bytes, checksum %08x; want the %d stored, %08x", len(got), a.CRC32C, len(data), checksum(data))
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	store := newServer(t).store(t)
	want := map[string]bucket.Attrs{}
	for _, name := range []string{"in/a", "in/b/c", "in/"} {
		want[name] = put(t, store, name, []byte(name), bucket.PutOptions{Metadata: map[string]string{"k": name}})
	}
	put(t, store, "out/a", nil, bucket.PutOptions{})
	got := map[string]bucket.Attrs{}
	err := store.List(testContext(t), testBucket, "in/", func(e bucket.Entry) error {
		got[e.Name] = e.Attrs
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("below in/ (-want +got):\n%s", diff)
	}
	enough := errors.New("enough")
	calls := 0
	err = store.List(testContext(t), testBucket, "in/", func(bucket.Entry) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("a callback that fails: List returned %v after %d calls", err, calls)
	}
	err = store.List(testContext(t), "no-such-bucket", "", func(bucket.Entry) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "no-such-bucket") {
		t.Errorf("a missing bucket: %v, want an error that names it", err)
	}
}

func TestPutPreconditions(t *testing.T) {
	t.Parallel()
	meta := map[string]string{"token": "7"}
	for _, tc := range []struct {
		name     string
		stale    bool // name a generation that is not there
		replaces bool // name the one that is
		data     string
		meta     map[string]string
		want     error
	}{
		{name: "another's object", data: "other", meta: meta, want: bucket.ErrPrecondition},
		{name: "same content, another's metadata", data: "mine", meta: map[string]string{"token": "8"}, want: bucket.ErrPrecondition},
		{name: "an earlier try of the same", data: "mine", meta: meta},
		{name: "replacing what stands", replaces: true, data: "other", meta: meta},
		{name: "replacing what is gone", stale: true, data: "other", meta: meta, want: bucket.ErrPrecondition},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			store := newServer(t).store(t)
			stands := put(t, store, "o", []byte("mine"), bucket.PutOptions{Metadata: meta})
			o := bucket.PutOptions{Metadata: tc.meta, Size: int64(len(tc.data))}
			if tc.replaces {
				o.Replaces = stands.Generation
			}
			if tc.stale {
				o.Replaces = stands.Generation - 1
			}
			got, err := store.Put(testContext(t), testBucket, "o", strings.NewReader(tc.data), o)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			now, statErr := store.Stat(testContext(t), testBucket, "o")
			if statErr != nil {
				t.Fatal(statErr)
			}
			want := got
			if tc.want != nil {
				want = stands
			}
			if diff := cmp.Diff(want, now); diff != "" {
				t.Errorf("what stands there (-want +got):\n%s", diff)
			}
		})
	}
}

// failing yields n bytes, then calls then, then fails with err.
type failing struct {
	left int
	then func()
	err  error
}

func (f *failing) Read(p []byte) (int, error) {
	if f.left == 0 {
		if f.then != nil {
			f.then()
		}
		return 0, f.err
	}
	n := min(len(p), f.left)
	f.left -= n
	return n, nil
}

func TestPutOfAFailingReaderLeavesNothing(t *testing.T) {
	t.Parallel()
	// In the first chunk, at its end, and in a later one.
	for _, before := range []int{0, 1, 256 << 10, 600 << 10} {
		for _, hint := range []int64{-1, 0} {
			t.Run(fmt.Sprintf("after %d bytes, hint %d", before, hint), func(t *testing.T) {
				t.Parallel()
				store := newServer(t).store(t)
				broken := errors.New("broken")
				_, err := store.Put(testContext(t), testBucket, "o", &failing{left: before, err: broken}, bucket.PutOptions{Size: hint})
				if !errors.Is(err, broken) {
					t.Errorf("got %v, want the reader's error", err)
				}
				if _, err := store.Stat(testContext(t), testBucket, "o"); !errors.Is(err, bucket.ErrNotExist) {
					t.Errorf("Stat: %v, want ErrNotExist", err)
				}

				ctx, cancel := context.WithCancel(testContext(t))
				_, err = store.Put(ctx, testBucket, "o", &failing{left: before, then: cancel, err: io.EOF}, bucket.PutOptions{Size: hint})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled at the end of the content: got %v, want context.Canceled", err)
				}
				if _, err := store.Stat(testContext(t), testBucket, "o"); !errors.Is(err, bucket.ErrNotExist) {
					t.Errorf("Stat: %v, want ErrNotExist", err)
				}
			})
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	store := srv.store(t)
	a := put(t, store, "o", []byte("x"), bucket.PutOptions{})
	if err := store.Delete(testContext(t), testBucket, "o", 0); err == nil {
		t.Error("without a generation: no error")
	}
	for i := range 2 { // the second finds nothing to delete
		if err := store.Delete(testContext(t), testBucket, "o", a.Generation); err != nil {
			t.Errorf("call %d: %v", i+1, err)
		}
	}

	// The fake ignores conditions on deletes, so this answers as the service does.
	srv.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodDelete {
			if r.FormValue("ifGenerationMatch") == "" {
				t.Error("a delete without a condition")
			}
			http.Error(w, `{"error":{"code":412,"message":"conditionNotMet"}}`, http.StatusPreconditionFailed)
			return
		}
		next.ServeHTTP(w, r)
	})
	b := put(t, store, "o", []byte("newer"), bucket.PutOptions{})
	if err := store.Delete(testContext(t), testBucket, "o", a.Generation); !errors.Is(err, bucket.ErrPrecondition) {
		t.Errorf("another generation: %v, want ErrPrecondition", err)
	}
	if err := store.Delete(testContext(t), testBucket, "gone", b.Generation); err != nil {
		t.Errorf("gone, and the server calls that a failed condition: %v", err)
	}
}
