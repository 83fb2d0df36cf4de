package obs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// ShutdownGrace is how long requests may take to finish after the server was
// told to stop; then their connections are closed.
const ShutdownGrace = 5 * time.Second

// ServeOptions is what a Server shows.
type ServeOptions struct {
	// Flag is the command-line flag that the address came from, for the error
	// of an address that cannot be used; empty means "--listen".
	Flag    string
	Health  *Health             // nil: always alive and ready
	Metrics prometheus.Gatherer // nil: no /metrics
	Handler http.Handler        // every other path; nil: 404
	Log     *zap.Logger         // the server's own troubles; nil: dropped
}

// Server is a running HTTP server, or none at all.
type Server struct {
	addr string
	done chan struct{}
	err  error // valid once done is closed
}

// Serve listens on addr (host:port; port 0 takes a free one) and serves
// /healthz, /readyz, /metrics and the given handler until ctx ends. Then it
// takes no more connections, ends the contexts of running requests, and gives
// them ShutdownGrace to finish. A process whose readiness must stay visible
// while it drains passes a context that ends after the drain. An empty addr
// means no server, and is no error.
func Serve(ctx context.Context, addr string, o ServeOptions) (*Server, error) {
	s := &Server{done: make(chan struct{})}
	if addr == "" {
		close(s.done)
		return s, nil
	}
	if o.Flag == "" {
		o.Flag = "--listen"
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	errorLog, err := zap.NewStdLogAt(o.Log, zap.WarnLevel)
	if err != nil {
		return nil, fmt.Errorf("making the HTTP server's log: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP on %q: %w; give another host:port with %s, or an empty one for no server",
			clip(addr), err, o.Flag)
	}
	s.addr = l.Addr().String()
	go s.run(ctx, l, o, errorLog)
	return s, nil
}

// Addr returns the address the server is bound to, with the port it got; empty
// when there is no server.
func (s *Server) Addr() string { return s.addr }

// Wait returns when the server has stopped: nil after the context's end, else
// why it stopped serving. It may be called by several, and more than once.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

func (s *Server) run(ctx context.Context, l net.Listener, o ServeOptions, errorLog *log.Logger) {
	defer close(s.done)
	srv := &http.Server{
		Handler:  handler(o, errorLog),
		ErrorLog: errorLog,
		// Streams end with the context; Shutdown alone would wait for them.
		BaseContext: func(net.Listener) context.Context { return ctx },
		// No write timeout: the page's event stream stays open.
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		s.err = fmt.Errorf("serving HTTP on %s: %w", s.addr, err)
		o.Log.Error("the HTTP server stopped", zap.Error(s.err))
		return
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), ShutdownGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		o.Log.Warn("closing HTTP requests that did not finish in time", zap.Error(err))
		if err := srv.Close(); err != nil {
			o.Log.Warn("closing the HTTP server", zap.Error(err))
		}
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		s.err = fmt.Errorf("serving HTTP on %s: %w", s.addr, err)
	}
}

func handler(o ServeOptions, errorLog *log.Logger) http.Handler {
	health := o.Health
	if health == nil {
		health = NewHealth()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		report(w, "alive", health.Stalled())
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		report(w, "ready", health.Failing())
	})
	if o.Metrics != nil {
		// One failing collector must not hide the others' metrics.
		mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
			ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError,
		}))
	}
	if o.Handler != nil {
		mux.Handle("/", o.Handler)
	}
	return mux
}

// report answers a probe: {"ready":false,"failing":[{"name":...,"reason":...}]}.
func report(w http.ResponseWriter, what string, failing []Condition) {
	body, err := json.Marshal(map[string]any{what: len(failing) == 0, "failing": failing})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if len(failing) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n')) // the prober has gone: nobody is left to tell
}
