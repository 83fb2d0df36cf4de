package obs_test

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"tidemill/internal/obs"
)

func TestConsoleLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		do   func(*zap.Logger)
		want string
	}{
		{"plain", func(l *zap.Logger) {
			l.Info("leased", zap.Int("attempt", 2), zap.Duration("took", 1500*time.Millisecond))
		},
			"info   leased attempt=2 took=1.5s\n"},
		{"levels line up", func(l *zap.Logger) { l.Error("failed", zap.Error(errors.New("exit status 65"))) },
			`error  failed error="exit status 65"` + "\n"},
		{"labels are fields, traces are left out", func(l *zap.Logger) {
			l.With(obs.Label("pipeline", "images"), obs.Trace(traceparent)).Warn("slow", obs.Label("item", "b/a#1"))
		}, "warn   slow pipeline=images item=b/a#1\n"},
		{"unclear values are quoted", func(l *zap.Logger) {
			l.Info("m", zap.String("empty", ""), zap.String("eq", "a=b"), zap.String("q", `"`), zap.String("back", `\n`), zap.String("word", "größe"))
		}, `info   m empty="" eq="a=b" q="\"" back="\\n" word=größe` + "\n"},
		{"namespaces are prefixes", func(l *zap.Logger) {
			l.With(zap.Namespace("http")).Info("m", zap.Int("status", 200), zap.Namespace("x"), zap.Bool("y", true))
		}, "info   m http.status=200 http.x.y=true\n"},
		{"several values", func(l *zap.Logger) {
			l.Info("m", zap.Strings("names", []string{"a", "b c"}), zap.Any("map", map[string]int{"k": 1}), zap.Time("at", time.Unix(1, 0)),
				zap.ByteString("bytes", []byte("xyz")), zap.Binary("raw", []byte("abc")), zap.Float64("f", 0.25))
		}, `info   m names="[\"a\",\"b c\"]" map=map[k:1] at=1970-01-01T00:00:01Z bytes=xyz raw=abc f=0.25` + "\n"},
		{"named", func(l *zap.Logger) { l.Named("ingest").Named("pull").Info("m") }, "info   ingest.pull: m\n"},
		{"escapes", func(l *zap.Logger) { l.Info("a\nb\x1b[31m", zap.String("k\n", "v\r\n\u202e\xff")) },
			`info   a\nb\x1b[31m "k\n"="v\r\n\u202e\xff"` + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			log, out := newLogger(t, obs.LogOptions{Format: obs.FormatConsole})
			tc.do(log)
			if out.String() != tc.want {
				t.Errorf("got  %q\nwant %q", out, tc.want)
			}
		})
	}
}

// hostile are strings that uploaders could name objects, or commands print.
func hostile() []string {
	return []string{
		"in/a\nerror  forged item=x", "a\r\nb", "\x1b[2J\x1b[31mred", "\xff\xfe\x80invalid", "nul\x00", "c1\u009b31m", "del\x7f",
		"bidi\u202etxt.exe", "line\u2028sep\u2029", "\ufeffbom", `","severity":"EMERGENCY","x":"`, `\`, "tab\tvt\v", "\ue000private",
		strings.Repeat("\x1b\n", 1000), "  ", "=", "%s%n",
	}
}

func TestHostileStringsStayOnOneLine(t *testing.T) {
	t.Parallel()
	for _, s := range hostile() {
		log, out := newLogger(t, obs.LogOptions{})
		log.Named(s).With(zap.String(s, s)).Info(s, obs.Label("item", s), obs.Label(s, s), zap.Error(errors.New(s)), zap.Any("any", map[string]string{s: s}))
		got := decode(t, out)
		want := strings.ToValidUTF8(s, "\ufffd")
		// zap replaces each invalid byte, ToValidUTF8 each run of them.
		if utf8.ValidString(s) && (got["message"] != want || got["logging.googleapis.com/labels"].(map[string]any)["item"] != want || got["error"] != want) {
			t.Errorf("%q came back as %q", s, got)
		}
		if got["severity"] != "INFO" {
			t.Errorf("%q changed the severity to %v", s, got["severity"])
		}

		log, out = newLogger(t, obs.LogOptions{Format: obs.FormatConsole})
		log.Named(s).With(zap.String(s, s)).Info(s, obs.Label("item", s), obs.Label(s, s), zap.Error(errors.New(s)),
			zap.Any("any", map[string]string{s: s}), zap.Binary("raw", []byte(s)), zap.Strings("list", []string{s}))
		line, ok := strings.CutSuffix(out.String(), "\n")
		if !ok || !utf8.ValidString(line) {
			t.Errorf("%q: not a line of UTF-8: %q", s, line)
		}
		if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q: unprintable character at %d of %q", s, i, line)
		}
		if !strings.HasPrefix(line, "info   ") {
			t.Errorf("%q: line begins %.20q", s, line)
		}
	}
}
