package files

import (
	"time"

	"tidemill/internal/item"
)

// outcome is how an object ended.
type outcome int

const (
	isDone outcome = iota
	isDead
	isSkipped
	isRefused // its result can't be written to OUT
)

// register notes an upload of ours as outstanding.
func (f *Files) register(u *upload) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.of(u.rel)
	r.seen, r.restive = u.version.Source, time.Time{}
	f.counts.Uploaded++
	f.start(r, u)
}

// Track notes an object that another client uploaded, so that Done, Dead or
// Skipped can be called for it. Objects known already, and older generations of
// them, are ignored, so it may be called for every object that is heard of.
// Tracked objects are outside the budget and are never removed from the bucket.
func (f *Files) Track(obj item.Object) {
	rel := f.rel(obj)
	f.await(rel)
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.of(rel)
	if obj.Generation <= r.newest {
		return
	}
	f.counts.Tracked++
	f.start(r, &upload{obj: obj, rel: rel})
}

// start makes u the outstanding version of its path. An older one that has not
// ended is superseded: it counts as skipped now, and its end is ignored later.
// The caller holds f.mu.
func (f *Files) start(r *record, u *upload) {
	if old := r.live; old != nil && !old.busy {
		f.end(r, old, isSkipped)
	}
	r.live, r.newest, r.stored, r.outside = u, u.obj.Generation, u.obj.Generation, u.outside()
	f.live[u.obj] = u
}

// end takes u off the outstanding ones and gives back its budget. The caller
// holds f.mu.
func (f *Files) end(r *record, u *upload, how outcome) {
	delete(f.live, u.obj)
	if r.live == u {
		r.live = nil
	}
	switch how {
	case isDone:
		f.counts.Done++
	case isDead:
		f.counts.Dead++
	case isSkipped:
		f.counts.Skipped++
	case isRefused:
		f.counts.Refused++
	}
	if !u.outside() {
		f.release(u.weight)
	}
}

// await returns when no write of ours to a path is under way.
func (f *Files) await(rel string) {
	f.mu.Lock()
	stands := f.putting[rel]
	f.mu.Unlock()
	if stands != nil {
		<-stands
	}
}

// Outstanding returns the objects that were uploaded or tracked and have not
// ended, in no particular order: at most MaxFiles, and those tracked.
func (f *Files) Outstanding() []item.Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	objects := make([]item.Object, 0, len(f.live))
	for obj := range f.live {
		objects = append(objects, obj)
	}
	return objects
}

// claim returns an outstanding object for its end to be written, or nil if it is
// not outstanding or somebody else is at it.
func (f *Files) claim(obj item.Object) *upload {
	f.await(f.rel(obj))
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.live[obj]
	if u == nil || u.busy {
		return nil
	}
	u.busy = true
	return u
}

// unclaim leaves an object outstanding, for another try at its end. One that has
// been superseded meanwhile needs none.
func (f *Files) unclaim(u *upload) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u.busy = false
	if r := f.of(u.rel); r.live != u {
		f.end(r, u, isSkipped)
	}
}

// superseded reports whether a newer version's results stand already.
func (f *Files) superseded(u *upload) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of(u.rel).ended > u.obj.Generation
}
