package redisq_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

type fault int

const (
	none  fault = iota
	stall       // requests arrive, answers wait until the fault ends
	cut         // requests arrive, and the connection ends in place of an answer
)

// proxy stands between a client and a server, and loses or holds back answers.
type proxy struct {
	addr     string
	upstream string
	ctx      context.Context // the test's

	mu      sync.Mutex
	changed *sync.Cond
	fault   fault
	closed  bool
	conns   map[net.Conn]struct{}
}

func newProxy(t *testing.T, upstream string) *proxy {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), upstream: upstream, ctx: t.Context(), conns: map[net.Conn]struct{}{}}
	p.changed = sync.NewCond(&p.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.cutAll()
		p.changed.Broadcast()
		running.Wait()
	})
	return p
}

func (p *proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	p.changed.Broadcast()
}

// cutAll ends all connections at once.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// open counts the clients' connections.
func (p *proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

func (p *proxy) track(c net.Conn, open bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if open && !p.closed {
		p.conns[c] = struct{}{}
		return true
	}
	delete(p.conns, c)
	_ = c.Close()
	return false
}

func (p *proxy) serve(client net.Conn) {
	var d net.Dialer
	server, err := d.DialContext(p.ctx, "tcp", p.upstream)
	if err != nil {
		_ = client.Close()
		return
	}
	if !p.track(client, true) || !p.track(server, true) {
		p.track(client, false)
		p.track(server, false)
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	both.Go(func() {
		p.answers(client, server)
		_ = client.Close()
		_ = server.Close()
	})
	both.Wait()
	p.track(client, false)
	p.track(server, false)
}

func (p *proxy) answers(client, server net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		for p.fault == stall && !p.closed {
			p.changed.Wait()
		}
		lost := p.fault == cut || p.closed
		p.mu.Unlock()
		if lost {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}
