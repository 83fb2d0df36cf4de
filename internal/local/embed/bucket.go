package embed

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

const pubSubVariable = "PUBSUB_EMULATOR_HOST"

// environment guards the variable above while newBucket has it set.
var environment sync.Mutex //nolint:gochecknoglobals // what it guards is as global

// newBucket makes a bucket that announces each upload to the topic. Its server
// finds Pub/Sub by the environment and in no other way, and looks only while it
// is made: the variable is set for that long. It never closes its publisher, so
// each Start leaves an idle connection's goroutines behind.
//
// The events come from EventOptions rather than a notification configuration of
// the bucket: the latter makes a new publisher for every event.
func newBucket(o Options, pubSubAddr, host string) (*fakestorage.Server, error) {
	environment.Lock()
	defer environment.Unlock()
	before, had := os.LookupEnv(pubSubVariable)
	if err := os.Setenv(pubSubVariable, pubSubAddr); err != nil {
		return nil, fmt.Errorf("telling the bucket of Pub/Sub: %w", err)
	}
	defer func() {
		if had {
			_ = os.Setenv(pubSubVariable, before) // it held that value before
		} else {
			_ = os.Unsetenv(pubSubVariable)
		}
	}()
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener:  true, // ours takes the requests, with mended in between
		Scheme:      "http",
		ExternalURL: "http://" + host,
		PublicHost:  host,
		EventOptions: fakestorage.EventManagerOptions{
			ProjectID: o.Project,
			TopicName: o.Topic,
			Bucket:    o.Bucket,
			NotifyOn:  fakestorage.EventNotificationOptions{Finalize: true},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("setting up bucket %s: %w", o.Bucket, err)
	}
	fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: o.Bucket})
	return fake, nil
}

// mended puts right what the fake gets wrong and somebody would notice:
//   - it ignores the condition of a delete;
//   - it answers a delete with null, at which gcloud reports a failure;
//   - it takes in a simple upload while holding a lock on everything, so that one
//     slow client stops all others;
//   - it puts the object's name unescaped into the address of a resumable upload,
//     where an & in it breaks the address.
func mended(fake *fakestorage.Server) http.Handler {
	next := fake.HTTPHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		switch {
		case r.Method == http.MethodDelete && query.Get("uploadType") == "":
			answer := &deleteAnswer{ResponseWriter: w}
			next.ServeHTTP(answer, pinDelete(r, query))
			answer.finish(query.Get("ifGenerationMatch") != "" && stands(fake, r.URL))
		case query.Get("uploadType") == "media":
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, "reading the content: "+err.Error(), http.StatusBadRequest)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		case query.Get("uploadType") == "resumable":
			next.ServeHTTP(&uploadAddress{ResponseWriter: w}, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// pinDelete turns the condition of a delete into the generation to delete, which
// needs no lock against a concurrent upload.
func pinDelete(r *http.Request, query url.Values) *http.Request {
	generation := query.Get("ifGenerationMatch")
	if generation == "" {
		return r
	}
	pinned := r.Clone(r.Context())
	pinned.URL.RawQuery = url.Values{"generation": {generation}}.Encode()
	return pinned
}

// deleteAnswer holds back the answers that finish gives differently.
type deleteAnswer struct {
	http.ResponseWriter
	held int // their status; 0: passed on
}

func (w *deleteAnswer) WriteHeader(code int) {
	if code == http.StatusOK || code == http.StatusNotFound {
		w.held = code
		return
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *deleteAnswer) Write(p []byte) (int, error) {
	if w.held != 0 {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// finish answers; otherVersion says that what was not found stands there at
// another generation.
func (w *deleteAnswer) finish(otherVersion bool) {
	code, reason := http.StatusNotFound, "notFound"
	switch {
	case w.held == 0:
		return
	case w.held == http.StatusOK:
		w.ResponseWriter.WriteHeader(http.StatusNoContent)
		return
	case otherVersion:
		code, reason = http.StatusPreconditionFailed, "conditionNotMet"
	}
	w.ResponseWriter.WriteHeader(code) // of the type application/json, as the fake set it
	_, _ = fmt.Fprintf(w.ResponseWriter, `{"error":{"code":%d,"message":%q,"errors":[{"domain":"global","reason":%q,"message":%q}]}}`,
		code, http.StatusText(code), reason, http.StatusText(code))
}

// stands tells whether any generation of the object that u addresses exists.
func stands(fake *fakestorage.Server, u *url.URL) bool {
	_, rest, _ := strings.Cut(u.EscapedPath(), "/b/")
	bucketName, name, _ := strings.Cut(rest, "/o/")
	bucketName, bucketErr := url.PathUnescape(bucketName)
	name, nameErr := url.PathUnescape(name)
	if bucketErr != nil || nameErr != nil {
		return false
	}
	o, err := fake.GetObjectStreaming(bucketName, name)
	if err != nil {
		return false
	}
	_ = o.Close() // it is in memory
	return true
}

// uploadAddress takes the name out of the address of a resumable upload; its ID
// is all that the fake reads.
type uploadAddress struct {
	http.ResponseWriter
}

func (w *uploadAddress) WriteHeader(code int) {
	for _, key := range []string{"Location", "X-Goog-Upload-URL"} {
		address := w.Header().Get(key)
		before, _, found := strings.Cut(address, "&name=")
		if id := strings.LastIndex(address, "&upload_id="); found && id >= 0 {
			w.Header().Set(key, before+address[id:])
		}
	}
	w.ResponseWriter.WriteHeader(code)
}
