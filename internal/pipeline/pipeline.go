// Package pipeline turns a pipeline's ConfigMap into validated settings, and
// object names into pipelines.
package pipeline

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"tidemill/internal/policy"
	"tidemill/internal/result"
)

// IO says how the command meets an object.
type IO string

// The ways a command gets its object and gives its results.
const (
	Files  IO = "files"  // the object is a file; every file left in the output directory is a result
	Stream IO = "stream" // the object is standard input; standard output is the result
)

// Pipeline is one pipeline's validated settings.
type Pipeline struct {
	Name     string
	Bucket   string
	Match    []string
	Exclude  []string
	Results  result.Template
	Failures result.Template
	IO       IO
	Scaling  policy.Settings

	LeaseDuration      time.Duration
	ItemTimeout        time.Duration
	MaxAttempts        int
	MaxDeliveries      int
	RetryBackoffMin    time.Duration
	RetryBackoffMax    time.Duration
	PermanentExitCodes []int
	MaxObjectSize      int64 // bytes; negative means no limit
}

// Problem is one thing that is wrong with a pipeline's settings.
type Problem struct {
	Pipeline string
	Key      string // empty if no single key is to blame
	Text     string
}

// Error is one line: the pipeline, the key, what is wrong and what would be right.
func (p Problem) Error() string {
	if p.Key == "" {
		return "pipeline " + p.Pipeline + ": " + p.Text
	}
	return "pipeline " + p.Pipeline + ": " + p.Key + ": " + p.Text
}

var nameRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// Parse reads one pipeline's keys. It returns all problems at once; the
// Pipeline may be used only if there are none.
func Parse(name string, data map[string]string) (Pipeline, []Problem) {
	p := Pipeline{Name: name}
	var problems []Problem
	add := func(key, format string, args ...any) {
		problems = append(problems, Problem{Pipeline: name, Key: key, Text: fmt.Sprintf(format, args...)})
	}
	if !nameRule.MatchString(name) {
		add("", "the name must have 1 to 40 lower-case letters, digits and inner hyphens")
	}
	known := map[string]bool{}
	for _, k := range Keys() {
		known[k.Name] = true
		value, given := data[k.Name]
		if !given {
			value = k.Default
		}
		value = strings.TrimSpace(value)
		if err := k.set(&p, value); err != nil {
			add(k.Name, "%v", err)
		}
	}
	for key := range data {
		if !known[key] {
			add(key, "there is no such key; the keys are %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	if len(problems) == 0 {
		p.crossCheck(add)
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.Key, b.Key) })
	return p, problems
}

func (p *Pipeline) crossCheck(add func(key, format string, args ...any)) {
	if p.Scaling.MinWorkers > p.Scaling.MaxWorkers {
		add("min-workers", "%d is more than max-workers, %d", p.Scaling.MinWorkers, p.Scaling.MaxWorkers)
	}
	for _, t := range []struct {
		key string
		t   result.Template
	}{{"results", p.Results}, {"failures", p.Failures}} {
		switch l := t.t.Prefix(p.Bucket); {
		case l.Bucket == p.Bucket && l.Name == "":
			add(t.key, "%q would make every object of the input bucket an output; start the name with a folder", string(t.t))
		case !bucketRule.MatchString(l.Bucket):
			add(t.key, "%q leads to %q, which is not a bucket name", string(t.t), l.Bucket)
		}
	}
	for _, g := range p.Match {
		if start := constantStart(g); start != "" && p.Own(p.Bucket, start) {
			add("match", "%q matches nothing but the pipeline's own results and reports, which it never takes", g)
			break
		}
	}
	r, f := p.Results.Prefix(p.Bucket), p.Failures.Prefix(p.Bucket)
	if r == f {
		add("failures", "%q starts like results, so that a report could replace a result; use another folder", string(p.Failures))
	}
}

// Own reports whether name in bucket is one of this pipeline's own outputs.
func (p *Pipeline) Own(bucket, name string) bool {
	for _, t := range []result.Template{p.Results, p.Failures} {
		l := t.Prefix(p.Bucket)
		if l.Bucket == bucket && (strings.HasPrefix(name, l.Name) || strings.HasPrefix(name, t.ReservedFolder(p.Bucket).Name)) {
			return true
		}
	}
	return false
}
