package obs

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// Condition is something a process needs that fails at present.
type Condition struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Health is what a process says of itself. Readiness is a set of named
// conditions that must all hold; liveness is that no loop has missed its beat.
// It is safe for concurrent use.
type Health struct {
	mu         sync.Mutex
	conditions map[string]string // name -> reason; empty when it holds
	beats      map[string]time.Time
}

// NewHealth returns a Health that is not ready until each named condition has
// been reported as holding: what is not known yet is not taken for good.
// Without names it is ready until a condition fails.
func NewHealth(names ...string) *Health {
	h := &Health{conditions: map[string]string{}, beats: map[string]time.Time{}}
	for _, name := range names {
		h.conditions[name] = "not checked yet"
	}
	return h
}

// Set reports a condition: nil means it holds, an error why it does not. The
// reason is served to whoever can reach the endpoint, so the error must hold no
// secret. A new name adds a condition.
func (h *Health) Set(name string, err error) {
	reason := ""
	if err != nil {
		reason = cmp.Or(err.Error(), "failed")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conditions[name] = reason
}

// Ready reports whether every condition holds.
func (h *Health) Ready() bool { return len(h.Failing()) == 0 }

// Failing returns the conditions that do not hold, by name.
func (h *Health) Failing() []Condition {
	h.mu.Lock()
	defer h.mu.Unlock()
	failing := []Condition{}
	for _, name := range slices.Sorted(maps.Keys(h.conditions)) {
		if reason := h.conditions[name]; reason != "" {
			failing = append(failing, Condition{name, reason})
		}
	}
	return failing
}

// Beat says that a loop is alive and will beat again within the given time;
// zero or less says that it has ended, as it should. The time must be well
// above the loop's longest healthy round: missing it gets the process
// restarted, so a slow dependency must not be able to cause that.
func (h *Health) Beat(loop string, within time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if within <= 0 {
		delete(h.beats, loop)
		return
	}
	h.beats[loop] = time.Now().Add(within)
}

// Stalled returns the loops that have missed their beat, by name.
func (h *Health) Stalled() []Condition {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	stalled := []Condition{}
	for _, loop := range slices.Sorted(maps.Keys(h.beats)) {
		if late := now.Sub(h.beats[loop]); late > 0 {
			stalled = append(stalled, Condition{loop, "no beat for " + late.Round(time.Millisecond).String() + " past its time"})
		}
	}
	return stalled
}
