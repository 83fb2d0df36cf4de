package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// ReadDir reads pipelines from a directory of YAML files, each one ConfigMap as
// it would be applied to a cluster: its name is the pipeline's, its data the
// keys. Files that do not end in .yaml or .yml, hidden ones and other kinds of
// objects are left alone. One file that can't be read fails the whole: a set
// with a hole in it would delete a pipeline.
func ReadDir(dir string) (map[string]map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading pipelines: %w", err)
	}
	set := map[string]map[string]string{}
	from := map[string]string{}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext != ".yaml" && ext != ".yml" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading pipelines: %w", err)
		}
		var m struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
			Data map[string]string `json:"data"`
		}
		if err := yaml.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("reading pipelines: %s: %w", path, err)
		}
		switch {
		case m.Kind == "":
			return nil, fmt.Errorf("reading pipelines: %s: kind is missing; a pipeline is a ConfigMap", path)
		case m.Kind != "ConfigMap":
			continue // a PodTemplate, say
		case m.Metadata.Name == "":
			return nil, fmt.Errorf("reading pipelines: %s: metadata.name is missing", path)
		case from[m.Metadata.Name] != "":
			return nil, fmt.Errorf("reading pipelines: %s and %s are both named %s", from[m.Metadata.Name], path, m.Metadata.Name)
		}
		set[m.Metadata.Name], from[m.Metadata.Name] = m.Data, path
	}
	return set, nil
}
