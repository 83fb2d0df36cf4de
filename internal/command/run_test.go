package command

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
)

func TestHowItEnds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		script string
		want   Result
		reason string
	}{
		{"exit 0", Result{Cause: CauseOK}, "ok"},
		{"exit 3", Result{Cause: CauseExit, ExitCode: 3}, "exit 3"},
		{"exit 255", Result{Cause: CauseExit, ExitCode: 255}, "exit 255"},
		{"exec /dev/null", Result{Cause: CauseExit, ExitCode: 126}, "exit 126 (as a shell reports a program that it can't execute)"},
		{"no-such-program", Result{Cause: CauseExit, ExitCode: 127}, "exit 127 (as a shell reports a program that it doesn't find)"},
		{"sh -c 'kill -9 $$'; exit $?", Result{Cause: CauseExit, ExitCode: 137}, "exit 137 (as a shell reports SIGKILL, possibly out of memory)"},
		{"kill -KILL $$", Result{Cause: CauseSignal, ExitCode: -1, Signal: "SIGKILL"}, "killed by SIGKILL (possibly out of memory)"},
		{"kill -SEGV $$", Result{Cause: CauseSignal, ExitCode: -1, Signal: "SIGSEGV"}, "killed by SIGSEGV"},
		{"kill -TERM $$", Result{Cause: CauseSignal, ExitCode: -1, Signal: "SIGTERM"}, "killed by SIGTERM"},
		{"kill -40 $$", Result{Cause: CauseSignal, ExitCode: -1, Signal: "SIG40"}, "killed by SIG40"},
	} {
		t.Run(tc.script, func(t *testing.T) {
			t.Parallel()
			s := shell(tc.script)
			if tc.want.Signal == "SIGSEGV" {
				s = shell("ulimit -c 0; " + tc.script) // leave no core file
			}
			got := runNow(t, s, Run{})
			if got.Took <= 0 {
				t.Errorf("Took = %s", got.Took)
			}
			reason := got.Reason()
			got.Took, got.Tail = 0, nil
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("result (-want +got):\n%s", d)
			}
			if reason != tc.reason {
				t.Errorf("reason %q, want %q", reason, tc.reason)
			}
		})
	}
}

func TestNotStarted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tc := range []struct {
		name string
		argv []string
		want []string
	}{
		{"no command", nil, []string{"the command is empty"}},
		{"placeholder without file", []string{"cat", "{input}"}, []string{"does not have"}},
		{"not in PATH", []string{"tidemill-no-such"}, []string{`exec: "tidemill-no-such": executable file not found in $PATH`, "image"}},
		{"no such file", []string{dir + "/none"}, []string{"no such file", "put the program"}},
		{"not executable", []string{file("plain", "#!/bin/sh\n", 0o600)}, []string{"permission denied", "chmod"}},
		{"a directory", []string{dir}, []string{"this is a directory", "name a program"}},
		{"too long", []string{"true", strings.Repeat("x", 200<<10)}, []string{"too long", "shorten"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			res := runNow(t, Spec{Argv: tc.argv}, Run{Stdin: strings.NewReader("x")})
			if res.Cause != CauseStart || res.ExitCode != -1 || res.Err == nil {
				t.Fatalf("result %+v, want not-started with an error", res)
			}
			for _, w := range append(tc.want, "not started: ") {
				if !strings.Contains(res.Reason(), w) {
					t.Errorf("reason %q does not contain %q", res.Reason(), w)
				}
			}
		})
	}
}

// Executing a file that this process has just written can meet "text file
// busy" while a child that another test forks still holds it: try again.
func TestExplain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	busy := func(err error) bool { return strings.Contains(err.Error(), "text file busy") }
	for text, want := range map[string]string{
		"#!/no/such/interpreter\n": "interpreter in its first line",
		"\x7fELF":                  "another architecture",
	} {
		p := filepath.Join(dir, want[:5])
		if err := os.WriteFile(p, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		var res Result
		eventually(t, "the file is closed everywhere", func() bool {
			res = runNow(t, Spec{Argv: []string{p}}, Run{})
			return res.Err == nil || !busy(res.Err)
		})
		if res.Cause != CauseStart || !strings.Contains(res.Reason(), want) {
			t.Errorf("%q: %s, want %q", text, res.Reason(), want)
		}
	}
}

func TestReasonIsOneLine(t *testing.T) {
	t.Parallel()
	for want, res := range map[string]Result{
		"canceled: a b":          {Cause: CauseCanceled, Err: errors.New("a\n\tb")},
		"canceled":               {Cause: CauseCanceled},
		"timeout after 1h0m0s":   {Cause: CauseTimeout, Timeout: time.Hour},
		"input failed: no route": {Cause: CauseInput, Err: errors.New("no route")},
		"output failed: full":    {Cause: CauseOutput, Err: errors.New("full")},
	} {
		if got := res.Reason(); got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
	}
}

func TestHostileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"-rf", "--help", "a\tb", `"quoted' `, "$(touch pwned)", "`touch pwned`", "; touch pwned", "{output}", "a=b",
		"%s%n", "\u202etxt.exe", "é\u0000", "*", "~", "\\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			in := filepath.Join(dir, strings.ReplaceAll(name, "\x00", "0"))
			if err := os.WriteFile(in, []byte("content of it"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := Spec{Argv: []string{"sh", "-c",
				`cat "$1" && printf '\n%s\n%s\n%s' "$TIDEMILL_OBJECT" "$2" "$TIDEMILL_CONTENT_TYPE"; ls`, "sh", "{input}", "--in={input}"}}
			r := Run{Item: item.Item{Object: item.Object{Bucket: "b", Name: name, Generation: 1}, ContentType: name}, Input: in}
			res := s.Run(t.Context(), r)
			if res.Cause != CauseOK {
				t.Fatalf("%s: %q", res.Reason(), res.Tail)
			}
			safe := strings.ReplaceAll(name, "\x00", "\uFFFD")
			want := "content of it\n" + safe + "\n--in=" + in + "\n" + safe
			if got := string(res.Tail); !strings.HasPrefix(got, want) || strings.Contains(strings.TrimPrefix(got, want), "pwned") {
				t.Errorf("the command saw %q, want %q", got, want)
			}
		})
	}
}

func TestLoggedOutput(t *testing.T) {
	t.Parallel()
	var l lines
	s := shell(`echo out; printf 'raw \377\r\n' >&2; printf unfinished >&2`)
	s.Log = l.log
	res := runNow(t, s, Run{})
	got := map[string]string{}
	for _, line := range l.all() {
		stream, text, _ := strings.Cut(line, ": ")
		got[stream] += text + "|"
	}
	if d := cmp.Diff(map[string]string{"stdout": "out|", "stderr": "raw \uFFFD|unfinished|"}, got); d != "" {
		t.Errorf("lines (-want +got):\n%s", d)
	}
	for _, want := range []string{"out\n", "raw \xff\r\nunfinished"} {
		if !strings.Contains(string(res.Tail), want) {
			t.Errorf("tail %q lacks %q", res.Tail, want)
		}
	}
}

// Not parallel: it looks at this process's memory.
func TestEndlessOutputTakesLittleMemory(t *testing.T) {
	const total = 50_000_000
	for name, unit := range map[string]string{"lines": "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz\n", "one line": "0123456789abcdef"} {
		t.Run(name, func(t *testing.T) {
			calls, logged, peak := 0, 0, uint64(0)
			s := Spec{
				Argv: []string{"sh", "-c", `yes "$1" | if [ "$2" = one ]; then tr -d '\n'; else cat; fi | head -c 50000000`, "sh",
					strings.TrimSuffix(unit, "\n"), name[:3]},
				Log: func(_, line string) {
					logged += len(line)
					if len(line) > maxLine+2*len(cut) {
						t.Errorf("a line of %d bytes was logged", len(line))
					}
					if calls++; calls%50_000 == 0 || len(line) > maxLine && calls%500 == 0 {
						var m runtime.MemStats
						runtime.ReadMemStats(&m)
						peak = max(peak, m.HeapAlloc)
					}
				},
			}
			res := runNow(t, s, Run{})
			if res.Cause != CauseOK {
				t.Fatalf("%s: %q", res.Reason(), res.Tail)
			}
			if logged < total*9/10 || peak == 0 {
				t.Errorf("only %d bytes were logged", logged)
			}
			if peak > 24<<20 {
				t.Errorf("the heap grew to %d bytes", peak)
			}
			all := strings.Repeat(unit, 2*TailBytes/len(unit)) // ends on a unit, as the output does after whole ones
			end := total % len(unit)
			want := all + unit[:end]
			if got := string(res.Tail); got != want[len(want)-TailBytes:] {
				t.Errorf("the tail is not the last %d bytes", TailBytes)
			}
		})
	}
}

func TestNothingStartsWhenAlreadyDone(t *testing.T) {
	t.Parallel()
	gone := errors.New("lease lost")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	dir, done := run(ctx, t, shell(`touch "$1/ran"`), Run{})
	res := await(t, done)
	if res.Cause != CauseCanceled || !errors.Is(res.Err, gone) || res.Reason() != "canceled: lease lost" {
		t.Errorf("result %+v, want canceled by %v", res, gone)
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command ran: %v", err)
	}
}
