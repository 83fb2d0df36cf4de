package command

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stubborn records itself and a grandchild, both deaf to SIGTERM.
const stubborn = `trap '' TERM
sh -c 'echo $$ >> "$1/pids"; while :; do sleep 1000; done' sh "$1" &
echo $$ >> "$1/pids"
while :; do sleep 1000; done`

// polite ends on SIGTERM with code 7, leaving a deaf grandchild behind.
const polite = `trap 'exit 7' TERM
sh -c 'trap "" TERM; echo $$ >> "$1/pids"; while :; do sleep 1000; done' sh "$1" &
while ! [ -s "$1/pids" ]; do sleep 0.01; done
echo $$ >> "$1/pids"
while :; do sleep 0.05; done`

func TestTimeout(t *testing.T) {
	t.Parallel()
	t.Run("deaf to SIGTERM", func(t *testing.T) {
		t.Parallel()
		s := shell(stubborn)
		s.Grace = 300 * time.Millisecond
		dir, done := run(t.Context(), t, s, Run{Timeout: 5 * time.Second})
		group := pids(t, 2, dir, "pids")
		res := await(t, done)
		if res.Cause != CauseTimeout || res.Signal != "SIGKILL" || res.ExitCode != -1 || res.Reason() != "timeout after 5s" {
			t.Errorf("result %+v (%s), want a timeout ended by SIGKILL", res, res.Reason())
		}
		if res.Took < 5300*time.Millisecond {
			t.Errorf("took %s, less than the limit and the grace period", res.Took)
		}
		mustBeGone(t, group...)
	})
	t.Run("polite", func(t *testing.T) {
		t.Parallel()
		dir, done := run(t.Context(), t, shell(polite), Run{Timeout: 5 * time.Second})
		group := pids(t, 2, dir, "pids")
		res := await(t, done)
		if res.Cause != CauseTimeout || res.ExitCode != 7 || res.Signal != "" {
			t.Errorf("result %+v, want a timeout with exit code 7", res)
		}
		mustBeGone(t, group...)
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	lost := errors.New("lease lost")
	for _, tc := range []struct {
		name   string
		script string
		grace  time.Duration
		end    func(cancel context.CancelCauseFunc, kill chan struct{})
		signal string
		code   int
		err    error
	}{
		{"polite", polite, time.Hour,
			func(c context.CancelCauseFunc, _ chan struct{}) { c(lost) }, "", 7, lost},
		{"polite, stopped", strings.Replace(polite, "while :; do sleep 0.05; done", "kill -STOP $$", 1), time.Hour,
			func(c context.CancelCauseFunc, _ chan struct{}) { c(lost) }, "", 7, lost},
		{"no grace", polite, 0,
			func(c context.CancelCauseFunc, _ chan struct{}) { c(lost) }, "SIGKILL", -1, lost},
		{"context with ErrKill", stubborn, time.Hour,
			func(c context.CancelCauseFunc, _ chan struct{}) { c(ErrKill) }, "SIGKILL", -1, ErrKill},
		{"kill", stubborn, time.Hour,
			func(_ context.CancelCauseFunc, k chan struct{}) { close(k) }, "SIGKILL", -1, ErrKill},
		{"kill in the grace period", stubborn, time.Hour,
			func(c context.CancelCauseFunc, k chan struct{}) { c(lost); close(k) }, "SIGKILL", -1, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			kill := make(chan struct{})
			s := shell(tc.script)
			s.Grace = tc.grace
			dir, done := run(ctx, t, s, Run{Kill: kill})
			group := pids(t, 2, dir, "pids")
			tc.end(cancel, kill)
			res := await(t, done)
			if res.Cause != CauseCanceled || res.Signal != tc.signal || res.ExitCode != tc.code {
				t.Errorf("result %+v, want canceled, signal %q, exit code %d", res, tc.signal, tc.code)
			}
			if tc.err != nil && !errors.Is(res.Err, tc.err) {
				t.Errorf("error %v, want %v", res.Err, tc.err)
			}
			mustBeGone(t, group...)
		})
	}
}

func TestCancelWinsOverEverything(t *testing.T) {
	t.Parallel()
	broken := errors.New("no route")
	for _, first := range []string{"timeout", "input", "output"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ready := make(chan struct{})
			r := Run{}
			switch first {
			case "timeout":
				r.Timeout = 5 * time.Second
			case "input":
				r.Stdin = readerFunc(func([]byte) (int, error) { <-ready; return 0, broken })
			case "output":
				r.Stdout = writerFunc(func([]byte) (int, error) { <-ready; return 0, broken })
			}
			exists := func(path ...string) func() bool {
				return func() bool { _, err := os.Stat(filepath.Join(path...)); return err == nil }
			}
			s := shell(`trap 'touch "$1/ending"' TERM; echo x; touch "$1/ready"
				while ! [ -e "$1/stop" ]; do sleep 0.05; done; exit 3`)
			s.Grace = time.Hour
			dir, done := run(ctx, t, s, r)
			eventually(t, "the trap is set", exists(dir, "ready"))
			close(ready)
			eventually(t, "SIGTERM", exists(dir, "ending"))
			cancel()
			if err := os.WriteFile(filepath.Join(dir, "stop"), nil, 0o600); err != nil {
				t.Error(err)
			}
			if res := await(t, done); res.Cause != CauseCanceled || res.ExitCode != 3 || !errors.Is(res.Err, context.Canceled) {
				t.Errorf("result %+v, want canceled with exit code 3", res)
			}
		})
	}
}

// A process that outlives its leader is killed, whatever the leader did.
func TestNothingOutlivesTheLeader(t *testing.T) {
	t.Parallel()
	const leave = `sh -c 'trap "" TERM HUP; echo $$ > "$1/pids"; sleep 1000 & wait' sh "$1" >/dev/null 2>&1 &
while ! [ -s "$1/pids" ]; do sleep 0.01; done; `
	for script, want := range map[string]Cause{"exit 0": CauseOK, "exit 5": CauseExit, "kill -9 $$": CauseSignal} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			dir, done := run(t.Context(), t, shell(leave+script), Run{})
			res := await(t, done)
			if res.Cause != want {
				t.Errorf("result %+v, want %s", res, want)
			}
			mustBeGone(t, pids(t, 1, dir, "pids")...)
		})
	}
}

// A worker that dies without a chance to clean up must not leave a command that
// works on beside the next holder of the lease.
func TestCommandDiesWithWorker(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	worker := helper(t, "worker", file)
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	pid := pids(t, 1, file)[0]
	if !runs(pid) {
		t.Errorf("the command, process %d, does not run", pid)
	}
	if err := worker.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := worker.Wait(); err == nil || worker.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the worker ended with %v, want SIGKILL", err)
	}
	eventually(t, "the command is gone", func() bool { return !runs(pid) })
}

// Guards against zombies where the worker is PID 1 and inherits orphans.
func TestOrphansAreCollected(t *testing.T) {
	t.Parallel()
	out, err := helper(t, "reaper").CombinedOutput()
	if got, want := strings.TrimSpace(string(out)), "exit 4 -1 no child processes"; err != nil || got != want {
		t.Errorf("helper: %q, %v, want %q", got, err, want)
	}
}
