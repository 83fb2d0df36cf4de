package notify_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/notify"
)

// checkDecode decodes and asserts what must hold for any message at all.
func checkDecode(t *testing.T, attrs map[string]string, data []byte) {
	t.Helper()
	e, err := notify.Decode(attrs, data)
	if err != nil {
		if errors.Is(err, notify.ErrNotNotification) == errors.Is(err, notify.ErrUnknownEvent) {
			t.Errorf("error %v is of no kind, or of both", err)
		}
		if s := err.Error(); len(s) > 1024 || strings.ContainsAny(s, "\n\r\x1b\x00") {
			t.Errorf("error is long or not one line: %q", s)
		}
		if e != (notify.Event{}) {
			t.Errorf("an event came with the error: %+v", e)
		}
		return
	}
	generation, err := strconv.ParseInt(attrs["objectGeneration"], 10, 64)
	want := item.Object{Bucket: attrs["bucketId"], Name: attrs["objectId"], Generation: generation}
	if err != nil || e.Object != want {
		t.Errorf("object %+v, attributes say %+v (%v)", e.Object, want, err)
	}
	if e.Kind.String() != attrs["eventType"] {
		t.Errorf("kind %s, the attribute says %q", e.Kind, attrs["eventType"])
	}
	// The identity must survive the queue, which keeps it as one string.
	if o, run, err := item.ParseID(item.Item{Object: e.Object}.ID()); err != nil || run != 0 || o != e.Object {
		t.Errorf("as an item: %+v, %d, %v, want %+v", o, run, err, e.Object)
	}
	if e.Size < -1 || len(e.ContentType) > 1024 || len(e.Config) > 1024 || e.Overwrote < 0 || e.OverwrittenBy < 0 {
		t.Errorf("out of bounds: %+v", e)
	}
	if e.Traceparent != "" && e.Traceparent != attrs["googclient_traceparent"] && e.Traceparent != attrs["traceparent"] {
		t.Errorf("traceparent %q comes from no attribute", e.Traceparent)
	}

	again, payload, err := e.Encode()
	if err != nil {
		t.Fatalf("encoding %+v: %v", e, err)
	}
	back, err := notify.Decode(again, payload)
	if err != nil {
		t.Fatalf("decoding %v %q: %v", again, payload, err)
	}
	if diff := cmp.Diff(e, back); diff != "" {
		t.Errorf("re-encoded (-first +second):\n%s", diff)
	}
}

func FuzzDecodeAttributes(f *testing.F) {
	const config, at, gen = "projects/_/buckets/b/notificationConfigs/1", "2026-03-01T12:04:05.067123Z", "1772366645067123"
	f.Add("OBJECT_FINALIZE", "NONE", "tides", "in/a.tif", gen, at, "1772366000000001", "", config, traceparent)
	f.Add("OBJECT_DELETE", "JSON_API_V1", "b", "dir/", "1", "2026-03-01T12:04:05+01:00", "", "2", "", "")
	f.Add("OBJECT_ARCHIVE", "", "a.b_c-d", "a#1+2", "9223372036854775807", "", "", gen, config, "00-0-0-0")
	f.Add("OBJECT_METADATA_UPDATE", "NONE", "B", "\u202e größe", gen, "9999-12-31T23:59:59.999999999-23:59", "", "", "", "")
	f.Add("OBJECT_FREEZE", "NONE", "tides", "x", gen, at, "", "", "", "")
	f.Add("OBJECT_FINALIZE", "XML", "..", "a\nb", "+5", "0000-01-01T00:00:00Z", "-1", "007", "\x00", strings.ToUpper(traceparent))
	f.Fuzz(func(t *testing.T, kind, format, bucket, object, generation, at, overwrote, by, config, trace string) {
		checkDecode(t, map[string]string{
			"eventType": kind, "payloadFormat": format, "bucketId": bucket, "objectId": object, "objectGeneration": generation,
			"eventTime": at, "overwroteGeneration": overwrote, "overwrittenByGeneration": by, "notificationConfig": config,
			"googclient_traceparent": trace, "traceparent": traceparent,
		}, nil)
	})
}

func FuzzDecodePayload(f *testing.F) {
	for _, s := range []string{
		payload, "", "{}", "null", "[]", `"x"`, `{"size":"12"}`, `{"size":12,"generation":1772366645067123}`, `{"size":{}}`, `{"SIZE":"3","size":"-4"}`,
		`{"name":"other"}`, `{"bucket":"tides","contentType":"text/plain; charset=\"utf-8\""}`, `{"contentType":"<\ud800\u0001>"}`, `{"size":"18446744073709551615"}`,
		strings.Repeat("[", 10_000),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkDecode(t, attributes(), data) })
}
