package command

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"tidemill/internal/item"
)

// helperEnv makes the test binary act as another process.
const helperEnv = "COMMAND_TEST_HELPER"

// patience bounds waits for what must happen; only a failing test uses it up.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "worker":
		helperWorker()
	case "reaper":
		helperReaper()
	default:
		goleak.VerifyTestMain(m)
	}
}

// helperWorker is a worker whose command runs until somebody ends it.
func helperWorker() {
	Spec{Argv: []string{"sh", "-c", `echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 1000`, "sh", "{output}"}}.
		Run(context.Background(), Run{Output: os.Args[1]})
}

// helperReaper inherits orphans, like PID 1 of a container, and fails if a run
// leaves it any.
func helperReaper() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Println("prctl:", err)
		os.Exit(1)
	}
	res := Spec{Argv: []string{"sh", "-c", "for i in 1 2 3; do sleep 1000 & done; exit 4"}}.Run(context.Background(), Run{})
	pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
	fmt.Println(res.Reason(), pid, err)
	os.Exit(0)
}

// helper prepares a run of this test binary as a helper.
func helper(t *testing.T, mode string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	return cmd
}

// shell is a command of sh, with {output} as $1.
func shell(script string) Spec {
	return Spec{Argv: []string{"sh", "-c", script, "sh", "{output}"}, Grace: 30 * time.Second}
}

// run runs in the background, with a directory of its own as output.
func run(ctx context.Context, t *testing.T, s Spec, r Run) (dir string, result <-chan Result) {
	t.Helper()
	r.Output = t.TempDir()
	r.Item = item.Item{Object: item.Object{Bucket: "b", Name: "n", Generation: 1}}
	done := make(chan Result, 1)
	go func() { done <- s.Run(ctx, r) }()
	return r.Output, done
}

// runNow runs and waits.
func runNow(t *testing.T, s Spec, r Run) Result {
	t.Helper()
	_, done := run(t.Context(), t, s, r)
	return await(t, done)
}

func await(t *testing.T, done <-chan Result) Result {
	t.Helper()
	select {
	case res := <-done:
		return res
	case <-time.After(patience):
		t.Fatal("Run did not return")
		return Result{}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for: %s", patience, what)
		}
	}
}

// pids waits for n lines with process numbers in the file.
func pids(t *testing.T, n int, path ...string) []int {
	t.Helper()
	var out []int
	file := filepath.Join(path...)
	eventually(t, "process numbers in "+file, func() bool {
		text, err := os.ReadFile(file)
		fields := strings.Fields(string(text))
		if err != nil || len(fields) < n || !strings.HasSuffix(string(text), "\n") {
			return false
		}
		out = out[:0]
		for _, f := range fields {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			out = append(out, pid)
		}
		return true
	})
	return out
}

// runs reports whether the process exists and is no zombie: one whose parent
// does not collect it stays visible, but it does nothing more.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
	return !strings.HasPrefix(rest, " Z") && !strings.HasPrefix(rest, " X")
}

func mustBeGone(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if runs(pid) {
			t.Errorf("process %d still runs after Run has returned", pid)
		}
	}
}

// lines collects what Spec.Log gets.
type lines struct {
	mu   sync.Mutex
	list []string
}

func (l *lines) log(stream, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, stream+": "+line)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.list...)
}
