package pipeline_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/pipeline"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const configMap = "kind: ConfigMap\nmetadata:\n  name: %\ndata:\n  bucket: b-%\n"

func TestReadDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "one.yaml", strings.ReplaceAll(configMap, "%", "one"))
	write(t, dir, "two.yml", strings.ReplaceAll(configMap, "%", "two"))
	write(t, dir, ".three.yaml", "left alone")
	write(t, dir, "four.txt", "left alone")
	write(t, dir, "five.yaml", "kind: PodTemplate\nmetadata: {name: one}\n")
	write(t, dir, "six.yaml", "# both in one\n---\nkind: PodTemplate\nmetadata: {name: six}\n--- # and\n"+
		strings.ReplaceAll(configMap, "%", "six")+"  match: |\n    a/**,\n    --- /**\n---\n")
	write(t, dir, "empty.yaml", "kind: ConfigMap\nmetadata: {name: empty}\n")
	got, err := pipeline.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]string{"one": {"bucket": "b-one"}, "two": {"bucket": "b-two"}, "empty": nil, "six": {"bucket": "b-six", "match": "a/**,\n--- /**\n"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
}

// A set with a hole in it would delete a pipeline, so one bad file spoils all.
func TestReadDirRefuses(t *testing.T) {
	t.Parallel()
	for want, text := range map[string]string{
		"the file is empty":        "# nothing yet\n",
		"kind is missing":          "a: b\n",
		"metadata.name is missing": "kind: ConfigMap\n",
		"both have one named one":  strings.ReplaceAll(configMap, "%", "one"),
		"both have one named two":  strings.ReplaceAll(configMap+"---\n"+configMap, "%", "two"),
		"did not find expected":    "kind: PodTemplate\n---\na: [\n",
		"cannot unmarshal":         "kind: ConfigMap\nmetadata: {name: x}\ndata: {match: [a]}\n",
		"cannot unmarshal string":  "kind: ConfigMap\nmetadata: x\n",
		"cannot unmarshal array":   "- a\n",
	} {
		dir := t.TempDir()
		write(t, dir, "a.yaml", strings.ReplaceAll(configMap, "%", "one"))
		write(t, dir, "b.yaml", text)
		got, err := pipeline.ReadDir(dir)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "b.yaml") || got != nil {
			t.Errorf("%q: %v, error %v, want one that says %q and names b.yaml", text, got, err, want)
		}
	}
	if _, err := pipeline.ReadDir(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that does not exist is read as empty")
	}
}
