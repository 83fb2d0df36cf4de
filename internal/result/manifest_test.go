package result_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"tidemill/internal/result"
)

func TestManifestRoundTrip(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	want := result.Manifest{
		Version: result.Version, Source: "gs://b/{object}\u2028", Generation: 1<<63 - 1, Run: 1,
		Pipeline: "p", Worker: "p-0", Attempt: 2, Started: start, Finished: start.Add(time.Second),
		Results: []result.File{{Path: "a/b.png", URL: "gs://out/x/a/b.png", Generation: 5, Size: 1 << 40, CRC32C: 1<<32 - 1}},
	}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	// 64-bit numbers are strings: a reader with floating-point numbers must not round them.
	if !strings.Contains(string(data), `"generation":"9223372036854775807"`) {
		t.Errorf("the generation is not written as a string: %s", data)
	}
	got, err := result.ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		"":                             "unexpected end",
		"garbage":                      "invalid character",
		"[]":                           "cannot unmarshal",
		"null":                         "version 0, this program knows 1",
		"{}":                           "version 0, this program knows 1",
		`{"version":2}`:                "version 2, this program knows 1",
		`{"version":1}{"version":1}`:   "after top-level value",
		`{"version":1,"generation":5}`: "invalid use of ,string",
	} {
		if m, err := result.ParseManifest([]byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseManifest(%q) = %+v, %v; want an error that says %q", data, m, err, want)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"source":"gs://b/n","generation":"1","results":[{"path":"a","generation":"2","size":"3"}]}`))
	f.Add([]byte(`{"version":1,"results":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := result.ParseManifest(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%+v can't be written: %v", m, err)
		}
		got, err := result.ParseManifest(again)
		if err != nil {
			t.Fatalf("%s is not read again: %v", again, err)
		}
		if diff := gocmp.Diff(m, got); diff != "" {
			t.Errorf("read again (-want +got):\n%s", diff)
		}
	})
}
