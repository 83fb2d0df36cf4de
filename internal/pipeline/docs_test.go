package pipeline_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"tidemill/internal/pipeline"
)

var update = flag.Bool("update", false, "write what is generated instead of comparing it")

// The shipped example has every key, with its default.
func TestExampleEqualsTheDefaults(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "deploy", "pipelines", "example")
	raw, err := os.ReadFile(filepath.Join(dir, "configmap.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Metadata struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, k := range pipeline.Keys() {
		want[k.Name] = k.Default
	}
	want["bucket"] = "my-bucket"
	if diff := cmp.Diff(want, m.Data); diff != "" {
		t.Errorf("%s does not have the defaults of keys.go (-defaults +example):\n%s", dir, diff)
	}
	labels := map[string]string{"app.kubernetes.io/part-of": "tidemill", "app.kubernetes.io/component": "pipeline"}
	if diff := cmp.Diff(labels, m.Metadata.Labels); diff != "" {
		t.Errorf("labels (-want +example):\n%s", diff)
	}
	if _, problems := pipeline.NewSet(map[string]map[string]string{m.Metadata.Name: m.Data}); len(problems) > 0 {
		t.Errorf("the example is refused: %v", problems)
	}
}

// docs/configuration.md has the table that Keys makes. The flag -update writes it.
func TestConfigurationTable(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "configuration.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- keys: begin", "<!-- keys: end -->"
	before, rest, ok1 := strings.Cut(string(raw), begin)
	first, rest, ok2 := strings.Cut(rest, "\n")
	table, after, ok3 := strings.Cut(rest, end)
	if !ok1 || !ok2 || !ok3 {
		t.Fatalf("%s lacks its lines %q and %q", path, begin, end)
	}
	want := keyTable()
	if *update {
		text := before + begin + first + "\n" + want + end + after
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Errorf("%s is not what keys.go says; run: go test ./internal/pipeline -update (-keys.go +file):\n%s", path, diff)
	}
}

func keyTable() string {
	var b strings.Builder
	b.WriteString("| key | default | meaning |\n| --- | --- | --- |\n")
	for _, k := range pipeline.Keys() {
		value := "`" + k.Default + "`"
		switch {
		case k.Name == "bucket":
			value = "required"
		case k.Default == "":
			value = "empty"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", k.Name, value, k.Doc)
	}
	return b.String()
}
