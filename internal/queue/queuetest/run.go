// Package queuetest is the conformance suite of the queue contract. Every
// implementation passes it, on every kind of server that it claims to run on.
// The numbers in the names of its cases are those of the design's list.
package queuetest

import (
	"testing"
	"time"

	"tidemill/internal/queue"
)

// Queue is one queue, seen from all sides.
type Queue interface {
	queue.Producer
	queue.Consumer
	queue.Supervisor
	queue.Inspector
}

// Server is what one case runs against. Nobody else uses its queues.
type Server struct {
	Queue    func(name string) Queue
	Settings queue.SettingsStore
	// Advance returns once d of server time has passed. It may take no real time.
	Advance func(d time.Duration)
	// Scale multiplies the sizes of the cases with many items; 1 to 10.
	Scale int
}

// Options are what a case asks of its server.
type Options struct {
	Tombstones time.Duration // how long finished items are remembered; 0 is long enough
}

// Start gives a case its server, and ends it with the test.
type Start func(t *testing.T, o Options) Server

type testCase struct {
	name    string
	options Options
	run     func(*env)
}

// Run runs all cases in parallel.
func Run(t *testing.T, start Start) {
	t.Helper()
	var cases []testCase
	for _, group := range [][]testCase{enqueueCases(), leaseCases(), raceCases(), idleCases(), barCases(), stateCases(), settingsCases()} {
		cases = append(cases, group...)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := start(t, c.options)
			c.run(&env{T: t, Server: server, q: server.Queue("pipeline")})
		})
	}
}
