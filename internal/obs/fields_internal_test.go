package obs

import (
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"
)

func TestParseTraceparent(t *testing.T) {
	t.Parallel()
	const trace, id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	good := "00-" + trace + "-" + id + "-"
	for in, want := range map[string]span{
		good + "01":                         {trace, id, true},
		good + "00":                         {trace, id, false},
		good + "02":                         {trace, id, false}, // a flag, but not sampled
		good + "ff":                         {trace, id, true},
		"01-" + trace + "-" + id + "-01":    {trace, id, true},
		"fe-" + trace + "-" + id + "-01-zz": {trace, id, true}, // a later version may say more
	} {
		if got, ok := parseTraceparent(in); !ok || got != want {
			t.Errorf("parseTraceparent(%q) = %+v, %t, want %+v", in, got, ok, want)
		}
	}
	for _, in := range []string{
		"", "00", strings.Repeat("-", 55), good, good + "1", good + "0g", good + "01 ", good + "01-x", "ff-" + trace + "-" + id + "-01",
		strings.ToUpper(good) + "01", "00-" + strings.Repeat("0", 32) + "-" + id + "-01", "00-" + trace + "-" + strings.Repeat("0", 16) + "-01",
		"0x-" + trace + "-" + id + "-01", "00_" + trace + "-" + id + "-01", "01-" + trace + "-" + id + "-01x", "00-" + trace + "\n" + id + "-01",
	} {
		if got, ok := parseTraceparent(in); ok {
			t.Errorf("parseTraceparent(%q) = %+v, want it refused", in, got)
		}
		if f := Trace(in); f.Type != zapcore.SkipType {
			t.Errorf("Trace(%q) is a field of type %d, want none", in, f.Type)
		}
	}
}

func FuzzParseTraceparent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes-next")
	f.Add("00-00000000000000000000000000000000-00f067aa0ba902b7-01")
	f.Add("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add("")
	// The specification's grammar, written a second way.
	grammar := regexp.MustCompile(`^(?:00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}|[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-(?s:.*))?)$`)
	f.Fuzz(func(t *testing.T, in string) {
		got, ok := parseTraceparent(in)
		m := grammar.FindStringSubmatch(in)
		want := m != nil && !strings.HasPrefix(in, "ff") && (len(in) == 55 || !strings.HasPrefix(in, "00"))
		if want {
			trace, id := m[1]+m[3], m[2]+m[4]
			want = trace != strings.Repeat("0", 32) && id != strings.Repeat("0", 16)
			if want && (got.trace != trace || got.id != id) {
				t.Errorf("parseTraceparent(%q) = %+v, want %s %s", in, got, trace, id)
			}
		}
		if ok != want {
			t.Errorf("parseTraceparent(%q) = %+v, %t, want %t", in, got, ok, want)
		}
		if !ok && got != (span{}) {
			t.Errorf("parseTraceparent(%q) refused it and returned %+v", in, got)
		}
	})
}

func TestFromCaller(t *testing.T) {
	t.Parallel()
	const trace = "goroutine 7 [running]:\nlib.Log(...)\n\t/lib.go:1\nmain.other()\n\t/a.go:120 +0x1\nmain.f()\n\t/a.go:12 +0x2\nmain.main()\n\t/a.go:3\n"
	caller := zapcore.EntryCaller{Defined: true, File: "/a.go", Line: 12}
	want := "goroutine 7 [running]:\nmain.f()\n\t/a.go:12 +0x2\nmain.main()\n\t/a.go:3\n"
	if got := fromCaller(trace, caller); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for name, c := range map[string]zapcore.EntryCaller{
		"no caller":     {},
		"unknown place": {Defined: true, File: "/b.go", Line: 1},
		"part of line":  {Defined: true, File: "/a.go", Line: 1},
	} {
		if got := fromCaller(trace, c); got != trace {
			t.Errorf("%s: got %q, want the whole trace", name, got)
		}
	}
}

func TestBuildVersion(t *testing.T) {
	t.Parallel()
	setting := func(k, v string) debug.BuildSetting { return debug.BuildSetting{Key: k, Value: v} }
	for want, info := range map[string]*debug.BuildInfo{
		"v1.2.3":             {Main: debug.Module{Version: "v1.2.3"}},
		"devel":              {Main: debug.Module{Version: "(devel)"}},
		"0123456789ab":       {Settings: []debug.BuildSetting{setting("vcs.revision", "0123456789abcdef"), setting("vcs.modified", "false")}},
		"0123456789ab-dirty": {Settings: []debug.BuildSetting{setting("vcs.modified", "true"), setting("vcs.revision", "0123456789abcdef")}},
		"short":              {Settings: []debug.BuildSetting{setting("vcs.revision", "short")}},
	} {
		if got := buildVersion(info); got != want {
			t.Errorf("buildVersion(%+v) = %q, want %q", info, got, want)
		}
	}
	if got := Version("v9"); got != "v9" {
		t.Errorf("a linked version is not used: %q", got)
	}
	if Version("") == "" {
		t.Error("a program without a version has none, want a word for it")
	}
}
