// Package proctest runs real servers as child processes of a test.
//
// Each child gets a process group of its own and is signalled only through the
// id recorded when it was started, so a test can kill, pause and restart real
// servers without touching anything it doesn't own.
package proctest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

const (
	// pipeDelay bounds the wait for the output of grandchildren that outlive
	// the child and still hold its pipes.
	pipeDelay = 5 * time.Second
	// probeEvery is how often Await asks again.
	probeEvery = 20 * time.Millisecond
)

// Process is a started child. All its methods are safe for concurrent use.
type Process struct {
	name string
	pid  int
	out  *tail
	done chan struct{}
	err  error // written before done is closed
}

// Start starts cmd in a process group of its own. Standard output and standard
// error, where cmd doesn't direct them elsewhere, are kept for Output. On Linux
// the child is killed when the test binary dies, however that happens.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{name: cmd.Path, out: &tail{}, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.out
	}
	cmd.WaitDelay = pipeDelay
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	p.pid = cmd.Process.Pid
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid is the child's process id, which is its group's id as well.
func (p *Process) Pid() int { return p.pid }

// Output returns the last 64 KiB that the child has written.
func (p *Process) Output() string { return p.out.String() }

// Done is closed once the child is gone and has been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the child ended, as exec.Cmd.Wait reports it; nil while it
// runs and after a clean exit.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Signal sends sig to the child's whole group. A child that is gone already is
// no error, because its id may belong to a stranger by now and nothing is sent.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(-p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sending %s to process group %d (%s): %w", sig, p.pid, p.name, err)
	}
	return nil
}

// Kill ends the group with SIGKILL and waits until the child is gone.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Stop asks the group to end with SIGTERM and waits. After grace it kills the
// group and says so in the error. A paused group is woken, so that it can obey.
func (p *Process) Stop(grace time.Duration) error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		if err := p.Signal(sig); err != nil {
			return err
		}
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("%s (process %d) was still running %s after SIGTERM and was killed; it last wrote:\n%s",
		p.name, p.pid, grace, p.Output())
}

// Await polls probe until it returns nil. It gives up when ctx ends or the child
// does, and then says why, with what the child has written.
func (p *Process) Await(ctx context.Context, probe func(context.Context) error) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%w) before it was ready: %w; it wrote:\n%s",
				p.name, exitError(p.err), err, p.Output())
		case <-ctx.Done():
			return fmt.Errorf("%s isn't ready (%w): %w; it wrote:\n%s", p.name, ctx.Err(), err, p.Output())
		case <-tick.C:
		}
	}
}

// errCleanExit stands for an exit status of 0, which exec reports as nil.
var errCleanExit = errors.New("exit status 0")

func exitError(err error) error {
	if err == nil {
		return errCleanExit
	}
	return err
}
