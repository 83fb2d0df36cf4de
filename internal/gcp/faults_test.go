package gcp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tidemill/internal/bucket"
	"tidemill/internal/gcp"
)

func isUpload(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/upload/") }
func isDownload(r *http.Request) bool {
	return r.Method == http.MethodGet && r.FormValue("alt") == "media"
}

// once lets h answer the first request that which picks.
func once(which func(*http.Request) bool, h hook) hook {
	var done atomic.Bool
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if which(r) && done.CompareAndSwap(false, true) {
			h(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}
}

// hangUp closes the connection without an answer, or in the middle of one.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

func TestPutWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	answers := map[string]hook{
		"503": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(w, "backend error", http.StatusServiceUnavailable)
		},
		"429": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(w, "slow down", http.StatusTooManyRequests)
		},
		"connection closed": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			hangUp(w)
		},
		"answer cut off": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
			_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
			hangUp(w)
		},
	}
	for name, answer := range answers {
		// In one request, and in chunks: there the last one's answer gets lost.
		for _, size := range []int{1000, 5 << 20} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				t.Parallel()
				srv := newServer(t)
				store := srv.store(t)
				var finals atomic.Int64
				srv.misbehave(once(func(r *http.Request) bool {
					final := isUpload(r) && (size < 1<<20 || strings.HasSuffix(r.Header.Get("Content-Range"), "/"+strconv.Itoa(size)))
					if final {
						finals.Add(1)
					}
					return final
				}, answer))
				data := content(size)
				a := put(t, store, "o", data, bucket.PutOptions{Size: int64(size), Metadata: map[string]string{"token": "1"}})
				srv.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) })
				got, opened, err := read(t, store, "o", 0)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				if opened.Generation != a.Generation {
					t.Errorf("Put says generation %d, there stands %d", a.Generation, opened.Generation)
				}
				if finals.Load() == 0 {
					t.Error("the fault never struck")
				}
			})
		}
	}
}

func TestPutDoesNotTakeAnothersObjectForItsOwn(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	store := srv.store(t)
	// Ours is lost before it is stored; theirs comes in between.
	srv.misbehave(once(isUpload, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		other := httptest.NewRequest(http.MethodPost, srv.url+"/upload/storage/v1/b/"+testBucket+"/o?uploadType=media&name=o",
			strings.NewReader("theirs"))
		next.ServeHTTP(httptest.NewRecorder(), other)
		http.Error(w, "backend error", http.StatusServiceUnavailable)
	}))
	_, err := store.Put(testContext(t), testBucket, "o", strings.NewReader("ours"), bucket.PutOptions{Size: 4})
	if !errors.Is(err, bucket.ErrPrecondition) {
		t.Errorf("got %v, want ErrPrecondition", err)
	}
	if got, _, err := read(t, store, "o", 0); err != nil || string(got) != "theirs" {
		t.Errorf("there stands %q, %v", got, err)
	}
}

// A server that stores something else than it was sent, and says so in its
// answer's checksum, must not leave that standing.
func TestPutDamagedOnTheWay(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	store := srv.store(t)
	srv.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if isUpload(r) && strings.HasPrefix(r.Header.Get("Content-Range"), "bytes 0-") {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			body[len(body)/2] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r)
	})
	_, err := store.Put(testContext(t), testBucket, "o", bytes.NewReader(content(5<<20)), bucket.PutOptions{Size: -1})
	if err == nil || !strings.Contains(err.Error(), "damaged on the way") {
		t.Errorf("got %v, want an error about the damage", err)
	}
	if _, err := store.Stat(testContext(t), testBucket, "o"); !errors.Is(err, bucket.ErrNotExist) {
		t.Errorf("Stat: %v, want ErrNotExist", err)
	}
}

// download runs next and hands over the body it would have sent.
func download(w http.ResponseWriter, r *http.Request, next http.Handler, send func(body []byte)) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	send(rec.Body.Bytes())
}

func TestReadFaults(t *testing.T) {
	t.Parallel()
	data := content(3 << 20)
	damaged := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		download(w, r, next, func(body []byte) {
			body[len(body)/2] ^= 1
			_, _ = w.Write(body)
		})
	}
	cut := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		download(w, r, next, func(body []byte) {
			_, _ = w.Write(body[:len(body)/2])
			hangUp(w)
		})
	}
	stalled := func(before bool) hook {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if before {
				<-r.Context().Done()
				return
			}
			download(w, r, next, func(body []byte) {
				_, _ = w.Write(body[:len(body)/2])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
		}
	}
	ranged := func(r *http.Request) bool { return isDownload(r) && r.Header.Get("Range") != "" }
	for _, tc := range []struct {
		name string
		hook hook
		want string // part of the error; empty: the content comes through
	}{
		{name: "unavailable", hook: once(isDownload, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "no", http.StatusServiceUnavailable)
		})},
		{name: "quota", hook: once(isDownload, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"error":{"code":403,"message":"slow down","errors":[{"reason":"rateLimitExceeded"}]}}`)
		})},
		{name: "connection closed", hook: once(isDownload, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { hangUp(w) })},
		{name: "cut off", hook: once(isDownload, cut)},
		{name: "stalls before the answer", hook: once(isDownload, stalled(true))},
		{name: "stalls in the content", hook: once(isDownload, stalled(false))},
		{name: "damaged", hook: once(isDownload, damaged), want: "CRC"},
		{
			name: "cut off, and the rest damaged",
			hook: func() hook {
				first := once(isDownload, cut)
				return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					if ranged(r) {
						damaged(w, r, next)
						return
					}
					first(w, r, next)
				}
			}(),
			want: "CRC",
		},
		{
			name: "damaged, and without a checksum",
			hook: once(isDownload, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				body := rec.Body.Bytes()
				body[0] ^= 1
				_, _ = w.Write(body)
			}),
			want: "damaged on the way",
		},
		{
			name: "claims to be shorter",
			hook: once(isDownload, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				_, _ = w.Write(rec.Body.Bytes()[:1000]) // and no X-Goog-Hash
			}),
			want: "got 1000 bytes of",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			store := srv.store(t, gcp.WithStallTimeout(2*time.Second))
			a := put(t, store, "o", data, bucket.PutOptions{Size: -1})
			srv.misbehave(tc.hook)
			got, _, err := read(t, store, "o", a.Generation)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("got %v after %d bytes", err, len(got))
			case tc.want == "" && !bytes.Equal(got, data):
				t.Errorf("got %d bytes that differ from the %d written", len(got), len(data))
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %d bytes and %v, want an error with %q", len(got), err, tc.want)
			}
		})
	}
}

func TestPutToAServerThatStalls(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, 5 << 20} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			store := srv.store(t, gcp.WithStallTimeout(2*time.Second))
			srv.misbehave(once(isUpload, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}))
			data := content(size)
			put(t, store, "o", data, bucket.PutOptions{Size: int64(size)})
			if got, _, err := read(t, store, "o", 0); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestErrorsKeepTheirText(t *testing.T) {
	t.Parallel()
	calls := map[string]func(context.Context, *gcp.Store) error{
		"Open": func(ctx context.Context, s *gcp.Store) error {
			_, _, err := s.Open(ctx, testBucket, "o", 1)
			return err
		},
		"Stat": func(ctx context.Context, s *gcp.Store) error { _, err := s.Stat(ctx, testBucket, "o"); return err },
		"Put": func(ctx context.Context, s *gcp.Store) error {
			_, err := s.Put(ctx, testBucket, "o", strings.NewReader("x"), bucket.PutOptions{})
			return err
		},
		"Delete": func(ctx context.Context, s *gcp.Store) error { return s.Delete(ctx, testBucket, "o", 1) },
		"List": func(ctx context.Context, s *gcp.Store) error {
			return s.List(ctx, testBucket, "o", func(bucket.Entry) error { return nil })
		},
	}
	for name, call := range calls {
		for _, tc := range []struct {
			code   int
			within time.Duration
			want   error
		}{
			{http.StatusUnauthorized, time.Minute, bucket.ErrDenied},
			{http.StatusForbidden, time.Minute, bucket.ErrDenied},
			{http.StatusServiceUnavailable, 2 * time.Second, context.DeadlineExceeded},
		} {
			t.Run(fmt.Sprintf("%s %d", name, tc.code), func(t *testing.T) {
				t.Parallel()
				srv := newServer(t)
				store := srv.store(t)
				srv.misbehave(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(tc.code)
					_, _ = fmt.Fprintf(w, `{"error":{"code":%d,"message":"the server's own words"}}`, tc.code)
				})
				ctx, cancel := context.WithTimeout(t.Context(), tc.within)
				defer cancel()
				err := call(ctx, store)
				if !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
				words := "the server's own words"
				if name == "Put" && tc.code == http.StatusServiceUnavailable {
					words = "503" // the client drops the rest
				}
				if err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), `"gs://b/o"`) {
					t.Errorf("%v: lacks %q or the object's name", err, words)
				}
			})
		}
	}
}
