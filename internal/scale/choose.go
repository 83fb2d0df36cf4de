package scale

import (
	"maps"
	"slices"

	"tidemill/internal/pipeline"
)

// choice is what of an offer is put in force.
type choice struct {
	accepted map[string]map[string]string // what to store
	set      pipeline.Set                 // what of it is valid
	problems []pipeline.Problem
}

// choose takes of an offer each pipeline that is valid, and for each that is not
// what was in force before. Where pipelines can't run side by side, the one that
// was in force stays. What is not offered goes.
func choose(offer, before map[string]map[string]string) choice {
	set, problems := pipeline.NewSet(offer)
	if len(problems) == 0 {
		return choice{accepted: offer, set: set}
	}
	c := choice{accepted: maps.Clone(offer), problems: problems}
	for _, p := range problems {
		if good, ok := before[p.Pipeline]; ok {
			c.accepted[p.Pipeline] = good
		} else {
			delete(c.accepted, p.Pipeline)
		}
	}
	var more []pipeline.Problem
	if c.set, more = pipeline.NewSet(c.accepted); len(more) == 0 {
		return c
	}
	return oneByOne(offer, before)
}

// oneByOne begins with what was in force and is still offered, and makes one
// change at a time, as long as any is possible: one may have to make room for another.
func oneByOne(offer, before map[string]map[string]string) choice {
	c := choice{accepted: map[string]map[string]string{}}
	names := slices.Sorted(maps.Keys(offer))
	for _, name := range names {
		if old, ok := before[name]; ok {
			c.accepted[name] = old // even if this program finds fault with it: another one may not
			c.set, _ = c.set.With(name, old)
		}
	}
	for changed := true; changed; {
		changed, c.problems = false, nil
		var left []string
		for _, name := range names {
			next, problems := c.set.With(name, offer[name])
			if len(problems) > 0 {
				c.problems = append(c.problems, problems...)
				left = append(left, name)
				continue
			}
			c.set, c.accepted[name], changed = next, offer[name], true
		}
		names = left
	}
	return c
}
