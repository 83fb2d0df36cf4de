package command

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		argv   []string
		stream bool
		want   string // part of the error; empty: none
	}{
		{"files", []string{"convert", "{input}", "--to={output}/a.png"}, false, ""},
		{"stream", []string{"gzip", "-c"}, true, ""},
		{"other braces", []string{"awk", "{print $1}", "{a,b}"}, true, ""},
		{"none", nil, false, "is empty"},
		{"empty program", []string{"", "x"}, false, "is empty"},
		{"input in stream", []string{"cat", "x={input}"}, true, "with io stream there is no such file"},
		{"output in stream", []string{"cat", "{output}"}, true, "with io stream there is no such file"},
		{"input as program", []string{"{input}"}, false, "an object is never executed"},
		{"output in program", []string{"/bin/{output}"}, false, "an object is never executed"},
		{"NUL", []string{"cat", "a\x00b"}, false, "NUL byte"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := Check(tc.argv, tc.stream)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Check = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	argv := []string{"p", "{input}", "-i={input}:{input}", "{output}/x", "{other}"}
	got, err := expand(argv, Run{Input: "/in/{output}", Output: "/out"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"p", "/in/{output}", "-i=/in/{output}:/in/{output}", "/out/x", "{other}"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("arguments (-want +got):\n%s", d)
	}
	if argv[1] != "{input}" {
		t.Errorf("expand changed the pipeline's own arguments: %q", argv)
	}
	if _, err := expand(argv, Run{Output: "/out"}); err == nil || !strings.Contains(err.Error(), "does not have") {
		t.Errorf("expand without an input = %v, want an error", err)
	}
}

func TestEnviron(t *testing.T) {
	t.Parallel()
	base := []string{
		"PATH=/bin", "HOME=/root", "EMPTY=",
		"TIDEMILL_LEASE=x", "REDIS_URL=redis://secret", "REDIS_PASSWORD=secret", "REDISTRIBUTE=yes",
		"GOOGLE_APPLICATION_CREDENTIALS=/k", "PUBSUB_EMULATOR_HOST=h", "STORAGE_EMULATOR_HOST=h",
		"TRACEPARENT=00-11111111111111111111111111111111-2222222222222222-01", "TRACESTATE=a=b",
		"MY_TOKEN=secret", "MY_TOKENS=fine", "ACME_A=secret", "ACME_B=secret",
	}
	r := Run{
		Item: item.Item{
			Object: item.Object{Bucket: "b", Name: "-rf \t\"$(id)\"", Generation: 7},
			Size:   42, ContentType: "text/\x00plain\nTIDEMILL_SIZE=1",
		},
		Attempt: 2, Pipeline: "p", Input: "/in",
	}
	want := []string{
		"PATH=/bin", "HOME=/root", "EMPTY=", "REDISTRIBUTE=yes", "MY_TOKENS=fine",
		"TIDEMILL_INPUT=/in", "TIDEMILL_OUTPUT=", "TIDEMILL_BUCKET=b", "TIDEMILL_OBJECT=-rf \t\"$(id)\"",
		"TIDEMILL_GENERATION=7", "TIDEMILL_CONTENT_TYPE=text/\uFFFDplain\nTIDEMILL_SIZE=1", "TIDEMILL_SIZE=42",
		"TIDEMILL_ATTEMPT=2", "TIDEMILL_PIPELINE=p",
	}
	if d := cmp.Diff(want, environ(base, []string{"MY_TOKEN", "ACME_*"}, r)); d != "" {
		t.Errorf("environment (-want +got):\n%s", d)
	}
	r.Item.ContentType = strings.Repeat("é", 100<<10)
	for _, kv := range environ(nil, nil, r) {
		if len(kv) > maxValue+100 {
			t.Errorf("a variable has %d bytes, more than exec takes", len(kv))
		}
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	const id, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for s, want := range map[string]bool{
		"00-" + id + "-" + span + "-01":                               true,
		"cc-" + id + "-" + span + "-01-later":                         true,
		"":                                                            false,
		"00-" + id + "-" + span:                                       false,
		"00-" + id + "-" + span + "-01-more":                          false,
		"ff-" + id + "-" + span + "-01":                               false,
		"00-" + strings.ToUpper(id) + "-" + span + "-01":              false,
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01":          false,
		"00-" + id + "-0000000000000000-01":                           false,
		"00-" + id + "-" + span + "-1":                                false,
		"cc-" + id + "-" + span + "-01-a\nb":                          false,
		"cc-" + id + "-" + span + "-01-" + strings.Repeat("a", 1<<10): false,
	} {
		if got := validTraceparent(s); got != want {
			t.Errorf("validTraceparent(%q) = %v, want %v", s, got, want)
		}
	}
}
