package work_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain looks for goroutines that a worker left behind. The stand-in for the
// bucket leaves many of its own, so that only ours are looked for.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	code := m.Run()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	stacks := leaked()
	for deadline := time.Now().Add(patience); len(stacks) > 0 && time.Now().Before(deadline); stacks = leaked() {
		<-tick.C
	}
	if len(stacks) > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", bytes.Join(stacks, []byte("\n\n")))
		code = 1
	}
	return code
}

func leaked() [][]byte {
	all := make([]byte, 16<<20)
	all = all[:runtime.Stack(all, true)]
	var ours [][]byte
	for _, stack := range bytes.Split(all, []byte("\n\n")) {
		if bytes.Contains(stack, []byte("tidemill/internal/work.")) || bytes.Contains(stack, []byte("tidemill/internal/command.")) {
			ours = append(ours, stack)
		}
	}
	return ours
}
