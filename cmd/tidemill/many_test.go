package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tidemill/internal/result"
)

// hostileNames are what a file system allows and a careless program stumbles over.
func hostileNames() []string {
	return []string{
		"plain.txt", "two words", "-rf", "--help", "..x", "x..", "...", "tab\there", `quo"te`, "apo'strophe", "$(touch pwned)",
		"`id`", "semi;colon", "a&b|c", "star*?[x]", "hash#1", "q?x=1", "pct%2Fx", "%00", "%", "plus+plus", "emoji😀",
		"nfd-e\u0301", "nfc-\u00e9", strings.Repeat("x", 255), strings.Repeat("é", 127), "ctl\x01\x07\x1b[31m", `back\slash`,
		"{input}", "{output}", "{generation}", "~", "acl", ".hidden", "trailing ", " leading", "a.tar.gz", "\u202ertl", "a:b",
		"<x>", "sum", "null", "日本語", "100%", "o", "compose",
	}
}

// makeMany makes n files of 0 B to 50 MB in folders of hostile names, and
// returns the sum of each by its path.
func makeMany(t *testing.T, in string, n int) map[string]string {
	t.Helper()
	folders := []string{"", "dir one", "-r/..y/%41", "o2/compose2", strings.Repeat("d/", 20), "a/rewriteTo/b/x/o"}
	sizes := []int{0, 1, 100, 4 << 10, 64 << 10, 256 << 10, 256<<10 + 1, 1000, 10}
	random := rand.NewChaCha8([32]byte{7})
	sums := map[string]string{}
	for i := range n {
		names := hostileNames()
		rel := filepath.Join(folders[i/len(names)%len(folders)], names[i%len(names)])
		if i >= len(names)*len(folders) {
			rel = fmt.Sprintf("more/file %d", i)
		}
		size := sizes[i%len(sizes)]
		switch i {
		case 13:
			size = 50_000_000
		case 99:
			size = 17 << 20 // more than one chunk of an upload
		}
		content := make([]byte, size)
		_, _ = random.Read(content) // never fails
		path := filepath.Join(in, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		sums[rel] = hex.EncodeToString(sum[:])
	}
	if len(sums) != n {
		t.Fatalf("made %d files, want %d", len(sums), n)
	}
	return sums
}

// TestFiveHundredFiles first has every tenth file fail, then runs again with a
// command that takes them all.
func TestFiveHundredFiles(t *testing.T) {
	t.Parallel()
	const n = 500
	exe, dir := build(t), t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	sums := makeMany(t, in, n)
	bad := map[string]bool{}
	var list strings.Builder
	for rel := range sums {
		if len(bad) < n/10 {
			bad[rel] = true
			fmt.Fprintf(&list, "uploads/%s\n", rel)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bad"), []byte(list.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	const sum = `sha256sum < "$TIDEMILL_INPUT" > "$TIDEMILL_OUTPUT/sum"`
	failTenth := `if printf '%s\n' "$TIDEMILL_OBJECT" | grep -qxF -f "` + dir + `/bad"; then echo "boom $TIDEMILL_OBJECT" >&2; exit 4; fi; ` + sum

	got := runOnce(t, exe, exitSomeFailed, "--in", in, "--out", out, "--", "sh", "-c", failTenth)
	if got.Items != n || got.Done != n-len(bad) || got.Dead != len(bad) || got.Skipped != 0 || got.Refused != 0 || got.PeakWorkers < 1 {
		t.Errorf("summary %+v", got)
	}
	for rel, want := range sums {
		content, err := os.ReadFile(filepath.Join(out, rel, "sum"))
		switch {
		case bad[rel]:
			checkReport(t, filepath.Join(out, ".tidemill", "failures", rel, "report.json"), rel)
			if err == nil {
				t.Errorf("%q failed and has a result", rel)
			}
		case err != nil || !strings.HasPrefix(string(content), want):
			t.Errorf("%q: result %q (%v), want %s", rel, content, err, want)
		}
	}

	got = runOnce(t, exe, 0, "--in", in, "--out", out+"2", "--", "sh", "-c", sum)
	if got.Items != n || got.Done != n {
		t.Errorf("summary %+v", got)
	}
	for rel, want := range sums {
		if content, err := os.ReadFile(filepath.Join(out+"2", rel, "sum")); err != nil || !strings.HasPrefix(string(content), want) {
			t.Errorf("%q: result %q (%v), want %s", rel, content, err, want)
		}
	}
}

func checkReport(t *testing.T, path, rel string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	var r result.Report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Errorf("%q: %v", path, err)
	}
	if r.Reason != "exit 4" || r.Attempts != 3 || r.LastOutput != "boom uploads/"+rel+"\n" || r.ExitCode == nil || *r.ExitCode != 4 {
		t.Errorf("%q: report %+v", rel, r)
	}
}

// build makes the program as users have it: under the race detector this many
// processes would take minutes.
func build(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "tidemill")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("building tidemill: %v\n%s", err, out)
	}
	return exe
}

// runOnce runs tidemill local --once --json and returns its summary.
func runOnce(t *testing.T, exe string, code int, args ...string) summary {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(t.Context(), exe, append([]string{"local", "--once", "--json"}, args...)...)
	c.Stdout, c.Stderr = &stdout, &stderr
	_ = c.Run() // the exit code is looked at
	if got := c.ProcessState.ExitCode(); got != code {
		t.Fatalf("exit code %d, want %d; it said:\n%s", got, code, stderr.String())
	}
	var s summary
	if err := json.Unmarshal(stdout.Bytes(), &s); err != nil || strings.Count(stdout.String(), "\n") != 1 {
		t.Fatalf("standard output is %q (%v), want one line of JSON", stdout.String(), err)
	}
	return s
}
