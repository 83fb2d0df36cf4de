package redistest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidemill/internal/testutil/redistest"
)

// ask sends one inline command and returns the first line of the answer; a bulk
// string's length line is passed over.
func ask(t *testing.T, addr, command string, timeout time.Duration) (string, error) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err == nil && strings.HasPrefix(line, "$") && line != "$-1\r\n" {
		line, err = r.ReadString('\n')
	}
	return strings.TrimSpace(line), err
}

func mustAsk(t *testing.T, s *redistest.Server, command, want string) {
	t.Helper()
	got, err := ask(t, s.Addr, command, 20*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if got != want {
		t.Fatalf("%s = %q, want %q", command, got, want)
	}
}

func TestRestartKeepsAddressAndPersistedData(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		end  func(*redistest.Server)
		want string
	}{
		"nothing persisted by default":     {nil, (*redistest.Server).Stop, "$-1"},
		"append-only file outlives a kill": {[]string{"--appendonly", "yes", "--appendfsync", "always"}, (*redistest.Server).Kill, "v"},
		"snapshot on an ordinary stop":     {[]string{"--save", "3600 1"}, (*redistest.Server).Stop, "v"},
		"snapshot is lost by a kill":       {[]string{"--save", "3600 1"}, (*redistest.Server).Kill, "$-1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, tt.args...)
			mustAsk(t, s, "SET k v", "+OK")
			pid, addr := s.Pid(), s.Addr
			tt.end(s)
			if _, err := ask(t, s.Addr, "PING", time.Second); err == nil {
				t.Fatal("the ended server still answers")
			}
			s.Restart()
			if s.Addr != addr {
				t.Errorf("address after Restart = %s, want %s", s.Addr, addr)
			}
			if s.Pid() == pid {
				t.Errorf("process id %d is the old one", pid)
			}
			mustAsk(t, s, "GET k", tt.want)
		})
	}
}

func TestRestartOfARunningServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	pid := s.Pid()
	s.Restart()
	if s.Pid() == pid {
		t.Errorf("process id %d is the old one", pid)
	}
	mustAsk(t, s, "PING", "+PONG")
}

func TestPauseStallsWithoutClosing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Pause()
	_, err := ask(t, s.Addr, "PING", 200*time.Millisecond)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("PING to a paused server: %v, want a timeout", err)
	}
	s.Resume()
	mustAsk(t, s, "PING", "+PONG")
	s.Pause()
	s.Stop() // wakes it first
}

func TestPasswordAndOwnServers(t *testing.T) {
	t.Parallel()
	locked, open := redistest.Start(t, "--requirepass", "secret"), redistest.Start(t)
	if locked.Addr == open.Addr {
		t.Fatalf("two servers share %s", open.Addr)
	}
	got, err := ask(t, locked.Addr, "PING", 20*time.Second)
	if err != nil || !strings.HasPrefix(got, "-NOAUTH") {
		t.Errorf("PING without the password = %q, %v; want -NOAUTH", got, err)
	}
	if want := "redis://" + open.Addr + "/0"; open.URL != want {
		t.Errorf("URL = %q, want %q", open.URL, want)
	}
	host, port, err := net.SplitHostPort(open.Addr)
	if err != nil || host != "127.0.0.1" {
		t.Errorf("Addr = %q, want a port at 127.0.0.1", open.Addr)
	}
	if n, err := strconv.Atoi(port); err != nil || n == 6379 {
		t.Errorf("port = %q, want a free one, not the system's", port)
	}
}
