// Package redistest gives a test a real redis-server of its own, on a free
// loopback port, with the faults that a real server has: it can be stopped,
// killed, paused and restarted. Where redis-server isn't installed the test
// fails, because a skipped queue test would prove nothing.
package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidemill/internal/testutil/proctest"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 30 * time.Second
	probeTimeout = time.Second
	// startTries bounds how often Start moves on to another port when a
	// stranger took the first one.
	startTries = 5
)

// Server is a running redis-server. Its methods fail the test that started it
// when they don't succeed, and belong on that test's goroutine.
type Server struct {
	// Addr is HOST:PORT on the loopback; it stays the same across Restart.
	Addr string
	// URL is Addr as a redis:// URL for database 0, as REDIS_URL takes it.
	URL string

	tb   testing.TB
	path string
	dir  string
	args []string
	proc *proctest.Process
}

// Start starts a redis-server, waits until it answers, and ends it with the
// test. Nothing is persisted unless args says so: they are redis-server options
// ("--appendonly", "yes") and come last, so they override the defaults. The data
// directory lives as long as the test, so what is persisted survives Restart.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Fatalf("this test needs a real Redis: install redis-server (apt-get install redis-server): %v", err)
	}
	s := &Server{tb: tb, path: path, dir: tb.TempDir(), args: slices.Clone(args)}
	tb.Cleanup(s.cleanup)
	for range startTries {
		var port int
		if port, err = proctest.FreePort(); err != nil {
			tb.Fatal(err)
		}
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		s.URL = "redis://" + s.Addr + "/0"
		if err = s.run(); err == nil {
			return s
		}
		if !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	tb.Fatalf("starting redis-server: %v", err)
	return nil
}

// Pid is the process id of the server, or of the last one when it is stopped.
func (s *Server) Pid() int { return s.proc.Pid() }

// Stop ends the server as an operator would (SIGTERM), which lets it persist
// what it is configured to.
func (s *Server) Stop() {
	s.tb.Helper()
	s.check("stopping", s.proc.Stop(stopTimeout))
}

// Kill ends the server with SIGKILL: what it hadn't persisted is lost.
func (s *Server) Kill() {
	s.tb.Helper()
	s.check("killing", s.proc.Kill())
}

// Restart starts the server again at the same address and on the same data. A
// server that still runs is stopped first; for a crash call Kill before.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	s.check("restarting", s.run())
}

// Pause freezes the server with SIGSTOP: connections stay open and nothing is
// answered until Resume.
func (s *Server) Pause() {
	s.tb.Helper()
	s.check("pausing", s.proc.Signal(syscall.SIGSTOP))
}

// Resume ends a Pause.
func (s *Server) Resume() {
	s.tb.Helper()
	s.check("resuming", s.proc.Signal(syscall.SIGCONT))
}

func (s *Server) check(doing string, err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatalf("%s redis-server at %s: %v", doing, s.Addr, err)
	}
}

// cleanup kills, because nothing of a finished test is worth persisting.
func (s *Server) cleanup() {
	if s.proc == nil {
		return
	}
	if err := s.proc.Kill(); err != nil {
		s.tb.Errorf("ending redis-server at %s: %v", s.Addr, err)
	}
	if s.tb.Failed() {
		s.tb.Logf("redis-server at %s wrote:\n%s", s.Addr, s.proc.Output())
	}
}

func (s *Server) run() error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return fmt.Errorf("splitting address %q: %w", s.Addr, err)
	}
	args := append([]string{
		"--port", port, "--bind", host, "--dir", s.dir,
		"--daemonize", "no", "--save", "", "--appendonly", "no",
	}, s.args...)
	// The server's life is the test's, not a context's: see cleanup.
	cmd := exec.CommandContext(context.Background(), s.path, args...)
	cmd.Dir = s.dir
	proc, err := proctest.Start(cmd)
	if err != nil {
		return err
	}
	s.proc = proc
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.proc.Await(ctx, s.answers); err != nil {
		return errors.Join(err, s.proc.Kill())
	}
	return nil
}

// answers asks for the process id as well as for an answer, so that a stranger's
// server on the same port is never taken for ours. A server that wants a
// password first is up too, and then the port alone has to do.
func (s *Server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("setting a deadline: %w", err)
	}
	if _, err := conn.Write([]byte("PING\r\nINFO server\r\nQUIT\r\n")); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	lines := bufio.NewScanner(conn)
	want := "process_id:" + strconv.Itoa(s.proc.Pid())
	pong := false
	for lines.Scan() {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "-NOAUTH"):
			return nil
		case line == "+PONG":
			pong = true
		case strings.HasPrefix(line, "-"):
			return fmt.Errorf("it answers %q", line)
		case pong && line == want:
			return nil
		}
	}
	return fmt.Errorf("no answer from process %d (%w)", s.proc.Pid(), errors.Join(lines.Err(), errNotOurs))
}

var errNotOurs = errors.New("not our server, or not ready")
