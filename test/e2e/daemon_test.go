//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidemill/internal/testutil/proctest"
)

const startTries = 5

// daemon is one of ours as a process.
type daemon struct {
	*proctest.Process
	name   string // of its logs
	addr   string // of its health and metrics
	log    string // file of its standard output
	stderr string
	crash  bool // the test kills it: it says no goodbye
}

// startDaemon starts a binary and waits until it serves /healthz.
func (s *system) startDaemon(t *testing.T, binary string, args ...string) *daemon {
	t.Helper()
	for try := 1; ; try++ {
		d, err := s.tryDaemon(t, binary, args)
		if err == nil {
			s.daemons = append(s.daemons, d)
			return d
		}
		if try == startTries || !strings.Contains(readFile(t, d.stderr), "address already in use") {
			t.Fatalf("%v\n%s", err, readFile(t, d.stderr))
		}
	}
}

func (s *system) tryDaemon(t *testing.T, binary string, args []string) (*daemon, error) {
	t.Helper()
	port, err := proctest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{name: fmt.Sprintf("%02d-%s", len(s.daemons)+1, binary), addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	d.log, d.stderr = filepath.Join(s.dir, d.name+".log"), filepath.Join(s.dir, d.name+".err")
	stdout, stderr := create(t, d.log), create(t, d.stderr)
	defer stdout.Close() // the child has its own
	defer stderr.Close()
	// Flags go before the arguments: a command's may follow those.
	at := 0
	if binary == "worker" {
		at = 1
	}
	args = slices.Insert(slices.Clone(args), at, "--redis-url", s.redis.URL, "--listen", d.addr, "--log-level", "debug")
	cmd := exec.Command(filepath.Join(binaries, binary), args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if d.Process, err = proctest.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := d.Await(ctx, func(ctx context.Context) error { return d.answers(ctx, "/healthz", http.StatusOK) }); err != nil {
		return d, errors.Join(err, d.Process.Kill())
	}
	return d, nil
}

// get asks one of the daemon's own endpoints.
func (d *daemon) get(ctx context.Context, path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.addr+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

func (d *daemon) answers(ctx context.Context, path string, want int) error {
	status, body, err := d.get(ctx, path)
	if err == nil && status != want {
		err = fmt.Errorf("%s of %s answers %d, not %d: %s", path, d.name, status, want, body)
	}
	return err
}

// kill is a crash.
func (d *daemon) kill(t *testing.T) {
	t.Helper()
	d.crash = true
	if err := d.Process.Kill(); err != nil {
		t.Fatal(err)
	}
}

func (d *daemon) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := d.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the daemon's end and returns its exit code.
func (d *daemon) exit(t *testing.T) int {
	t.Helper()
	timer := time.NewTimer(soon)
	defer timer.Stop()
	select {
	case <-d.Done():
	case <-timer.C:
		t.Fatalf("%s (process %d) has not ended in %s", d.name, d.Pid(), soon)
	}
	return exitCode(t, d.Err())
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// stop ends what still runs as an operator would, the oldest last, and checks the
// exit codes and all logs.
func (s *system) stop(t *testing.T) {
	t.Helper()
	for _, d := range slices.Backward(s.daemons) {
		if d.crash {
			continue
		}
		d.signal(t, syscall.SIGTERM)
		want := 0
		if strings.HasSuffix(d.name, "worker") {
			want = 143
		}
		if got := d.exit(t); got != want {
			t.Errorf("%s: exit code %d after SIGTERM, want %d", d.name, got, want)
		}
	}
	for _, d := range s.daemons {
		checkLog(t, d)
	}
}

// end kills what a failed test left running, and shows the logs.
func (s *system) end(t *testing.T) {
	for _, d := range slices.Backward(s.daemons) {
		if err := d.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	if !t.Failed() {
		return
	}
	const most = 16 << 10
	for _, d := range s.daemons {
		log := readFile(t, d.log)
		t.Logf("%s (process %d) logged, at the end:\n%s%s", d.name, d.Pid(), log[max(0, len(log)-most):], readFile(t, d.stderr))
	}
}

func create(t *testing.T, file string) *os.File {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}
