// Package local runs a fleet of workers as processes of this machine.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"tidemill/internal/scale"
)

// A worker that dies by itself is replaced after a pause, which grows while
// workers die before they get ready.
const (
	restartMin = 200 * time.Millisecond
	restartMax = 5 * time.Second
)

// Options say how workers are started.
type Options struct {
	// Command makes the command of a worker. The fleet sets its standard input
	// (a pipe that ends when this process ends), file 3 (readiness, see
	// ReportReady) and its process group.
	Command func(name string) *exec.Cmd
	// Output returns where a worker's standard output and error go.
	Output func(name string) io.Writer
	// Changed is called after each change of the fleet's size or readiness,
	// without locks held. It may be nil.
	Changed func()
	// Died is told of workers that ended without having been asked to. It may be nil.
	Died func(name string, err error)
}

// Fleet implements scale.Fleet with processes.
type Fleet struct {
	options Options

	mu      sync.Mutex
	wanted  int
	started int // names are never used again
	workers map[string]*worker
	peak    int
	failed  int // workers in a row that died before they were ready
	closed  bool
	ended   sync.WaitGroup
}

type worker struct {
	name    string
	number  int
	cmd     *exec.Cmd
	stdin   io.Closer
	state   state
	leaving bool
}

type state int

const (
	pending state = iota
	ready
	barred
)

var _ scale.Fleet = (*Fleet)(nil)

// NewFleet returns a fleet of no workers.
func NewFleet(o Options) *Fleet {
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Died == nil {
		o.Died = func(string, error) {}
	}
	return &Fleet{options: o, workers: map[string]*worker{}}
}

// Observe implements scale.Fleet.
func (f *Fleet) Observe(context.Context) (scale.Size, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := scale.Size{Wanted: f.wanted}
	for _, w := range f.workers {
		switch {
		case w.leaving:
		case w.state == ready:
			s.Ready++
		case w.state == barred:
			s.Other++
		}
	}
	s.Pending = max(0, s.Wanted-s.Ready-s.Other)
	return s, nil
}

// Resize implements scale.Fleet.
func (f *Fleet) Resize(_ context.Context, from, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errors.New("the fleet is closed")
	}
	if f.wanted != from {
		return fmt.Errorf("the fleet has %d workers, not %d", f.wanted, from)
	}
	f.wanted = n
	return f.settle()
}

// settle starts or ends workers until as many run as are wanted.
func (f *Fleet) settle() error {
	for f.staying() > f.wanted {
		w := f.leaver()
		w.leaving = true
		_ = w.cmd.Process.Signal(os.Interrupt) // gone already: its end is on the way
	}
	for f.staying() < f.wanted && !f.closed {
		if err := f.start(); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fleet) staying() int {
	n := 0
	for _, w := range f.workers {
		if !w.leaving {
			n++
		}
	}
	return n
}

// leaver picks who goes: pending before barred before ready, newest first.
func (f *Fleet) leaver() *worker {
	order := map[state]int{pending: 0, barred: 1, ready: 2}
	var best *worker
	for _, w := range f.workers {
		if w.leaving {
			continue
		}
		if best == nil || order[w.state] < order[best.state] || w.state == best.state && w.number > best.number {
			best = w
		}
	}
	return best
}

func (f *Fleet) start() error {
	f.started++
	w := &worker{name: "local-" + strconv.Itoa(f.started), number: f.started}
	w.cmd = f.options.Command(w.name)
	isolate(w.cmd)
	out := f.options.Output(w.name)
	w.cmd.Stdout, w.cmd.Stderr = out, out
	stdin, err := w.cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("starting a worker: %w", err)
	}
	r, report, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting a worker: %w", err)
	}
	w.stdin = stdin
	w.cmd.ExtraFiles = []*os.File{report}
	err = w.cmd.Start()
	_ = report.Close() // the worker has its own
	if err != nil {
		_ = r.Close()
		return fmt.Errorf("starting a worker: %w", err)
	}
	f.workers[w.name] = w
	f.peak = max(f.peak, len(f.workers))
	f.ended.Go(func() { f.attend(w, r) })
	return nil
}

// attend follows one worker to its end.
func (f *Fleet) attend(w *worker, report *os.File) {
	buf := make([]byte, 1)
	for {
		if _, err := report.Read(buf); err != nil {
			break
		}
		f.mu.Lock()
		if w.state = barred; buf[0] == reportReady {
			w.state, f.failed = ready, 0
		}
		f.mu.Unlock()
		f.options.Changed()
	}
	_ = report.Close() // it was only read
	err := w.cmd.Wait()
	_ = w.stdin.Close() // closed with the process already, most likely
	f.mu.Lock()
	delete(f.workers, w.name)
	replace := !w.leaving && !f.closed
	pause := time.Duration(0)
	if replace {
		if w.state == pending {
			f.failed++
		}
		pause = min(restartMax, restartMin<<min(f.failed, 10))
	}
	f.mu.Unlock()
	if replace {
		f.options.Died(w.name, err)
		time.AfterFunc(pause, func() {
			f.mu.Lock()
			err := f.settle()
			f.mu.Unlock()
			if err != nil {
				f.options.Died(w.name, err)
			}
			f.options.Changed()
		})
	}
	f.options.Changed()
}

// Peak returns the most workers that ever ran at once.
func (f *Fleet) Peak() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peak
}

// Running returns how many workers run now, those on their way out included.
func (f *Fleet) Running() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.workers)
}

// Drain asks all workers to finish what they hold and go; none is replaced.
func (f *Fleet) Drain() { f.signal(os.Interrupt) }

func (f *Fleet) signal(s os.Signal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.wanted = true, 0
	for _, w := range f.workers {
		w.leaving = true
		_ = w.cmd.Process.Signal(s) // gone already: its end is on the way
	}
}

// Stop ends all workers now, with what they run: an item in hand is released
// where the worker still manages to, and otherwise comes back with its lease.
func (f *Fleet) Stop(within time.Duration) {
	f.mu.Lock()
	f.closed, f.wanted = true, 0
	for _, w := range f.workers {
		w.leaving = true
		_ = w.stdin.Close() // the worker's sign to kill its command and go
	}
	f.mu.Unlock()
	t := time.AfterFunc(within, func() { f.signal(os.Kill) })
	defer t.Stop()
	f.Wait()
}

// Wait returns when no worker is left. To be called after Drain or Stop.
func (f *Fleet) Wait() { f.ended.Wait() }
