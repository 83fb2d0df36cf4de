package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// linger is how long a run waits, after its command has exited, for others to
// let go: a process that holds an output open, a Read or Write in progress.
const linger = 2 * time.Second

// chunk is the size of a copy buffer: what a Linux pipe holds by default.
const chunk = 64 << 10

// pipes are our ends of a command's standard streams. There are pipes even
// where Stdin or Stdout is a file: only so can a failure be told from the
// command's own doing, and a held-open output be left.
type pipes struct {
	stdin          *os.File // nil if the command reads /dev/null
	stdout, stderr *os.File
	theirs         []*os.File // the command's ends, to close once it runs
}

// openPipes makes the pipes and gives the command its ends.
func openPipes(cmd *exec.Cmd, withStdin bool) (_ *pipes, err error) {
	p := &pipes{}
	defer func() {
		if err != nil {
			p.closeTheirs()
			p.close()
		}
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	var in, out, errs *os.File
	if withStdin {
		in, p.stdin = pipe()
	}
	p.stdout, out = pipe()
	p.stderr, errs = pipe()
	p.theirs = []*os.File{in, out, errs}
	if err != nil {
		return nil, fmt.Errorf("making pipes for the command: %w", err)
	}
	if in != nil {
		cmd.Stdin = in // a nil *os.File in the interface would not be /dev/null
	}
	cmd.Stdout, cmd.Stderr = out, errs
	return p, nil
}

func (p *pipes) closeTheirs() { closeAll(p.theirs...) }
func (p *pipes) close()       { closeAll(p.stdin, p.stdout, p.stderr) }

// closeAll may be called twice; closing a pipe loses nothing that an error
// could tell of.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// feed copies r to the command and returns r's error, if it failed. A command
// that wants no more is no error. After a failure w stays open, because its end
// would look like the end of the object.
func feed(w *os.File, r io.Reader) error {
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			_, werr := w.Write(buf[:n])
			if errors.Is(werr, syscall.EPIPE) || errors.Is(werr, os.ErrClosed) {
				closeAll(w)
				return nil
			}
			if werr != nil {
				return fmt.Errorf("writing to the command's standard input: %w", werr)
			}
		}
		if err == io.EOF { // not errors.Is: a lost connection may well wrap io.EOF
			closeAll(w)
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the object for standard input: %w", err)
		}
	}
}

// take hands everything that arrives on f to accept, until the last holder of
// its other end is gone, accept fails, or f's read deadline passes. In the last
// case it still takes what has been written by then, and returns ErrHeld if
// somebody could write more.
func take(f *os.File, accept func([]byte) error) error {
	buf := make([]byte, chunk)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if err := accept(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case err == io.EOF:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return takeRest(f, buf, accept)
		default:
			return fmt.Errorf("reading the command's output: %w", err)
		}
	}
}
