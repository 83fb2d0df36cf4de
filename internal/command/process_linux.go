package command

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a started command: a leader and its process group.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the leader has exited; it isn't reaped yet
}

// start executes cmd as the leader of a new process group. The leader gets
// SIGKILL when this process dies, so that a killed worker leaves no command
// behind that works on without a lease.
func start(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread that forked ends, and
		// the Go runtime ends threads at will. This one lives as long as the leader.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		// WNOWAIT leaves a zombie: until it is reaped, no other process can get
		// its number, so signals to the group can't hit a stranger.
		for {
			err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, explain(cmd.Path, err)
	}
	return p, nil
}

// over reports whether the leader has exited. After reap it means nothing.
func (p *process) over() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return err != nil || info.Signo != 0
}

// signal sends sig to the whole group. An error only means that nobody is left
// or that a member has taken another user's identity; there is nothing to do.
func (p *process) signal(sig syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, sig) }

// terminate asks the group to end. SIGCONT lets a stopped process see it.
func (p *process) terminate() {
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
}

// reap kills what is left of the group, collects the leader's status, and waits
// a little until the others are gone too. Call it once, after exited.
func (p *process) reap() (syscall.WaitStatus, error) {
	p.signal(syscall.SIGKILL)
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("waiting for the command: %w", err)
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return 0, fmt.Errorf("waiting for the command: unknown status %T", p.cmd.ProcessState.Sys())
	}
	p.awaitGroup()
	return status, nil
}

// awaitGroup waits until no process of the group is left, for linger at most.
// As PID 1 of a container a worker inherits orphans: those it collects, or each
// would stay as a zombie.
func (p *process) awaitGroup() {
	group := -p.cmd.Process.Pid
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(linger); time.Now().Before(deadline); <-tick.C {
		// Collecting comes second: what was gone when we looked is a zombie by now.
		gone := errors.Is(syscall.Kill(group, 0), syscall.ESRCH) || !groupRuns(p.cmd.Process.Pid)
		for {
			pid, err := syscall.Wait4(group, nil, syscall.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if gone {
			return
		}
	}
}

// groupRuns reports whether a process of the group is more than a zombie. An
// orphan's zombie stays until PID 1 collects it, which may take seconds.
func groupRuns(group int) bool {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return true // without /proc nobody can tell
	}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it is gone
		}
		// proc(5): pid (name) state ppid pgrp ...; the name may contain anything.
		_, after, _ := strings.Cut(string(text[max(0, bytes.LastIndexByte(text, ')')):]), " ")
		f := strings.Fields(after)
		if len(f) > 2 && f[2] == strconv.Itoa(group) && f[0] != "Z" && f[0] != "X" {
			return true
		}
	}
	return false
}

// signalName returns a name like SIGKILL.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return fmt.Sprintf("SIG%d", int(sig)) // a real-time signal
}
