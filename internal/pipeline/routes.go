package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Set is a complete set of pipelines that may run side by side.
type Set struct {
	byName   map[string]Pipeline
	byBucket map[string][]Pipeline
}

// NewSet validates all pipelines, each by itself and against the others. What
// is wrong with one pipeline keeps only that one out of the set.
func NewSet(pipelines map[string]map[string]string) (Set, []Problem) {
	s := Set{byName: map[string]Pipeline{}, byBucket: map[string][]Pipeline{}}
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(pipelines)) {
		p, wrong := Parse(name, pipelines[name])
		if len(wrong) == 0 {
			wrong = s.conflicts(p)
		}
		problems = append(problems, wrong...)
		if len(wrong) == 0 {
			s.byName[name] = p
			s.byBucket[p.Bucket] = append(s.byBucket[p.Bucket], p)
		}
	}
	return s, problems
}

// Get returns the pipeline of that name.
func (s Set) Get(name string) (Pipeline, bool) {
	p, ok := s.byName[name]
	return p, ok
}

// Names returns the names of all pipelines, sorted.
func (s Set) Names() []string { return slices.Sorted(maps.Keys(s.byName)) }

// Route returns the pipeline that takes the object, if any: of those that match,
// the one whose pattern has the longest constant start.
func (s Set) Route(bucket, object string) (string, bool) {
	best, length := "", -1
	for _, p := range s.byBucket[bucket] {
		if n := p.matches(object); n > length {
			best, length = p.Name, n
		}
	}
	return best, length >= 0
}

// matches returns the length of the constant start of the most specific pattern
// that matches the object, or -1.
func (p *Pipeline) matches(object string) int {
	if p.Own(p.Bucket, object) {
		return -1
	}
	for _, g := range p.Exclude {
		if doublestar.MatchUnvalidated(g, object) {
			return -1
		}
	}
	n := -1
	for _, g := range p.Match {
		if doublestar.MatchUnvalidated(g, object) {
			n = max(n, len(constantStart(g)))
		}
	}
	return n
}

func constantStart(glob string) string {
	if i := strings.IndexAny(glob, `*?[{\`); i >= 0 {
		return glob[:i]
	}
	return glob
}

// conflicts reports why p can't join the set: a tie with a member's pattern, or
// a cycle of results becoming input.
func (s Set) conflicts(p Pipeline) []Problem {
	var problems []Problem
	for _, other := range s.byBucket[p.Bucket] {
		for _, a := range p.Match {
			for _, b := range other.Match {
				if constantStart(a) == constantStart(b) {
					problems = append(problems, Problem{p.Name, "match", fmt.Sprintf(
						"%q and pipeline %s's %q start alike, so neither is the more specific; give one a longer folder", a, other.Name, b)})
				}
			}
		}
	}
	members := slices.Collect(maps.Values(s.byName))
	if path := cycle(append(members, p), p.Name, p.Name, nil); path != nil {
		problems = append(problems, Problem{p.Name, "results", "its results come back to it as input, by way of " + strings.Join(path, ", ")})
	}
	return problems
}

// cycle returns the pipelines on a way from one pipeline's outputs to another's
// input, or nil.
func cycle(all []Pipeline, from, to string, seen []string) []string {
	i := slices.IndexFunc(all, func(p Pipeline) bool { return p.Name == from })
	for _, next := range all {
		if next.Name == from || slices.Contains(seen, next.Name) || !feeds(all[i], next) {
			continue
		}
		if next.Name == to {
			return append(seen, next.Name)
		}
		if path := cycle(all, next.Name, to, append(slices.Clone(seen), next.Name)); path != nil {
			return path
		}
	}
	return nil
}

// feeds reports whether a's results or reports may be input of b. It errs on the
// side of yes: patterns are compared by their constant starts.
func feeds(a, b Pipeline) bool {
	for _, out := range []struct{ bucket, start string }{
		{a.Results.Prefix(a.Bucket).Bucket, a.Results.Prefix(a.Bucket).Name},
		{a.Failures.Prefix(a.Bucket).Bucket, a.Failures.Prefix(a.Bucket).Name},
	} {
		if out.bucket != b.Bucket || b.Own(out.bucket, out.start) {
			continue
		}
		for _, g := range b.Match {
			start := constantStart(g)
			if strings.HasPrefix(start, out.start) || strings.HasPrefix(out.start, start) {
				return true
			}
		}
	}
	return false
}
