package proctest_test

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidemill/internal/testutil/proctest"
)

const deadline = 30 * time.Second

func start(t *testing.T, script string) *proctest.Process {
	t.Helper()
	p, err := proctest.Start(exec.CommandContext(context.Background(), "/bin/sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// wrote waits until p has written text.
func wrote(t *testing.T, p *proctest.Process, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	err := p.Await(ctx, func(context.Context) error {
		if !strings.Contains(p.Output(), text) {
			return errors.New("it hasn't written " + text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestKillEndsTheWholeGroup(t *testing.T) {
	t.Parallel()
	p := start(t, `sleep 600 & echo "child $!"; wait`)
	wrote(t, p, "child ")
	child, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(p.Output(), "child ")))
	if err != nil {
		t.Fatal(err)
	}
	if group, err := syscall.Getpgid(child); err != nil || group != p.Pid() {
		t.Fatalf("the grandchild's group = %d, %v; want %d", group, err, p.Pid())
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	// The grandchild held the output pipe: Done would have come only after
	// WaitDelay, with exec.ErrWaitDelay, had it survived.
	if err := p.Err(); errors.Is(err, exec.ErrWaitDelay) || err == nil {
		t.Errorf("Err = %v, want the signal", err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signalling a process that is gone: %v, want nothing done", err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script  string
		grace   time.Duration
		wantErr string
	}{
		"obeys":    {`trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done`, deadline, ""},
		"paused":   {`trap 'exit 0' TERM; echo up; kill -STOP $$; while :; do sleep 0.05; done`, deadline, ""},
		"stubborn": {`trap 'echo ignored' TERM; echo up; while :; do sleep 0.05; done`, 100 * time.Millisecond, "was killed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.script)
			wrote(t, p, "up")
			err := p.Stop(tt.grace)
			if got := errText(err); (tt.wantErr == "") != (got == "") || !strings.Contains(got, tt.wantErr) {
				t.Errorf("Stop: %q, want %q", got, tt.wantErr)
			}
			select {
			case <-p.Done():
			default:
				t.Error("it still runs after Stop")
			}
		})
	}
}

func TestAwaitSaysWhyItGaveUp(t *testing.T) {
	t.Parallel()
	never := func(context.Context) error { return errors.New("no answer yet") }
	p := start(t, `echo cannot bind >&2; exit 3`)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	got := errText(p.Await(ctx, never))
	for _, want := range []string{"exit status 3", "no answer yet", "cannot bind"} {
		if !strings.Contains(got, want) {
			t.Errorf("Await = %q, which doesn't say %q", got, want)
		}
	}
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	if err := start(t, `exec sleep 600`).Await(expired, never); !errors.Is(err, context.Canceled) {
		t.Errorf("Await = %v, want context.Canceled", err)
	}
}

func TestOutputKeepsTheTail(t *testing.T) {
	t.Parallel()
	p := start(t, `i=0; while [ $i -lt 3000 ]; do echo "line $i, padded to be about forty bytes"; i=$((i+1)); done`)
	<-p.Done()
	out := p.Output()
	if len(out) != 64<<10 || !strings.HasSuffix(out, "line 2999, padded to be about forty bytes\n") {
		t.Errorf("Output has %d bytes and ends with %q", len(out), out[max(0, len(out)-40):])
	}
}

func TestStartNamesAMissingProgram(t *testing.T) {
	t.Parallel()
	_, err := proctest.Start(exec.CommandContext(context.Background(), "/nonexistent/server"))
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/server") {
		t.Errorf("Start = %v, want the missing path", err)
	}
}

func TestFreePortCanBeBound(t *testing.T) {
	t.Parallel()
	port, err := proctest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	if port < 20000 || port >= 32000 {
		t.Errorf("port %d is outside the range below the ephemeral ports", port)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
