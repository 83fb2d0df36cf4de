package proctest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"
)

// Ports for test servers come from below Linux's ephemeral range (32768-60999):
// no outgoing connection can take one between FreePort and the server's bind, or
// while a test has its server stopped.
const (
	firstPort   = 20000
	lastPort    = 32000
	portTries   = 200
	dialTimeout = 5 * time.Second
)

// FreePort returns a TCP port that nothing listens on at 127.0.0.1. Another
// process can still take it first: a server that fails to bind should be started
// again with another one.
//
// It asks by connecting and doesn't bind: a child process that is forked
// meanwhile would hold the bound socket until it execs, and so make the port busy
// for the server that is meant to have it.
func FreePort() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var d net.Dialer
	var last error
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return port, nil
		case err != nil:
			last = err
		default:
			last = fmt.Errorf("port %d is taken", port)
			_ = conn.Close()
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1 in %d tries: %w", firstPort, lastPort, portTries, last)
}
