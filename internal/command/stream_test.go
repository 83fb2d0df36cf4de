package command

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// failingReader and failingWriter fail at once.
type (
	failingReader struct{ err error }
	failingWriter struct{ err error }
)

func (r failingReader) Read([]byte) (int, error)  { return 0, r.err }
func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// shortWriter takes half and claims that all is well.
type shortWriter struct{}

func (shortWriter) Write(p []byte) (int, error) { return len(p) / 2, nil }

// blocked neither reads nor writes until its owner lets it.
type blocked struct{ free <-chan struct{} }

func (b blocked) Read([]byte) (int, error)    { <-b.free; return 0, io.ErrClosedPipe }
func (b blocked) Write(p []byte) (int, error) { <-b.free; return 0, io.ErrClosedPipe }

// endless gives bytes as long as it is read.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

func TestStream(t *testing.T) {
	t.Parallel()
	big := random(5<<20 + 7)
	for _, tc := range []struct {
		name, script string
		in           io.Reader
		want         []byte
	}{
		{"binary both ways", "cat", bytes.NewReader(big), big},
		{"in small pieces", "cat", iotest.HalfReader(iotest.OneByteReader(bytes.NewReader(big[:5000]))), big[:5000]},
		{"data with the end", "cat", iotest.DataErrReader(bytes.NewReader(big)), big},
		{"empty", "cat", strings.NewReader(""), nil},
		{"no input is the null device", "cat; echo x", nil, []byte("x\n")},
		{"stdin not read", "echo x", bytes.NewReader(big), []byte("x\n")},
		{"a little of stdin read", "head -c1", endless{}, []byte{0}},
		{"stdin closed early", "exec <&-; sleep 0.1; echo x", endless{}, []byte("x\n")},
		{"stdout closed early", "echo x; exec >&-; cat >/dev/null", bytes.NewReader(big), []byte("x\n")},
		{"written by what is left behind", "(sleep 0.3; echo late) & echo x", strings.NewReader(""), []byte("x\nlate\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			res := runNow(t, shell("echo noise >&2; "+tc.script), Run{Stdin: tc.in, Stdout: &out})
			if res.Cause != CauseOK || string(res.Tail) != "noise\n" {
				t.Errorf("result %s, tail %q", res.Reason(), res.Tail)
			}
			if !bytes.Equal(out.Bytes(), tc.want) {
				t.Errorf("output: %d bytes, SHA-256 %x, want %d bytes", out.Len(), sha256.Sum256(out.Bytes()), len(tc.want))
			}
		})
	}
}

// untouched must not be written to.
type untouched struct{ t *testing.T }

func (u untouched) Write(p []byte) (int, error) {
	u.t.Errorf("the command wrote %q", p)
	return len(p), nil
}

func TestFailuresAtOurEnd(t *testing.T) {
	t.Parallel()
	broken := errors.New("no route")
	some := func() io.Reader { return io.MultiReader(bytes.NewReader(random(300_000)), failingReader{broken}) }
	lost := fmt.Errorf("connection lost: %w", io.EOF)
	for _, tc := range []struct {
		name, script string
		run          Run
		want         Cause
		err          error
	}{
		{"reader fails", "cat", Run{Stdin: some(), Stdout: io.Discard}, CauseInput, broken},
		{"reader fails and so does the command", "trap 'exit 9' TERM; while :; do sleep 0.05; done",
			Run{Stdin: failingReader{broken}}, CauseInput, broken},
		{"a wrapped EOF is no end", "cat", Run{Stdin: failingReader{lost}, Stdout: io.Discard}, CauseInput, lost},
		{"a failure does not look like the end", "cat >/dev/null; echo took it for the end",
			Run{Stdin: some(), Stdout: untouched{t}}, CauseInput, broken},
		{"writer fails", "yes", Run{Stdout: failingWriter{broken}}, CauseOutput, broken},
		{"writer fails and so does the command", "trap '' PIPE; trap 'exit 9' TERM; while :; do echo x; sleep 0.05; done 2>/dev/null",
			Run{Stdout: failingWriter{broken}}, CauseOutput, broken},
		{"writer fails, nothing more is written", "echo x; while :; do sleep 0.05; done",
			Run{Stdout: failingWriter{broken}}, CauseOutput, broken},
		{"writer is short", "yes", Run{Stdout: shortWriter{}}, CauseOutput, io.ErrShortWrite},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			res := runNow(t, shell(tc.script), tc.run)
			if res.Cause != tc.want || !errors.Is(res.Err, tc.err) {
				t.Errorf("result %+v (%s), want %s with %v", res, res.Reason(), tc.want, tc.err)
			}
		})
	}
}

// writerFunc and readerFunc make streams of functions.
type (
	writerFunc func([]byte) (int, error)
	readerFunc func([]byte) (int, error)
)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
func (f readerFunc) Read(p []byte) (int, error)  { return f(p) }

// What happens at our end after the command is over can't have caused its exit.
func TestFailuresAfterTheEnd(t *testing.T) {
	t.Parallel()
	broken := errors.New("no route")
	for _, tc := range []struct {
		name, script string
		reader       bool
		want         Cause
	}{
		{"writer, exit 0", "exit 0", false, CauseOutput},
		{"writer, exit 4", "exit 4", false, CauseExit},
		{"writer, signal", "kill -9 $$", false, CauseSignal},
		{"reader, exit 0", "exit 0", true, CauseOK},
		{"reader, exit 4", "exit 4", true, CauseExit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			leader := make(chan int, 1)
			fail := func([]byte) (int, error) {
				pid := <-leader
				eventually(t, "the leader has exited", func() bool { return !runs(pid) })
				return 0, broken
			}
			r := Run{Stdout: writerFunc(fail)}
			if tc.reader {
				r = Run{Stdin: readerFunc(fail), Stdout: io.Discard}
			}
			dir, done := run(t.Context(), t, shell(`echo x; echo $$ > "$1/pid"; while ! [ -e "$1/go" ]; do sleep 0.01; done; `+tc.script), r)
			leader <- pids(t, 1, dir, "pid")[0]
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Error(err)
			}
			if res := await(t, done); res.Cause != tc.want {
				t.Errorf("result %+v (%s), want %s", res, res.Reason(), tc.want)
			}
		})
	}
}

// A process that has left the group still holds the pipes: the run must end,
// and must not call a result whole that may not be.
func TestHeldOpen(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script string
		stream       bool
		want         Cause
		out          string
	}{
		{"stdout by the group", `sleep 1000 & echo x`, true, CauseOutput, "x\n"},
		{"stdout from outside", `setsid sh -c 'echo $$ > "$1/pids"; exec sleep 1000' sh "$1" &
			while ! [ -s "$1/pids" ]; do sleep 0.01; done; echo x`, true, CauseOutput, "x\n"},
		{"stdout from outside, exit 4", `setsid sh -c 'echo $$ > "$1/pids"; exec sleep 1000' sh "$1" &
			while ! [ -s "$1/pids" ]; do sleep 0.01; done; echo x; exit 4`, true, CauseExit, "x\n"},
		{"the log by the group", `sleep 1000 & echo x`, false, CauseOK, "x\n"},
		{"the log from outside", `setsid sh -c 'echo $$ > "$1/pids"; exec sleep 1000' sh "$1" &
			while ! [ -s "$1/pids" ]; do sleep 0.01; done; echo x`, false, CauseOK, "x\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			r := Run{}
			if tc.stream {
				r.Stdout = &out
			}
			dir, done := run(t.Context(), t, shell(tc.script), r)
			res := await(t, done)
			if strings.Contains(tc.script, "pids") {
				for _, pid := range pids(t, 1, dir, "pids") {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil { // it has escaped, as documented
						t.Errorf("killing process %d: %v", pid, err)
					}
				}
			}
			if res.Cause != tc.want || errors.Is(res.Err, ErrHeld) != (tc.want == CauseOutput) {
				t.Errorf("result %+v (%s), want %s", res, res.Reason(), tc.want)
			}
			if res.Took > 30*time.Second {
				t.Errorf("took %s", res.Took)
			}
			if got := out.String() + string(res.Tail); got != tc.out {
				t.Errorf("output %q, want %q", got, tc.out)
			}
		})
	}
}

// An endless writer that has left the group can't keep a run going.
func TestEndlessHolder(t *testing.T) {
	t.Parallel()
	dir, done := run(t.Context(), t, shell(`setsid sh -c 'echo $$ > "$1/pids"; exec yes' sh "$1" &
		while ! [ -s "$1/pids" ]; do sleep 0.01; done`), Run{Stdout: io.Discard})
	res := await(t, done)
	// It dies of SIGPIPE, now that nobody reads.
	for _, pid := range pids(t, 1, dir, "pids") {
		eventually(t, "the writer is gone", func() bool { return !runs(pid) })
	}
	if res.Cause != CauseOutput || !errors.Is(res.Err, ErrHeld) {
		t.Errorf("result %+v, want ErrHeld", res)
	}
}

// Passing on a result may take longer than others get to let go of it.
func TestSlowWriter(t *testing.T) {
	t.Parallel()
	want := random(60_000) // less than a pipe holds: the command is soon over
	var out bytes.Buffer
	first := true
	slow := writerFunc(func(p []byte) (int, error) {
		if first {
			first = false
			<-time.After(linger + time.Second/2)
		}
		return out.Write(p)
	})
	res := runNow(t, shell("head -c 1; cat"), Run{Stdin: bytes.NewReader(want), Stdout: slow})
	if res.Cause != CauseOK || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%s with %d bytes, want ok with %d", res.Reason(), out.Len(), len(want))
	}
}

// Streams that never return can't keep a run that has to end.
func TestBlockedStreams(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script string
		in, out      bool
		timeout      time.Duration
		want         Cause
	}{
		{"read, command over", "exit 0", true, false, 0, CauseOK},
		{"read, command waits", "cat", true, false, time.Second, CauseTimeout},
		{"write, command waits", "yes", false, true, time.Second, CauseTimeout},
		{"write, command over", "echo x", false, true, time.Second, CauseOutput},
		{"write, command failed", "echo x; exit 4", false, true, time.Second, CauseExit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			free := make(chan struct{})
			defer close(free)
			r := Run{Timeout: tc.timeout, Stdout: io.Discard}
			if tc.in {
				r.Stdin = blocked{free}
			}
			if tc.out {
				r.Stdout = blocked{free}
			}
			if res := runNow(t, shell(tc.script), r); res.Cause != tc.want {
				t.Errorf("result %+v (%s), want %s", res, res.Reason(), tc.want)
			}
		})
	}
}

func TestCancelWhilePassingOn(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	lost := errors.New("lease lost")
	free := make(chan struct{})
	defer close(free)
	slow := writerFunc(func(p []byte) (int, error) {
		cancel(lost)
		<-free
		return len(p), nil
	})
	_, done := run(ctx, t, shell("echo x"), Run{Stdout: slow})
	if res := await(t, done); res.Cause != CauseCanceled || !errors.Is(res.Err, lost) {
		t.Errorf("result %+v, want canceled", res)
	}
}
