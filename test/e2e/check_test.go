//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/result"
)

const (
	uploads   = "uploads/"
	results   = "results/"
	manifests = "results/.tidemill/manifests/"
	failures  = "failures/"
)

// sumScript is the least that the tests' commands have in common: it notes that
// it runs, and leaves a digest of its input.
const sumScript = `printf '%s\n' "$TIDEMILL_OBJECT#$TIDEMILL_GENERATION" >>"$1/runs"
sha256sum <"$TIDEMILL_INPUT" >"$TIDEMILL_OUTPUT/sum"
`

// sum is what sumScript leaves for content.
func sum(content string) string {
	digest := sha256.Sum256([]byte(content))
	return hex.EncodeToString(digest[:]) + "  -\n"
}

// object is what the test knows of an upload.
type object struct {
	Generation int64
	Sum        string
}

// checkResults holds what stands in the bucket against the objects (by name):
// each has one result with the right content, one manifest of the right
// generation that lists it, and nothing else stands there.
func (s *system) checkResults(t *testing.T, want map[string]object) {
	t.Helper()
	got := map[string]object{}
	standing := map[string]int64{} // results that are not manifests
	for name, generation := range s.store.list(t, results) {
		if !strings.HasPrefix(results+name, manifests) {
			standing[results+name] = generation
		}
	}
	for file := range s.store.list(t, manifests) {
		m, err := result.ParseManifest([]byte(s.store.read(t, manifests+file)))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		source := strings.TrimPrefix(m.Source, "gs://"+bucketName+"/")
		if other, ok := got[source]; ok {
			t.Errorf("%q has a second manifest, %s: %+v", source, file, other)
		}
		one := object{Generation: m.Generation}
		name := results + source + "/sum"
		url := "gs://" + bucketName + "/" + name
		if len(m.Results) != 1 || m.Results[0].URL != url || m.Results[0].Path != "sum" || m.Results[0].Generation != standing[name] {
			t.Errorf("the manifest of %q lists %+v; in the bucket stands generation %d of %s", source, m.Results, standing[name], url)
		} else {
			one.Sum = s.store.read(t, name)
		}
		delete(standing, name)
		got[source] = one
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results by object (-want +got):\n%s", diff)
	}
	if len(standing) > 0 {
		t.Errorf("results that no manifest lists: %v", standing)
	}
}

// checkLog makes sure that what Cloud Logging needs is in each line, and that
// nothing else was written.
func checkLog(t *testing.T, d *daemon) {
	t.Helper()
	if text := readFile(t, d.stderr); text != "" {
		t.Errorf("%s wrote to its standard error:\n%s", d.name, text)
	}
	log := readFile(t, d.log)
	if log == "" {
		t.Errorf("%s logged nothing", d.name)
	}
	for line := range strings.Lines(log) {
		if d.crash && !strings.HasSuffix(line, "\n") {
			continue // cut off by the crash
		}
		if err := checkLine(line); err != nil {
			t.Errorf("%s: a line of its log: %v: %q", d.name, err, line)
		}
	}
}

func checkLine(line string) error {
	var entry map[string]any
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		return err
	}
	severity, _ := entry["severity"].(string)
	if !slices.Contains([]string{"DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY"}, severity) {
		return fmt.Errorf("severity is %v", entry["severity"])
	}
	if _, ok := entry["message"].(string); !ok {
		return fmt.Errorf("message is %v", entry["message"])
	}
	text, _ := entry["time"].(string)
	_, err := time.Parse(time.RFC3339Nano, text)
	return err
}
