package result

import (
	"encoding/json"
	"fmt"
	"time"
)

// Version is the schema version of manifests and failure reports.
const Version = 1

// Manifest lists the result set of one object; it is what makes the set valid.
type Manifest struct {
	Version    int       `json:"version"`
	Source     string    `json:"source"` // gs://bucket/name
	Generation int64     `json:"generation,string"`
	Run        int       `json:"run"`
	Pipeline   string    `json:"pipeline"`
	Worker     string    `json:"worker"`
	Attempt    int       `json:"attempt"`
	Started    time.Time `json:"started"`
	Finished   time.Time `json:"finished"`
	Results    []File    `json:"results"`
}

// File is one result object.
type File struct {
	Path       string `json:"path"` // relative to the output directory
	URL        string `json:"url"`  // gs://bucket/name
	Generation int64  `json:"generation,string"`
	Size       int64  `json:"size,string"`
	CRC32C     uint32 `json:"crc32c"`
}

// Report says why an object became a dead letter.
type Report struct {
	Version     int       `json:"version"`
	Source      string    `json:"source"` // gs://bucket/name
	Generation  int64     `json:"generation,string"`
	Run         int       `json:"run"`
	Pipeline    string    `json:"pipeline"`
	Worker      string    `json:"worker"`
	Reason      string    `json:"reason"` // one line, starts with a fixed word
	Attempts    int       `json:"attempts"`
	Deliveries  int       `json:"deliveries"`
	ExitCode    *int      `json:"exitCode,omitempty"`
	Signal      string    `json:"signal,omitempty"`
	Seconds     float64   `json:"seconds"`
	LastOutput  string    `json:"lastOutput"` // the last 64 KiB; bytes that are not UTF-8 are replaced
	Failed      time.Time `json:"failed"`
	Traceparent string    `json:"traceparent,omitempty"`
}

// ParseManifest reads a manifest and refuses a schema it does not know.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("reading manifest: %w", err)
	}
	if m.Version != Version {
		return m, fmt.Errorf("reading manifest: version %d, this program knows %d", m.Version, Version)
	}
	return m, nil
}
