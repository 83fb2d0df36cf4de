package obs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tidemill/internal/obs"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

type fixedClock struct{ zapcore.Clock }

func (fixedClock) Now() time.Time {
	return time.Date(2026, 3, 1, 13, 4, 5, 67_000_800, time.FixedZone("", 3600))
}

func newLogger(t *testing.T, o obs.LogOptions) (*zap.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	o.Service, o.Version, o.Writer = "worker", "v1.2.3", &out
	log, err := obs.NewLogger(o)
	if err != nil {
		t.Fatal(err)
	}
	return log.WithOptions(zap.WithClock(fixedClock{zapcore.DefaultClock})), &out
}

// decode reads one entry, which must be exactly one line and have no key twice.
func decode(t *testing.T, out *bytes.Buffer) map[string]any {
	t.Helper()
	if n := bytes.Count(out.Bytes(), []byte("\n")); n != 1 || !bytes.HasSuffix(out.Bytes(), []byte("}\n")) {
		t.Fatalf("got %d lines, want one: %q", n, out)
	}
	dec := json.NewDecoder(bytes.NewReader(out.Bytes()))
	dec.UseNumber()
	if _, err := dec.Token(); err != nil { // the opening brace
		t.Fatal(err)
	}
	got := map[string]any{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		if _, twice := got[key.(string)]; twice {
			t.Errorf("key %q is there twice in %q", key, out)
		}
		got[key.(string)] = value
	}
	if !json.Valid(out.Bytes()) {
		t.Fatalf("not JSON: %q", out)
	}
	out.Reset()
	return got
}

func here(t *testing.T, linesBefore int) map[string]any {
	t.Helper()
	pc, file, line, ok := runtime.Caller(1)
	if !ok {
		t.Fatal("no caller")
	}
	return map[string]any{
		"file": file, "line": strconv.Itoa(line - linesBefore), "function": runtime.FuncForPC(pc).Name(),
	}
}

func TestJSONEntry(t *testing.T) {
	t.Parallel()
	log, out := newLogger(t, obs.LogOptions{Project: "tide", Level: "debug"})

	log.Info("leased", zap.Int("attempt", 2), zap.Duration("took", 1500*time.Millisecond),
		zap.Time("due", time.Unix(0, 0)), obs.Label("pipeline", "images"), obs.Trace(traceparent))
	want := map[string]any{
		"severity":                              "INFO",
		"message":                               "leased",
		"time":                                  "2026-03-01T12:04:05.0670008Z",
		"attempt":                               json.Number("2"),
		"took":                                  json.Number("1.5"),
		"due":                                   "1970-01-01T00:00:00Z",
		"logging.googleapis.com/sourceLocation": here(t, 9),
		"logging.googleapis.com/labels":         map[string]any{"pipeline": "images"},
		"logging.googleapis.com/trace":          "projects/tide/traces/4bf92f3577b34da6a3ce929d0e0e4736",
		"logging.googleapis.com/spanId":         "00f067aa0ba902b7",
		"logging.googleapis.com/trace_sampled":  true,
	}
	if diff := cmp.Diff(want, decode(t, out)); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}

	log.Debug("bare")
	want = map[string]any{
		"severity":                              "DEBUG",
		"message":                               "bare",
		"time":                                  "2026-03-01T12:04:05.0670008Z",
		"logging.googleapis.com/sourceLocation": here(t, 5),
	}
	if diff := cmp.Diff(want, decode(t, out)); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
}

func TestSeverities(t *testing.T) {
	t.Parallel()
	log, out := newLogger(t, obs.LogOptions{Level: "debug"})
	for level, want := range map[zapcore.Level]string{
		zapcore.DebugLevel: "DEBUG", zapcore.InfoLevel: "INFO", zapcore.WarnLevel: "WARNING", zapcore.ErrorLevel: "ERROR",
		zapcore.DPanicLevel: "CRITICAL", zapcore.PanicLevel: "ALERT", zapcore.FatalLevel: "EMERGENCY",
		zapcore.Level(42): "DEFAULT",
	} {
		// Straight to the core: a logger would panic or exit at the last ones.
		if err := log.Core().Write(zapcore.Entry{Level: level, Message: "m"}, nil); err != nil {
			t.Fatal(err)
		}
		got := decode(t, out)
		if got["severity"] != want {
			t.Errorf("level %s: severity %v, want %s", level, got["severity"], want)
		}
		_, reported := got["@type"]
		if wantReport := level >= zapcore.ErrorLevel; reported != wantReport {
			t.Errorf("level %s: goes to Error Reporting: %t, want %t", level, reported, wantReport)
		}
	}
}

//go:noinline
func failDeep(log *zap.Logger) { log.Error("cannot publish", zap.Error(errors.New("no space"))) }

func TestErrorEntry(t *testing.T) {
	t.Parallel()
	log, out := newLogger(t, obs.LogOptions{})
	failDeep(log)
	got := decode(t, out)
	stack, ok := got["stack_trace"].(string)
	if !ok {
		t.Fatalf("stack_trace is %T", got["stack_trace"])
	}
	delete(got, "stack_trace")
	delete(got, "logging.googleapis.com/sourceLocation") // TestJSONEntry compares one
	want := map[string]any{
		"severity":       "ERROR",
		"message":        "cannot publish",
		"time":           "2026-03-01T12:04:05.0670008Z",
		"error":          "no space",
		"@type":          "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent",
		"serviceContext": map[string]any{"service": "worker", "version": "v1.2.3"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}

	// What Error Reporting parses: message, goroutine header, then frames of
	// two lines, the first of them the caller's and not the logger's.
	lines := strings.Split(stack, "\n")
	if len(lines) < 7 {
		t.Fatalf("stack trace has %d lines:\n%s", len(lines), stack)
	}
	if lines[0] != "cannot publish" || lines[1] != "" {
		t.Errorf("stack trace begins %q, %q", lines[0], lines[1])
	}
	if !strings.HasPrefix(lines[2], "goroutine ") || !strings.HasSuffix(lines[2], "]:") {
		t.Errorf("no goroutine header: %q", lines[2])
	}
	if !strings.Contains(lines[3], "obs_test.failDeep(") || !strings.HasPrefix(lines[4], "\t") ||
		!strings.Contains(lines[4], "logger_test.go:") {
		t.Errorf("first frame is %q %q", lines[3], lines[4])
	}
	if !strings.Contains(lines[5], "obs_test.TestErrorEntry(") {
		t.Errorf("second frame is %q", lines[5])
	}
	if strings.Contains(stack, "go.uber.org/zap") {
		t.Errorf("the logger's frames are in the trace:\n%s", stack)
	}
}

func TestLabelsAndTraceMergeAcrossWith(t *testing.T) {
	t.Parallel()
	log, out := newLogger(t, obs.LogOptions{})
	parent := log.With(obs.Label("pipeline", "images"), obs.Label("worker", "w1"), zap.String("a", "1"), obs.Trace(traceparent))
	child := parent.With(obs.Label("worker", "w2"), zap.String("b", "2"))
	sibling := parent.With(obs.Label("other", "x"))

	child.Info("m", obs.Label("item", "i"), obs.Label("item", "j"), obs.Label("", "dropped"), obs.Trace("nonsense"))
	got := decode(t, out)
	if diff := cmp.Diff(map[string]any{"pipeline": "images", "worker": "w2", "item": "j"}, got["logging.googleapis.com/labels"]); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if got["a"] != "1" || got["b"] != "2" {
		t.Errorf("fields of With are lost: %v", got)
	}
	// No project: the bare identifier. A malformed one does not replace it.
	if got["logging.googleapis.com/trace"] != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("trace = %v", got["logging.googleapis.com/trace"])
	}
	parent.Info("m")
	if diff := cmp.Diff(map[string]any{"pipeline": "images", "worker": "w1"}, decode(t, out)["logging.googleapis.com/labels"]); diff != "" {
		t.Errorf("the parent's labels changed (-want +got):\n%s", diff)
	}
	sibling.Info("m", obs.Trace("00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00"))
	got = decode(t, out)
	if diff := cmp.Diff(map[string]any{"pipeline": "images", "worker": "w1", "other": "x"}, got["logging.googleapis.com/labels"]); diff != "" {
		t.Errorf("the sibling's labels (-want +got):\n%s", diff)
	}
	if got["logging.googleapis.com/spanId"] != "bbbbbbbbbbbbbbbb" || got["logging.googleapis.com/trace_sampled"] != false {
		t.Errorf("the entry's own trace did not win: %v", got)
	}
}

func TestSpecialFieldsStayAtTheTop(t *testing.T) {
	t.Parallel()
	log, out := newLogger(t, obs.LogOptions{})
	log.Named("lease").With(zap.Namespace("request")).Info("m", zap.String("message", "theirs"),
		zap.Int("n", 1), obs.Label("k", "v"))
	got := decode(t, out)
	delete(got, "logging.googleapis.com/sourceLocation")
	want := map[string]any{
		"severity": "INFO", "message": "m", "time": "2026-03-01T12:04:05.0670008Z", "logger": "lease",
		"logging.googleapis.com/labels": map[string]any{"k": "v"},
		"request":                       map[string]any{"_message": "theirs", "n": json.Number("1")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}

	// A caller's field must not hide the entry's own, whichever comes last.
	fields := []zap.Field{zap.String("severity", "LOW"), zap.String("logging.googleapis.com/trace", "x"), zap.Int("time", 3)}
	log.Warn("m", fields...)
	got = decode(t, out)
	if got["severity"] != "WARNING" || got["_severity"] != "LOW" || got["_logging.googleapis.com/trace"] != "x" || got["_time"] != json.Number("3") {
		t.Errorf("entry %v", got)
	}
	if fields[0].Key != "severity" {
		t.Errorf("the caller's slice was changed: %v", fields)
	}
}

func TestLevelIsHonoured(t *testing.T) {
	t.Parallel()
	for _, format := range []string{obs.FormatJSON, obs.FormatConsole} {
		log, out := newLogger(t, obs.LogOptions{Level: "warn", Format: format})
		log.Info("hidden")
		log.With(zap.Int("a", 1)).Debug("hidden")
		if out.Len() > 0 {
			t.Errorf("%s: a lower level was written: %q", format, out)
		}
		log.Warn("seen")
		if !strings.Contains(out.String(), "seen") {
			t.Errorf("%s: a warning was not written: %q", format, out)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		o    obs.LogOptions
		want string
	}{
		{obs.LogOptions{Service: "s", Level: "verbose"}, `log level "verbose" is unknown: use debug, info, warn or error`},
		{obs.LogOptions{Service: "s", Format: "xml"}, `log format "xml" is unknown: use json or console`},
		{obs.LogOptions{}, "making a logger: no service is named; Error Reporting needs one"},
	} {
		_, err := obs.NewLogger(tc.o)
		if err == nil || err.Error() != tc.want {
			t.Errorf("NewLogger(%+v) = %v, want %q", tc.o, err, tc.want)
		}
	}
}

type brokenWriter struct{ synced int }

func (*brokenWriter) Write([]byte) (int, error) { return 0, errors.New("pipe is closed") }
func (w *brokenWriter) Sync() error             { w.synced++; return nil }

func TestWriterErrorsAndSync(t *testing.T) {
	t.Parallel()
	for _, format := range []string{obs.FormatJSON, obs.FormatConsole} {
		w := &brokenWriter{}
		log, err := obs.NewLogger(obs.LogOptions{Service: "s", Format: format, Writer: w})
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Core().Write(zapcore.Entry{Message: "m"}, nil); err == nil || err.Error() != "pipe is closed" {
			t.Errorf("%s: the write error is lost: %v", format, err)
		}
		if err := log.Sync(); err != nil || w.synced != 1 {
			t.Errorf("%s: Sync = %v, the writer was synced %d times", format, err, w.synced)
		}
	}
}

func TestConcurrentLogging(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 50
	for _, format := range []string{obs.FormatJSON, obs.FormatConsole} {
		log, out := newLogger(t, obs.LogOptions{Format: format})
		parent := log.With(obs.Label("pipeline", "p"))
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				own := parent.With(obs.Label("worker", fmt.Sprint("w", w)))
				for i := range each {
					own.Info("m", zap.Int("i", i), obs.Trace(traceparent))
				}
			})
		}
		wg.Wait()
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != writers*each {
			t.Fatalf("%s: %d lines, want %d", format, len(lines), writers*each)
		}
		seen := map[string]int{}
		for _, line := range lines {
			key := line
			if format == obs.FormatJSON {
				var got struct {
					I      int
					Labels map[string]string `json:"logging.googleapis.com/labels"`
				}
				if err := json.Unmarshal([]byte(line), &got); err != nil {
					t.Fatalf("%v in %q", err, line)
				}
				key = fmt.Sprint(got.Labels, got.I)
			}
			seen[key]++
		}
		if len(seen) != writers*each {
			t.Errorf("%s: %d different lines, want %d", format, len(seen), writers*each)
		}
	}
}
