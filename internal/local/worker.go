package local

import (
	"io"
	"os"
	"syscall"
)

// What a worker writes to its file 3.
const (
	reportReady  = 'r'
	reportBarred = 'b'
)

// Readiness is for a process that a Fleet started; to be called once, at its
// start. The function it returns tells the fleet whether the worker is ready.
func Readiness() func(isReady bool) {
	syscall.CloseOnExec(3) // not for the commands that the worker runs
	f := os.NewFile(3, "readiness")
	return func(isReady bool) {
		b := []byte{reportBarred}
		if isReady {
			b[0] = reportReady
		}
		_, _ = f.Write(b) // an error means that nobody listens any more
	}
}

// ParentGone is for a process that a Fleet started: the channel closes when the
// fleet gives the worker up, or its process has ended in any way.
func ParentGone() <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, os.Stdin) // ends at end of file or at an error alike
	}()
	return gone
}
