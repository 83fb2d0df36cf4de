package notify_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/notify"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// attributes are those of an upload that replaced an older generation, as
// Cloud Storage publishes them, with the given changes; "-" removes one.
func attributes(changes ...string) map[string]string {
	attrs := map[string]string{
		"notificationConfig":  "projects/_/buckets/tides/notificationConfigs/3",
		"eventType":           "OBJECT_FINALIZE",
		"payloadFormat":       "JSON_API_V1",
		"bucketId":            "tides",
		"objectId":            "in/2026/märz #1.tif",
		"objectGeneration":    "1772366645067123",
		"eventTime":           "2026-03-01T12:04:05.067123Z",
		"overwroteGeneration": "1772366000000001",
	}
	for i := 0; i+1 < len(changes); i += 2 {
		if changes[i+1] == "-" {
			delete(attrs, changes[i])
		} else {
			attrs[changes[i]] = changes[i+1]
		}
	}
	return attrs
}

const payload = `{
  "kind": "storage#object",
  "id": "tides/in/2026/märz #1.tif/1772366645067123",
  "selfLink": "https://www.googleapis.com/storage/v1/b/tides/o/in%2F2026%2Fm%C3%A4rz%20%231.tif",
  "name": "in/2026/märz #1.tif",
  "bucket": "tides",
  "generation": "1772366645067123",
  "metageneration": "1",
  "contentType": "image/tiff",
  "timeCreated": "2026-03-01T12:04:05.067Z",
  "updated": "2026-03-01T12:04:05.067Z",
  "storageClass": "STANDARD",
  "size": "5368709121",
  "md5Hash": "1B2M2Y8AsgTpgAmY7PhCfg==",
  "metadata": {"name": "not the name", "size": "not the size"},
  "crc32c": "AAAAAA==",
  "etag": "CPO0oqX2gJEDEAE="
}
`

func event(change func(*notify.Event)) notify.Event {
	e := notify.Event{
		Kind:        notify.Finalize,
		Object:      item.Object{Bucket: "tides", Name: "in/2026/märz #1.tif", Generation: 1772366645067123},
		Size:        5368709121,
		ContentType: "image/tiff",
		EventTime:   time.Date(2026, 3, 1, 12, 4, 5, 67_123_000, time.UTC),
		Overwrote:   1772366000000001,
		Config:      "projects/_/buckets/tides/notificationConfigs/3",
	}
	if change != nil {
		change(&e)
	}
	return e
}

func bare(e *notify.Event) { e.Size, e.ContentType = -1, "" }

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		attrs map[string]string
		data  string
		want  notify.Event
	}{
		{"an upload with its resource", attributes(), payload, event(nil)},
		{"without a payload", attributes("payloadFormat", "NONE"), "", event(bare)},
		{"data that is not announced is not read", attributes("payloadFormat", "NONE"), `{"name":"other"}`, event(bare)},
		{"no format is no payload", attributes("payloadFormat", "-"), `{"name":"other"}`, event(bare)},
		{"the payload was dropped on the way", attributes(), "", event(bare)},
		{"a payload that says nothing", attributes(), "{}", event(bare)},
		{"a stand-in without a configuration, in whole seconds", attributes("notificationConfig", "-", "eventTime", "2026-03-01T12:04:05Z", "overwroteGeneration", "-"),
			payload, event(func(e *notify.Event) {
				e.Config, e.Overwrote, e.EventTime = "", 0, time.Date(2026, 3, 1, 12, 4, 5, 0, time.UTC)
			})},
		{"numbers instead of strings", attributes(), `{"generation": 1772366645067123, "size": 7, "contentType": null}`,
			event(func(e *notify.Event) { e.Size, e.ContentType = 7, "" })},
		{"an empty object", attributes(), `{"size": "0"}`, event(func(e *notify.Event) { e.Size, e.ContentType = 0, "" })},
		{"replaced by another", attributes("eventType", "OBJECT_DELETE", "overwroteGeneration", "-", "overwrittenByGeneration", "1772366645067999"),
			payload, event(func(e *notify.Event) { e.Kind, e.Overwrote, e.OverwrittenBy = notify.Delete, 0, 1772366645067999 })},
		{"archived", attributes("eventType", "OBJECT_ARCHIVE"), payload, event(func(e *notify.Event) { e.Kind = notify.Archive })},
		{"metadata", attributes("eventType", "OBJECT_METADATA_UPDATE"), payload, event(func(e *notify.Event) { e.Kind = notify.MetadataUpdate })},
		{"begun", attributes("eventType", "OBJECT_INITIALIZE"), payload, event(func(e *notify.Event) { e.Kind = notify.Initialize })},
		{"a time in another zone", attributes("eventTime", "2026-03-01T13:04:05.067123+01:00"), payload, event(nil)},
		{"no time", attributes("eventTime", "-"), payload, event(func(e *notify.Event) { e.EventTime = time.Time{} })},
		{"the client's trace first", attributes("googclient_traceparent", traceparent, "traceparent", strings.Replace(traceparent, "4bf", "aaa", 1)),
			payload, event(func(e *notify.Event) { e.Traceparent = traceparent })},
		{"a malformed trace is passed over", attributes("googclient_traceparent", "00-zz", "traceparent", traceparent),
			payload, event(func(e *notify.Event) { e.Traceparent = traceparent })},
		{"no trace is well-formed", attributes("googclient_traceparent", strings.ToUpper(traceparent), "traceparent", traceparent+"-x"), payload, event(nil)},
		{"custom attributes", attributes("team", "ocean", "size", "9"), payload, event(nil)},
		{"unusable texts are left out", attributes("notificationConfig", strings.Repeat("c", 1025)), `{"contentType": "a\u0000b"}`,
			event(func(e *notify.Event) { bare(e); e.Config = "" })},
		{"an endless content type is left out", attributes(), `{"contentType": "` + strings.Repeat("x", 1025) + `"}`, event(bare)},
		{"a name like an option in a short bucket", attributes("bucketId", "b", "objectId", "--rm=../a+1#2", "payloadFormat", "NONE"), "",
			event(func(e *notify.Event) { bare(e); e.Object.Bucket, e.Object.Name = "b", "--rm=../a+1#2" })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			before := maps.Clone(tc.attrs)
			got, err := notify.Decode(tc.attrs, []byte(tc.data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, tc.attrs); diff != "" {
				t.Errorf("the message's attributes changed:\n%s", diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const not = "not a Cloud Storage notification: "
	long := strings.Repeat("n", 1025)
	for _, tc := range []struct {
		name  string
		attrs map[string]string
		data  string
		is    error
		want  string
	}{
		{"nothing", nil, "", notify.ErrNotNotification, not + "attribute eventType is missing or empty"},
		{"someone's message", map[string]string{"hello": "world"}, "hi", notify.ErrNotNotification, not + "attribute eventType is missing or empty"},
		{"no bucket", attributes("bucketId", "-"), "", notify.ErrNotNotification, not + "attribute bucketId is missing or empty"},
		{"no object", attributes("objectId", ""), "", notify.ErrNotNotification, not + "attribute objectId is missing or empty"},
		{"no generation", attributes("objectGeneration", "-"), "", notify.ErrNotNotification, not + "attribute objectGeneration is missing or empty"},
		{"a future event", attributes("eventType", "OBJECT_FREEZE", "objectGeneration", "-"), "", notify.ErrUnknownEvent,
			`unknown Cloud Storage event: attribute eventType="OBJECT_FREEZE"`},
		{"an event type in small letters", attributes("eventType", "object_finalize\n"), "", notify.ErrUnknownEvent,
			`unknown Cloud Storage event: attribute eventType="object_finalize\n"`},
		{"a bucket that is a path", attributes("bucketId", "a/b"), "", notify.ErrNotNotification,
			not + `attribute bucketId="a/b": a bucket name begins with a letter or digit, and has only those, '-', '_' and '.'`},
		{"a bucket that climbs", attributes("bucketId", ".."), "", notify.ErrNotNotification,
			not + `attribute bucketId="..": a bucket name begins with a letter or digit, and has only those, '-', '_' and '.'`},
		{"an endless bucket", attributes("bucketId", strings.Repeat("b", 256)), "", notify.ErrNotNotification,
			not + `attribute bucketId="` + strings.Repeat("b", 64) + `"... (256 bytes): a bucket name has at most 255 bytes`},
		{"a name with a line feed", attributes("objectId", "a\nb"), "", notify.ErrNotNotification,
			not + `attribute objectId="a\nb": the name contains a carriage return or a line feed`},
		{"a name too long", attributes("objectId", long), "", notify.ErrNotNotification,
			not + `attribute objectId="` + long[:64] + `"... (1025 bytes): the name has 1025 bytes, more than the 1024 that Cloud Storage allows`},
		{"a name that is not UTF-8", attributes("objectId", "\xff\x1b"), "", notify.ErrNotNotification,
			not + `attribute objectId="\xff\x1b": the name is not valid UTF-8`},
		{"generation 0", attributes("objectGeneration", "0"), "", notify.ErrNotNotification, not + `attribute objectGeneration="0": a generation is positive`},
		{"a negative generation", attributes("objectGeneration", "-5"), "", notify.ErrNotNotification,
			not + `attribute objectGeneration="-5": it is not a plain decimal number of 63 bits`},
		{"another spelling", attributes("objectGeneration", "+5"), "", notify.ErrNotNotification,
			not + `attribute objectGeneration="+5": it is not a plain decimal number of 63 bits`},
		{"leading zeros", attributes("overwroteGeneration", "05"), "", notify.ErrNotNotification,
			not + `attribute overwroteGeneration="05": it is not a plain decimal number of 63 bits`},
		{"too large", attributes("overwrittenByGeneration", "9223372036854775808"), "", notify.ErrNotNotification,
			not + `attribute overwrittenByGeneration="9223372036854775808": it is not a plain decimal number of 63 bits`},
		{"no time", attributes("eventTime", "yesterday"), "", notify.ErrNotNotification, not + `attribute eventTime="yesterday": it is not a time of RFC 3339`},
		{"an odd year", attributes("eventTime", "0000-01-01T00:00:00+23:00"), "", notify.ErrNotNotification,
			not + `attribute eventTime="0000-01-01T00:00:00+23:00": the year is not between 1970 and 9999`},
		{"another format", attributes("payloadFormat", "XML"), "", notify.ErrNotNotification,
			not + `attribute payloadFormat="XML": known are NONE and JSON_API_V1`},
		{"no JSON", attributes(), "<xml>", notify.ErrNotNotification,
			not + `the payload is not an object's resource in JSON: invalid character '<' looking for beginning of value`},
		{"more than JSON", attributes(), "{} {}", notify.ErrNotNotification,
			not + `the payload is not an object's resource in JSON: invalid character '{' after top-level value`},
		{"a huge payload", attributes(), `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, notify.ErrNotNotification,
			not + `the payload has 1048587 bytes, more than the 1048576 of any object's resource`},
		{"another bucket", attributes(), `{"bucket":"other"}`, notify.ErrNotNotification,
			not + `the payload's bucket "other" contradicts attribute bucketId="tides"`},
		{"another name", attributes(), `{"name":"in/b\n"}`, notify.ErrNotNotification,
			not + `the payload's name "in/b\n" contradicts attribute objectId="in/2026/märz #1.tif"`},
		{"another generation", attributes(), `{"generation":"5"}`, notify.ErrNotNotification,
			not + `the payload's generation "5" contradicts attribute objectGeneration="1772366645067123"`},
		{"an odd size", attributes(), `{"size":"-1"}`, notify.ErrNotNotification, not + `the payload's size "-1": it is not a plain decimal number of 63 bits`},
		{"a size that is no number", attributes(), `{"size":1e3}`, notify.ErrNotNotification, not + `the payload's size "1e3": it is not a plain decimal number of 63 bits`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := notify.Decode(tc.attrs, []byte(tc.data))
			if err == nil {
				t.Fatalf("decoded %+v", got)
			}
			if !errors.Is(err, tc.is) {
				t.Errorf("error %v is not %v", err, tc.is)
			}
			if err.Error() != tc.want {
				t.Errorf("got  %s\nwant %s", err, tc.want)
			}
			if got != (notify.Event{}) {
				t.Errorf("an event came with the error: %+v", got)
			}
		})
	}
}

func TestPlaceholder(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		size int64
		want bool
	}{
		{"dir/", 0, true}, {"dir/", -1, true}, {"dir/", 1, false}, {"dir/file", 0, false}, {"dir/file", -1, false}, {"/", 0, true},
	} {
		e := notify.Event{Object: item.Object{Name: tc.name}, Size: tc.size}
		if got := e.Placeholder(); got != tc.want {
			t.Errorf("%q of %d bytes: Placeholder = %t, want %t", tc.name, tc.size, got, tc.want)
		}
	}
}

func TestEncodeIsWhatCloudStorageSends(t *testing.T) {
	t.Parallel()
	attrs, data, err := event(func(e *notify.Event) { e.Traceparent = traceparent }).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(attributes("googclient_traceparent", traceparent), attrs); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	want := `{"kind":"storage#object","bucket":"tides","name":"in/2026/märz #1.tif","generation":"1772366645067123","size":"5368709121","contentType":"image/tiff"}`
	if string(data) != want {
		t.Errorf("payload\ngot  %s\nwant %s", data, want)
	}

	attrs, data, err = event(bare).Encode()
	if err != nil || len(data) > 0 || attrs["payloadFormat"] != "NONE" {
		t.Errorf("without size and type: %v, data %q, error %v", attrs, data, err)
	}
}

func TestKindNames(t *testing.T) {
	t.Parallel()
	for kind, want := range map[notify.Kind]string{
		notify.Finalize: "OBJECT_FINALIZE", notify.Delete: "OBJECT_DELETE", notify.Archive: "OBJECT_ARCHIVE",
		notify.MetadataUpdate: "OBJECT_METADATA_UPDATE", notify.Initialize: "OBJECT_INITIALIZE", 0: "unknown", 99: "unknown",
	} {
		if got := fmt.Sprint(kind); got != want {
			t.Errorf("kind %d is called %s, want %s", int(kind), got, want)
		}
	}
}
