package embed_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"tidemill/internal/bucket"
	"tidemill/internal/gcp"
	"tidemill/internal/local/embed"
)

func start(t *testing.T, o embed.Options) *embed.Services {
	t.Helper()
	s, err := embed.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func open(t *testing.T, s *embed.Services) *gcp.Store {
	t.Helper()
	store, err := gcp.NewStore(t.Context(), gcp.WithEndpoint(s.BucketURL))
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

// events collects the generation announced for each name.
type events struct {
	mu  sync.Mutex
	got map[string]string
}

func watch(t *testing.T, s *embed.Services) *events {
	t.Helper()
	e := &events{got: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- gcp.Receive(ctx, gcp.Subscription{Name: s.Subscription, Endpoint: s.PubSubAddr, Streams: embed.Streams},
			func(_ context.Context, m gcp.Message) bool {
				e.mu.Lock()
				defer e.mu.Unlock()
				if m.Attributes["eventType"] != "OBJECT_FINALIZE" || m.Attributes["bucketId"] != s.Bucket {
					t.Errorf("an event with %v", m.Attributes)
				}
				e.got[m.Attributes["objectId"]] = m.Attributes["objectGeneration"]
				return true
			})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("receiving: %v", err)
		}
	})
	return e
}

func (e *events) all() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]string{}
	for k, v := range e.got {
		out[k] = v
	}
	return out
}

// waitFor polls until as many names as wanted were announced, and compares.
func (e *events) waitFor(t *testing.T, want map[string]string) {
	t.Helper()
	eventually(t, func() bool { return len(e.all()) >= len(want) })
	if diff := cmp.Diff(want, e.all()); diff != "" {
		t.Errorf("generations announced by name (-want +got):\n%s", diff)
	}
}

// eventually polls until ok, for a minute at most.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Error("it did not come about within a minute")
			return
		}
	}
}

func hostileNames() []string {
	return []string{
		"plain", "with space", "a b/c d", "tab\tin it", `quotes"'` + "`", "-rf", "--help", "..x", "x..", "a/..b/c", "a/b..", "...",
		"\x01\x1b[31m\x7f", "ha#sh", "que?ry", "?alt=media", "a%2Fb", "%2F", "%", "100%", "%zz", "pl+us", "a&b=c", "&upload_id=x", "a&name=b",
		"semi;colon", "back\\slash", "$HOME", "$(id)", "`id`", "a|b>c<d*e?", "{input}", "new.line", "/leading", "trailing/", "a//b",
		"b/x/o/compose", "compose", "x/acl", "acl", "x/acl/allUsers", "x/rewriteTo/b/y/o/z", "x/copyTo/b/y/o/z", "o/o/o", "b/tidemill/o/x",
		"storage/v1/b", "upload/x", "_internal/delete_all", "🌊", "日本語/ファイル", "e\u0301", "\u00e9", "\u202egpj.exe", "\u200b",
		strings.Repeat("n", 255) + "/" + strings.Repeat("é", 127), strings.Repeat("d/", 511) + "xy",
	}
}

// Whatever its name, an uploaded object is there and is announced by that name.
// The larger ones go up in several requests.
func TestUploadsUnderHostileNames(t *testing.T) {
	t.Parallel()
	for name, pad := range map[string]int{"one request": 0, "resumable": 300 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, embed.Options{})
			store, announced := open(t, s), watch(t, s)
			ctx := testContext(t)
			want := map[string]string{}
			for _, name := range hostileNames() {
				data := append([]byte("content of "+name), make([]byte, pad)...)
				a, err := store.Put(ctx, s.Bucket, name, bytes.NewReader(data), bucket.PutOptions{Size: 0})
				if err != nil {
					t.Errorf("%.40q: %v", name, err)
					continue
				}
				want[name] = strconv.FormatInt(a.Generation, 10)
				r, _, err := store.Open(ctx, s.Bucket, name, a.Generation)
				if err != nil {
					t.Errorf("%.40q: %v", name, err)
					continue
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%.40q: read %d bytes, %v; want %d", name, len(got), err, len(data))
				}
				if err := r.Close(); err != nil {
					t.Errorf("%.40q: %v", name, err)
				}
			}
			listed := map[string]string{}
			err := store.List(ctx, s.Bucket, "", func(e bucket.Entry) error {
				listed[e.Name] = strconv.FormatInt(e.Generation, 10)
				return nil
			})
			if diff := cmp.Diff(want, listed); diff != "" || err != nil {
				t.Errorf("generations listed by name (-want +got): %v\n%s", err, diff)
			}
			announced.waitFor(t, want)
		})
	}
}

func TestDeleteHoldsItsCondition(t *testing.T) {
	t.Parallel()
	s := start(t, embed.Options{})
	store, ctx := open(t, s), testContext(t)
	for _, name := range []string{"plain", "a/b&c %2F;é", "x/acl"} {
		first, err := store.Put(ctx, s.Bucket, name, strings.NewReader("1"), bucket.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		second, err := store.Put(ctx, s.Bucket, name, strings.NewReader("2"), bucket.PutOptions{Replaces: first.Generation})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Delete(ctx, s.Bucket, name, first.Generation); !errors.Is(err, bucket.ErrPrecondition) {
			t.Errorf("%q: deleting a replaced generation: %v, want ErrPrecondition", name, err)
		}
		if a, err := store.Stat(ctx, s.Bucket, name); err != nil || a.Generation != second.Generation {
			t.Errorf("%q: after that: generation %d, %v", name, a.Generation, err)
		}
		if err := store.Delete(ctx, s.Bucket, name, second.Generation); err != nil {
			t.Errorf("%q: deleting what stands: %v", name, err)
		}
		if _, err := store.Stat(ctx, s.Bucket, name); !errors.Is(err, bucket.ErrNotExist) {
			t.Errorf("%q: after that: %v, want ErrNotExist", name, err)
		}
		if err := store.Delete(ctx, s.Bucket, name, second.Generation); err != nil {
			t.Errorf("%q: deleting what is gone: %v", name, err)
		}
	}
}

// send makes a request as curl would, and returns the status and the Location.
func send(t *testing.T, method, address string, body io.Reader, header http.Header) (status int, location string) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	return res.StatusCode, res.Header.Get("Location")
}

func TestPlainHTTPUploads(t *testing.T) {
	t.Parallel()
	s := start(t, embed.Options{Bucket: "in-box"})
	store, announced := open(t, s), watch(t, s)
	base := s.BucketURL + "/upload/storage/v1/b/in-box/o?uploadType="

	status, _ := send(t, http.MethodPost, base+"media&name="+url.QueryEscape("dir/a b&c"), strings.NewReader("simple"), nil)
	if status != http.StatusOK {
		t.Fatalf("a simple upload: %d", status)
	}

	large := bytes.Repeat([]byte("0123456789abcde\n"), 60<<20/16)
	status, address := send(t, http.MethodPost, base+"resumable&name="+url.QueryEscape("large&upload_id=x;y"), nil, nil)
	if status != http.StatusOK || !strings.HasPrefix(address, s.BucketURL) {
		t.Fatalf("a resumable upload: %d, Location %q", status, address)
	}
	const part = 20 << 20
	for from := 0; from < len(large); from += part {
		until := min(from+part, len(large))
		content := "bytes " + strconv.Itoa(from) + "-" + strconv.Itoa(until-1) + "/" + strconv.Itoa(len(large))
		status, _ = send(t, http.MethodPut, address, bytes.NewReader(large[from:until]), http.Header{"Content-Range": {content}})
		want := http.StatusPermanentRedirect
		if until == len(large) {
			want = http.StatusOK
		}
		if status != want {
			t.Fatalf("%s: %d, want %d", content, status, want)
		}
	}

	want := map[string]string{}
	for name, data := range map[string][]byte{"dir/a b&c": []byte("simple"), "large&upload_id=x;y": large} {
		r, a, err := store.Open(testContext(t), "in-box", name, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q: read %d bytes, %v; want %d", name, len(got), err, len(data))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		want[name] = strconv.FormatInt(a.Generation, 10)
	}
	announced.waitFor(t, want)
}

// An upload that doesn't get on holds up nobody else, and one that breaks off
// leaves nothing.
func TestSlowUploadIsAlone(t *testing.T) {
	t.Parallel()
	s := start(t, embed.Options{})
	store, ctx := open(t, s), testContext(t)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(s.BucketURL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /upload/storage/v1/b/"+s.Bucket+"/o?uploadType=media&name=slow HTTP/1.1\r\n"+
		"Host: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	// The server asks for the content as it begins to read it.
	if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 100 Continue"))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "half of it"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(ctx, s.Bucket, "quick", strings.NewReader("x"), bucket.PutOptions{}); err != nil {
		t.Errorf("an upload beside it: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Stat(ctx, s.Bucket, "slow"); !errors.Is(err, bucket.ErrNotExist) {
		t.Errorf("the broken one: %v, want ErrNotExist", err)
	}
}

// Redis' clock runs, in scripts too, and keys expire by it.
func TestRedisKeepsTime(t *testing.T) {
	t.Parallel()
	s := start(t, embed.Options{})
	ctx := testContext(t)
	o, err := redis.ParseURL(s.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(o)
	defer client.Close()
	script := redis.NewScript(`local t = redis.call('TIME') return t[1] * 1000000 + t[2]`)
	before := time.Now().UnixMicro()
	first, err := script.Run(ctx, client, nil).Int64()
	if err != nil {
		t.Fatal(err)
	}
	if after := time.Now().UnixMicro(); first < before || first > after {
		t.Errorf("TIME in a script is %d, want between %d and %d", first, before, after)
	}
	eventually(t, func() bool {
		later, err := script.Run(ctx, client, nil).Int64()
		return err == nil && later > first
	})
	if err := client.Set(ctx, "k", "v", 100*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return errors.Is(client.Get(ctx, "k").Err(), redis.Nil) })
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	s := start(t, embed.Options{})
	addr := strings.TrimPrefix(s.BucketURL, "http://")
	_, err := embed.Start(t.Context(), embed.Options{Addr: addr})
	if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "using that port") {
		t.Errorf("got %v, want an error that names %s", err, addr)
	}
}

// Two sets of services in one process don't mix, and stopping one twice is safe.
func TestStartedTwice(t *testing.T) {
	t.Parallel()
	one, two := start(t, embed.Options{}), start(t, embed.Options{})
	ctx := testContext(t)
	announced := watch(t, two)
	storeOne, storeTwo := open(t, one), open(t, two)
	if _, err := storeOne.Put(ctx, one.Bucket, "one", strings.NewReader("1"), bucket.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	a, err := storeTwo.Put(ctx, two.Bucket, "two", strings.NewReader("2"), bucket.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	announced.waitFor(t, map[string]string{"two": strconv.FormatInt(a.Generation, 10)})
	for range 2 {
		if err := one.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := storeOne.Stat(short, one.Bucket, "one"); err == nil || errors.Is(err, bucket.ErrNotExist) {
		t.Errorf("after Close: %v, want a failure to connect", err)
	}
	want := []string{"STORAGE_EMULATOR_HOST=" + two.BucketURL, "PUBSUB_EMULATOR_HOST=" + two.PubSubAddr}
	if diff := cmp.Diff(want, two.Env()); diff != "" {
		t.Errorf("Env (-want +got):\n%s", diff)
	}
}
