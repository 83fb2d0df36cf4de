package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"tidemill/internal/result"
)

// Set is a complete set of pipelines that may run side by side. The zero Set is
// empty. Sets are not changed once made, and so safe for concurrent use.
type Set struct {
	byName   map[string]Pipeline
	byBucket map[string][]Pipeline // sorted by name
}

// NewSet validates all pipelines, each by itself and against the others. What
// is wrong with one pipeline keeps only that one out of the set. Of two that
// can't run side by side, the one whose name sorts first stays.
func NewSet(pipelines map[string]map[string]string) (Set, []Problem) {
	var s Set
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(pipelines)) {
		next, wrong := s.With(name, pipelines[name])
		problems = append(problems, wrong...)
		s = next
	}
	return s, problems
}

// With returns the set with one pipeline added, or replaced. If that one is not
// valid, or can't run beside the others, the problems are all its own, and the
// set is returned as it was.
func (s Set) With(name string, data map[string]string) (Set, []Problem) {
	p, problems := Parse(name, data)
	if len(problems) > 0 {
		return s, problems
	}
	others := s.Without(name)
	if problems = others.conflicts(p); len(problems) > 0 {
		return s, problems
	}
	return others.add(p), nil
}

// Without returns the set without the named pipeline.
func (s Set) Without(name string) Set {
	var next Set
	for _, other := range s.sorted() {
		if other.Name != name {
			next = next.add(other)
		}
	}
	return next
}

func (s Set) add(p Pipeline) Set {
	next := Set{byName: maps.Clone(s.byName), byBucket: map[string][]Pipeline{}}
	if next.byName == nil {
		next.byName = map[string]Pipeline{}
	}
	next.byName[p.Name] = p
	for _, p := range next.sorted() {
		next.byBucket[p.Bucket] = append(next.byBucket[p.Bucket], p)
	}
	return next
}

func (s Set) sorted() []Pipeline {
	var all []Pipeline
	for _, name := range s.Names() {
		all = append(all, s.byName[name])
	}
	return all
}

// Get returns the pipeline of that name.
func (s Set) Get(name string) (Pipeline, bool) {
	p, ok := s.byName[name]
	return p, ok
}

// Names returns the names of all pipelines, sorted.
func (s Set) Names() []string { return slices.Sorted(maps.Keys(s.byName)) }

// Route returns the pipeline that takes the object, if any: of those that match,
// the one whose pattern has the longest constant start (the part before the first
// wildcard). Outputs of the pipeline itself, and what lies in a reserved folder,
// are never taken.
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
	if result.InReserved(object) || p.Own(p.Bucket, object) {
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

// constantStart is what every name that the glob matches starts with, but for
// the slash before a ** that stands for nothing.
func constantStart(glob string) string {
	if i := strings.IndexAny(glob, special); i >= 0 {
		return glob[:i]
	}
	return glob
}

// constantEnd is what every name that the glob matches ends with.
func constantEnd(glob string) string {
	i := strings.LastIndexAny(glob, special)
	end := glob[i+1:]
	if strings.Contains(glob, "**") {
		end = strings.TrimPrefix(end, "/") // **/ also stands for nothing
	}
	return end
}

const special = `*?[]{}\`

// disjoint reports whether no name can match both globs, as far as their ends
// tell: *.png and *.jpg.
func disjoint(a, b string) bool {
	a, b = constantEnd(a), constantEnd(b)
	return !strings.HasSuffix(a, b) && !strings.HasSuffix(b, a)
}

// conflicts reports why p can't join the set: a tie with a member's pattern, or
// a cycle of results becoming input.
func (s Set) conflicts(p Pipeline) []Problem {
	var problems []Problem
	for _, other := range s.byBucket[p.Bucket] {
		for _, a := range p.Match {
			for _, b := range other.Match {
				if constantStart(a) == constantStart(b) && !disjoint(a, b) {
					problems = append(problems, Problem{p.Name, "match", fmt.Sprintf(
						"%q and pipeline %s's %q start alike, so that neither is the more specific where both match; "+
							"start one with a longer folder, or let them end differently, as *.png and *.jpg do", a, other.Name, b)})
				}
			}
		}
	}
	if path := cycle(append(s.sorted(), p), p.Name, p.Name, nil); path != nil {
		problems = append(problems, Problem{p.Name, "results", fmt.Sprintf(
			"its results or reports may come back to it as input, by way of pipeline %s; "+
				"put one pipeline's outputs where the next one's match does not reach, or exclude their folder (folder/**) there",
			strings.Join(path[:len(path)-1], ", "))})
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
// side of yes: patterns are compared by their constant starts, and of the
// exclusions only whole folders count.
func feeds(a, b Pipeline) bool {
	for _, t := range []result.Template{a.Results, a.Failures} {
		out := t.Prefix(a.Bucket)
		if out.Bucket != b.Bucket || b.Own(out.Bucket, out.Name) || b.excludes(out.Name) {
			continue
		}
		for _, g := range b.Match {
			start := constantStart(g)
			if strings.HasPrefix(start, out.Name) || strings.HasPrefix(out.Name, start) {
				return true
			}
		}
	}
	return false
}

// excludes reports whether every name that starts with prefix is excluded.
func (p *Pipeline) excludes(prefix string) bool {
	return slices.ContainsFunc(p.Exclude, func(g string) bool {
		folder, all := strings.CutSuffix(g, "**")
		return all && constantStart(folder) == folder && (folder == "" || strings.HasSuffix(folder, "/")) &&
			strings.HasPrefix(prefix, folder)
	})
}
