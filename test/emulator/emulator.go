// Package emulator starts Google's Pub/Sub emulator for a test, repaired.
//
// As shipped, the emulator doesn't notice that a client died with messages in
// hand: it gives them to the dead client's stream again, for minutes with the
// client library's defaults, and crash tests hang. A small class of ours goes
// before the emulator's jar on the class path and mends that; see
// java/io/grpc/InternalStatus.java.
package emulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidemill/internal/testutil/proctest"
)

const (
	mainClass    = "com.google.cloud.pubsub.testing.v1.Main"
	startTimeout = 2 * time.Minute // a JVM on a busy two-core machine
	probeTimeout = 5 * time.Second
	startTries   = 5
)

// Emulator is a running Pub/Sub emulator. It holds everything in memory.
type Emulator struct {
	// Host is HOST:PORT on the loopback, as PUBSUB_EMULATOR_HOST takes it.
	Host string

	proc *proctest.Process
}

// Start starts an emulator of the test's own on a free loopback port, waits until
// it answers, and kills it when the test ends. The test fails where the emulator
// or Java is missing, with what to install.
func Start(tb testing.TB) *Emulator {
	tb.Helper()
	ctx := context.Background()
	found, err := findInstall(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	for range startTries {
		var e *Emulator
		if e, err = run(ctx, found); err == nil {
			tb.Cleanup(func() { e.end(tb) })
			return e
		}
		if !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	tb.Fatalf("starting the Pub/Sub emulator: %v", err)
	return nil
}

// Pid is the process id of the emulator's JVM.
func (e *Emulator) Pid() int { return e.proc.Pid() }

// Output returns the last 64 KiB that the emulator has written.
func (e *Emulator) Output() string { return e.proc.Output() }

func (e *Emulator) end(tb testing.TB) {
	if err := e.proc.Kill(); err != nil {
		tb.Errorf("ending the Pub/Sub emulator: %v", err)
	}
	if tb.Failed() {
		tb.Logf("the Pub/Sub emulator at %s wrote:\n%s", e.Host, e.Output())
	}
}

func run(ctx context.Context, found install) (*Emulator, error) {
	port, err := proctest.FreePort()
	if err != nil {
		return nil, err
	}
	e := &Emulator{Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	classPath := found.repair + string(os.PathListSeparator) + found.jar
	// The emulator's life is the test's, not a context's: see end.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), found.java, "-Xmx1g", "-cp", classPath, mainClass,
		"--host=127.0.0.1", "--port="+strconv.Itoa(port))
	if e.proc, err = proctest.Start(cmd); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := e.proc.Await(ctx, e.answers); err != nil {
		return nil, errors.Join(err, e.proc.Kill())
	}
	return e, nil
}

// answers uses the emulator's health check: GET / says Ok on the same port that
// serves gRPC.
func (e *Emulator) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Host+"/", http.NoBody)
	if err != nil {
		return fmt.Errorf("building the health check: %w", err)
	}
	// A transport of its own, so that a proxy in the environment is never asked.
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("asking for its health: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("its health check answers %s", resp.Status)
	}
	return nil
}
