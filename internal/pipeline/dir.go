package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// ReadDir reads pipelines from a directory of YAML files with ConfigMaps as they
// would be applied to a cluster: the name is the pipeline's, the data the keys. Files that do not end in .yaml or .yml, hidden ones and other kinds of
// objects are left alone. One file that can't be read fails the whole: a set
// with a hole in it would delete a pipeline. So does a directory without any
// pipeline, which is more likely a wrong path or a mount that is not there yet.
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
		found, err := configMaps(raw)
		if err != nil {
			return nil, fmt.Errorf("reading pipelines: %s: %w", path, err)
		}
		for _, m := range found {
			name := m.Metadata.Name
			if other := from[name]; other != "" {
				return nil, fmt.Errorf("reading pipelines: %s and %s both have one named %s", other, path, name)
			}
			set[name], from[name] = m.Data, path
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("reading pipelines: there is no ConfigMap in a .yaml or .yml file in %s", dir)
	}
	return set, nil
}

type configMap struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Data map[string]string `json:"data"`
}

// configMaps returns the ConfigMaps among a file's YAML documents. A file without
// any document was most likely met half-way through being written.
func configMaps(raw []byte) ([]configMap, error) {
	var found []configMap
	some := false
	for doc := range strings.SplitSeq("\n"+strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n---") {
		var content any
		if err := yaml.Unmarshal([]byte(doc+"\n"), &content); err != nil {
			return nil, err
		}
		if content == nil {
			continue // nothing but comments
		}
		some = true
		var m configMap
		if err := yaml.Unmarshal([]byte(doc+"\n"), &m); err != nil {
			return nil, err
		}
		switch {
		case m.Kind == "":
			return nil, errors.New("kind is missing; a pipeline is a ConfigMap")
		case m.Kind != "ConfigMap":
			continue // a PodTemplate, say
		case m.Metadata.Name == "":
			return nil, errors.New("metadata.name is missing")
		}
		found = append(found, m)
	}
	if !some {
		return nil, errors.New("the file is empty; a pipeline is a ConfigMap")
	}
	return found, nil
}
