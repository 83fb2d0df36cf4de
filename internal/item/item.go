package item

import (
	"fmt"
	"strconv"
	"strings"
)

// ID identifies an item: the object's identity plus a run number,
// bucket/name#generation for run 0 and bucket/name#generation+run after it.
// Two notifications of the same generation have the same ID.
type ID string

// Item is the queue's record of an object to process.
type Item struct {
	Object
	Run         int    // 0, raised by a rerun
	Size        int64  // bytes
	ContentType string // as the uploader declared it; may be empty
	Traceparent string // W3C trace context of the event; may be empty
}

// ID returns the item's identity.
func (it Item) ID() ID {
	id := it.Object.String()
	if it.Run > 0 {
		id += "+" + strconv.Itoa(it.Run)
	}
	return ID(id)
}

// ParseID splits an ID into the object and the run it names. The name may
// contain any character, '#', '+' and '/' included: the last '#' ends it. Only
// what Item.ID writes is taken, so that one item never has two IDs: a generation
// of 007 or a run of +0 is refused.
func ParseID(id ID) (Object, int, error) {
	s := string(id)
	bucket, rest, ok := strings.Cut(s, "/")
	hash := strings.LastIndexByte(rest, '#')
	if !ok || bucket == "" || hash < 1 {
		return Object{}, 0, fmt.Errorf("item ID %q is not bucket/name#generation", s)
	}
	gen, runs, hasRun := strings.Cut(rest[hash+1:], "+")
	generation, err := strconv.ParseInt(gen, 10, 64)
	if err != nil || generation <= 0 {
		return Object{}, 0, fmt.Errorf("item ID %q: generation %q is not a positive number", s, gen)
	}
	run := 0
	if hasRun {
		if run, err = strconv.Atoi(runs); err != nil || run <= 0 {
			return Object{}, 0, fmt.Errorf("item ID %q: run %q is not a positive number", s, runs)
		}
	}
	o := Object{Bucket: bucket, Name: rest[:hash], Generation: generation}
	if canonical := (Item{Object: o, Run: run}).ID(); canonical != id {
		return Object{}, 0, fmt.Errorf("item ID %q has superfluous digits; it is written %q", s, string(canonical))
	}
	return o, run, nil
}
