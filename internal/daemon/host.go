package daemon

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tidemill/internal/obs"
	"tidemill/internal/queue/redisq"
)

// Base is what every daemon works with.
type Base struct {
	Log      *zap.Logger
	Registry *prometheus.Registry
	Redis    *redisq.Server
}

// Host runs a daemon: it serves health and metrics, connects to Redis, calls run,
// and takes everything down again. A stop before Redis has answered is no error,
// and run is not called.
func (c *Common) Host(ctx context.Context, service string, health *obs.Health, run func(Base) error) error {
	log, err := c.Logger(service)
	if err != nil {
		return err
	}
	registry, err := obs.NewRegistry(c.Version)
	if err != nil {
		return err
	}
	// Health and metrics stay visible while the daemon drains.
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if _, err := obs.Serve(serving, c.Listen, obs.ServeOptions{Health: health, Metrics: registry, Log: log}); err != nil {
		return err
	}
	server, err := c.Redis(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped before there was anything to do
		}
		return err
	}
	defer func() { _ = server.Close() }() // everything was answered by then
	return run(Base{Log: log, Registry: registry, Redis: server})
}
