package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for a loaded machine; nothing waits this long when all is well.
const patience = time.Minute

// localRun is a running tidemill local.
type localRun struct {
	t      *testing.T
	dir    string // with in and out below it
	cmd    *exec.Cmd
	stderr *lockedBuffer
	exited chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startLocal runs tidemill local over dir/in and dir/out.
func startLocal(t *testing.T, files map[string]string, args ...string) *localRun {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &localRun{t: t, dir: t.TempDir(), stderr: &lockedBuffer{}, exited: make(chan struct{})}
	for name, content := range files {
		r.write("in/"+name, content)
	}
	r.cmd = exec.Command(exe, append([]string{"local", "--in", "in", "--out", "out"}, args...)...)
	r.cmd.Args[0] = "tidemill" // which TestMain goes by
	r.cmd.Dir, r.cmd.Stderr = r.dir, r.stderr
	r.cmd.Env = append(os.Environ(), "DIR="+r.dir)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(r.exited); _ = r.cmd.Wait() }() // the exit code is looked at later
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it has ended, if the test went well
		<-r.exited
		if t.Failed() {
			t.Logf("its standard error:\n%s", r.stderr)
		}
	})
	return r
}

func (r *localRun) write(name, content string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *localRun) read(name string) string {
	content, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		return ""
	}
	return string(content)
}

// await waits for a condition.
func (r *localRun) await(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			r.t.Fatalf("gave up waiting for %s", what)
		case <-tick.C:
		}
	}
}

func (r *localRun) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// exits waits for the end and checks the exit code.
func (r *localRun) exits(code int) {
	r.t.Helper()
	select {
	case <-r.exited:
	case <-time.After(patience):
		r.t.Fatal("it does not end")
	}
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		r.t.Errorf("exit code %d, want %d", got, code)
	}
}

// gone waits until the process whose id stands in a file no longer exists.
func (r *localRun) gone(pidFile string) {
	r.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(r.read(pidFile)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.await("the end of process "+strconv.Itoa(pid), func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func TestWatchingPicksUpFilesAndUploads(t *testing.T) {
	t.Parallel()
	r := startLocal(t, map[string]string{"a": "one"}, "--", "sh", "-c", `tr a-z A-Z < "$TIDEMILL_INPUT" > "$TIDEMILL_OUTPUT/up"`)
	result := func(name, want string) {
		t.Helper()
		r.await(name+" = "+want, func() bool { return r.read("out/"+name+"/up") == want })
	}
	result("a", "ONE")
	r.write("in/new/folder/b", "two")
	result("new/folder/b", "TWO")
	r.write("in/a", "one, changed")
	result("a", "ONE, CHANGED")

	url := regexp.MustCompile(`'(http://[^']*)NAME'`).FindStringSubmatch(r.stderr.String())
	if url == nil {
		t.Fatal("no address to upload to was printed")
	}
	resp, err := http.Post(url[1]+"by%20hand", "text/plain", strings.NewReader("three"))
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the upload was answered %s, %v", resp.Status, err)
	}
	result("by hand", "THREE")

	r.signal(syscall.SIGINT)
	r.exits(0)
	if !strings.Contains(r.stderr.String(), "4 items: 4 done, 0 failed") {
		t.Error("the summary does not count 4 items")
	}
}

func TestInterruptFinishesWhatIsInHand(t *testing.T) {
	t.Parallel()
	r := startLocal(t, map[string]string{"a": "", "b": ""}, "--once", "--max-workers", "1", "--", "sh", "-c",
		`echo $TIDEMILL_OBJECT >> "$DIR/begun"; until test -e "$DIR/go"; do sleep 0.05; done; echo done > "$TIDEMILL_OUTPUT/r"`)
	r.await("the command to run", func() bool { return r.read("begun") != "" })
	r.signal(syscall.SIGINT)
	r.await("the message", func() bool { return strings.Contains(r.stderr.String(), "what is in hand is finished") })
	r.write("go", "")
	r.exits(exitInterrupted)
	first := strings.TrimPrefix(strings.TrimSpace(r.read("begun")), "uploads/")
	if strings.Contains(first, "\n") {
		t.Fatalf("a second item was begun after the interrupt: %q", first)
	}
	if got := r.read("out/" + first + "/r"); got != "done\n" {
		t.Errorf("the result of what was in hand is %q", got)
	}
}

func TestSecondInterruptStopsNow(t *testing.T) {
	t.Parallel()
	r := startLocal(t, map[string]string{"a": ""}, "--once", "--", "sh", "-c",
		`trap "" TERM; echo half > "$TIDEMILL_OUTPUT/r"; echo $$ > "$DIR/pid"; while :; do sleep 0.1; done`)
	r.await("the command to run", func() bool { return strings.HasSuffix(r.read("pid"), "\n") })
	r.signal(syscall.SIGINT)
	r.await("the message", func() bool { return strings.Contains(r.stderr.String(), "Ctrl-C again stops now") })
	r.signal(syscall.SIGINT)
	r.exits(exitInterrupted)
	r.gone("pid")
	if r.read("out/a/r") != "" {
		t.Error("a result that was never finished stands in the output folder")
	}
}

func TestNothingOutlivesAKill(t *testing.T) {
	t.Parallel()
	r := startLocal(t, map[string]string{"a": ""}, "--once", "--", "sh", "-c",
		`trap "" TERM; echo $PPID > "$DIR/worker"; echo $$ > "$DIR/pid"; while :; do sleep 0.1; done`)
	r.await("the command to run", func() bool { return strings.HasSuffix(r.read("pid"), "\n") })
	r.signal(syscall.SIGKILL)
	<-r.exited
	r.gone("worker")
	r.gone("pid")
}
