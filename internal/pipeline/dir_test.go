package pipeline_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/pipeline"
)

func TestReadDir(t *testing.T) {
	t.Parallel()
	const good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {bucket: in, max-workers: \"3\"}\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  map[string]map[string]string
		wrong string // part of the error
	}{
		"one pipeline among other files": {
			files: map[string]string{
				"a.yaml": good, "pods.yml": "kind: PodTemplate\nmetadata: {name: a}\n", ".a.yaml.swp": "{", "notes.txt": "{",
			},
			want: map[string]map[string]string{"a": {"bucket": "in", "max-workers": "3"}},
		},
		"none":            {want: map[string]map[string]string{}},
		"broken YAML":     {files: map[string]string{"a.yaml": good, "b.yaml": "kind: [\n"}, wrong: "b.yaml"},
		"half written":    {files: map[string]string{"a.yaml": "apiVersion: v1\n"}, wrong: "kind is missing"},
		"no name":         {files: map[string]string{"a.yaml": "kind: ConfigMap\n"}, wrong: "metadata.name is missing"},
		"the same name":   {files: map[string]string{"a.yaml": good, "b.yaml": good}, wrong: "are both named a"},
		"a value no text": {files: map[string]string{"a.yaml": "kind: ConfigMap\nmetadata: {name: a}\ndata: {x: {}}\n"}, wrong: "a.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, content := range test.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := pipeline.ReadDir(dir)
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) {
					t.Fatalf("error %v, want one with %q", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := pipeline.ReadDir(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing directory is no error")
	}
}
