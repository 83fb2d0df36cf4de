//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// binaries is the directory of the daemons under test.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tidemill-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	args := []string{"build", "-race", "-buildvcs=false", "-o", dir + string(filepath.Separator)}
	for _, name := range []string{"ingest", "scaler", "worker"} {
		args = append(args, "tidemill/cmd/"+name)
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the daemons: %v\n%s", err, out)
		return 1
	}
	binaries = dir
	return m.Run()
}

// await polls until probe returns nil, and fails the test with its last error
// when that takes too long.
func await(t *testing.T, what string, within time.Duration, probe func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := probe(ctx)
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil { // the deadline's own error says nothing
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting until %s: not in %s: %v", what, within, last)
		case <-tick.C:
		}
	}
}

// soon bounds every wait for what takes seconds on an idle machine.
const soon = 90 * time.Second
