package work_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/queue"
	"tidemill/internal/result"
	"tidemill/internal/work"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script string
		want   map[string]string // below results/in.txt/
	}{
		"one":    {`tr a-z A-Z <"$TIDEMILL_INPUT" >"$TIDEMILL_OUTPUT/up"`, map[string]string{"up": "CONTENT"}},
		"none":   {`cat "$TIDEMILL_INPUT" >/dev/null`, map[string]string{}},
		"empty":  {`: >"$TIDEMILL_OUTPUT/nothing"`, map[string]string{"nothing": ""}},
		"nested": {`cd "$TIDEMILL_OUTPUT"; mkdir -p a/b empty; echo 1 >a/b/one; echo 2 >a/two`, map[string]string{"a/b/one": "1\n", "a/two": "2\n"}},
		"links within": {
			`cd "$TIDEMILL_OUTPUT"; echo 1 >one; ln -s one two; ln one three`,
			map[string]string{"one": "1\n", "two": "1\n", "three": "1\n"},
		},
		"odd names": {`cd "$TIDEMILL_OUTPUT"; for f in '..x' '-rf' 'a b' '%2F' '{generation}' '.tidemill'; do echo >"./$f"; done`, map[string]string{
			"..x": "\n", "-rf": "\n", "a b": "\n", "%2F": "\n", "{generation}": "\n", ".tidemill": "\n",
		}},
		"unwritable directory": {`cd "$TIDEMILL_OUTPUT"; mkdir d; echo 1 >d/f; chmod 555 d`, map[string]string{"d/f": "1\n"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			it := r.uploaded("in.txt", "content")
			dir := ""
			r.worker("w", tt.script, func(c *work.Config) { dir = c.WorkDir })
			r.awaitState(it, queue.StateDone)
			m, attrs := r.manifest(it)
			r.wantFence(attrs, it)
			if m.Started.IsZero() || m.Finished.Before(m.Started) {
				t.Errorf("started %s, finished %s", m.Started, m.Finished)
			}
			want := result.Manifest{
				Version: 1, Source: "gs://tidemill/in.txt", Generation: it.Generation, Pipeline: pipe, Worker: "w", Attempt: 1,
				Started: m.Started, Finished: m.Finished, Results: m.Results,
			}
			if diff := cmp.Diff(want, m); diff != "" {
				t.Errorf("manifest (-want +got):\n%s", diff)
			}
			got := map[string]string{}
			for _, f := range m.Results {
				text, attrs := r.read("results/in.txt/" + f.Path)
				r.wantFence(attrs, it)
				got[f.Path] = text
				entry := result.File{
					Path: f.Path, URL: "gs://tidemill/results/in.txt/" + f.Path,
					Generation: attrs.Generation, Size: int64(len(text)), CRC32C: attrs.CRC32C,
				}
				if diff := cmp.Diff(entry, f); diff != "" {
					t.Errorf("manifest's entry (-want +got):\n%s", diff)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
			if n := len(r.results()); n != len(tt.want) {
				t.Errorf("%d results stand, want %d", n, len(tt.want))
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left in the work directory: %v, %v", left, err)
			}
		})
	}
}

func TestHostileObjectNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 255)
	names := map[string]string{ // -> name of the input file
		"-rf":            "-rf",
		"..x":            "..x",
		"a/../../b":      "b",
		"a/..":           "object",
		"tab\tbell\a":    "tab\tbell\a",
		"a%2Fb":          "a%2Fb",
		"{generation}":   "{generation}",
		"$(touch x);`x`": "$(touch x);`x`",
		"d/" + long:      long,
		long + "n":       "object",
		"héé/日本 語?#&":    "日本 語?#&",
		`quo"te'\`:       `quo"te'\`,
	}
	for _, io := range []string{"files", "stream"} {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "io", io)
			// The script compares names byte by byte, without a shell's quoting.
			script := map[string]string{
				"files":  `cp "$TIDEMILL_INPUT" "$TIDEMILL_OUTPUT/copy"; printf %s "${TIDEMILL_INPUT##*/}" >"$TIDEMILL_OUTPUT/base"; printf %s "$TIDEMILL_OBJECT" >"$TIDEMILL_OUTPUT/object"`,
				"stream": `cat; printf "|%s" "$TIDEMILL_OBJECT"`,
			}[io]
			want := map[string]string{}
			for name, base := range names {
				it := r.upload(name, "content of "+name)
				r.enqueue(it)
				if io == "stream" {
					want["results/"+name] = "content of " + name + "|" + name
					continue
				}
				want["results/"+name+"/copy"] = "content of " + name
				want["results/"+name+"/base"] = base
				want["results/"+name+"/object"] = name
			}
			r.worker("w", script, nil)
			r.await("all to be done", func() bool { return r.stats().Counters.Done == int64(len(names)) })
			if diff := cmp.Diff(want, r.results()); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOutputThatCannotBePublished(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		object string
		script string
		want   string // the reason's start
	}{
		"link out":             {"in", `ln -s /etc/passwd "$TIDEMILL_OUTPUT/x"`, `result-file: "x"`},
		"link to the input":    {"in", `ln -s ../in/in "$TIDEMILL_OUTPUT/x"`, `result-file: "x"`},
		"directory out":        {"in", `ln -s /etc "$TIDEMILL_OUTPUT/x"`, `result-file: "x"`},
		"FIFO":                 {"in", `mkfifo "$TIDEMILL_OUTPUT/x"`, `result-file: "x"`},
		"dangling":             {"in", `ln -s nothing "$TIDEMILL_OUTPUT/x"`, `result-file: "x"`},
		"output replaced":      {"in", `rmdir "$TIDEMILL_OUTPUT"; ln -s /etc "$TIDEMILL_OUTPUT"`, "no-output: "},
		"output removed":       {"in", `rmdir "$TIDEMILL_OUTPUT"`, "no-output: "},
		"work directory moved": {"in", `cd /; d="${TIDEMILL_OUTPUT%/out}"; mv "$d" "$d.x"; mkdir "$d"; ln -s /etc "$d/out"; rmdir "$d.x/out"`, "no-output: "},
		"name too long":        {strings.Repeat("d/", 450), `f=$(printf %0200d 1); : >"$TIDEMILL_OUTPUT/$f"`, "result-name: "},
		"line feed":            {"in", "f=$(printf 'a\\nb'); : >\"$TIDEMILL_OUTPUT/$f\"", "result-name: "},
		"not UTF-8":            {"in", `f=$(printf 'a\377'); : >"$TIDEMILL_OUTPUT/$f"`, "result-name: "},
		"reserved folder":      {".tidemill/manifests", `: >"$TIDEMILL_OUTPUT/x"`, "result-collision: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "max-attempts", "1")
			it := r.uploaded(tt.object, "content")
			r.worker("w", tt.script, nil)
			if reason := r.awaitState(it, queue.StateDead); !strings.HasPrefix(reason, tt.want) || strings.ContainsAny(reason, "\n\t\a") {
				t.Errorf("reason %q, want %q", reason, tt.want)
			}
			if got := r.objects("results/"); len(got) != 0 {
				t.Errorf("published: %v", got)
			}
		})
	}
}
