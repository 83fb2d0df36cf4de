// Package redisq implements the queue contract on Redis 6.2 or later (and
// servers compatible with it): one Lua script per operation, one round trip each.
package redisq

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"tidemill/internal/queue"
)

// DefaultPrefix is the installation's part of every key.
const DefaultPrefix = "default"

// maxConnections bounds the pool, which opens them as needed. Every waiting
// worker or scaler keeps one to itself, and a process may have many of them.
const maxConnections = 1000

// Options say which server to use, and how.
type Options struct {
	URL    string // redis://[user:password@]host:port[/db], or rediss:// for TLS
	Prefix string // keeps installations on one server apart; DefaultPrefix if empty
	// Tombstones is how long a finished item is remembered, so that a late
	// duplicate of its event starts nothing; default 24 h.
	Tombstones time.Duration
	// AnyServer accepts a server whose version or eviction policy is unknown or
	// unfit. With eviction, items can vanish.
	AnyServer bool
}

// Server is a connection pool to one Redis. It is safe for concurrent use.
type Server struct {
	client  redis.UniversalClient
	scripts scripts
	options Options
}

// Open connects, and checks that the server is fit to hold a queue.
func Open(ctx context.Context, o Options) (*Server, error) {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if strings.ContainsAny(o.Prefix, "{}/: \t\r\n") {
		return nil, fmt.Errorf("queue prefix %q: braces, slashes, colons and white space are not allowed", o.Prefix)
	}
	if o.Tombstones == 0 {
		o.Tombstones = 24 * time.Hour
	}
	ro, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	// A retried lease would take a second item, so the client retries nothing:
	// who may repeat a call does it himself.
	ro.MaxRetries = -1
	ro.DialerRetries = 1
	ro.ContextTimeoutEnabled = true
	ro.ReadTimeout = 10 * time.Second
	ro.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled} // it bends the timeouts
	if ro.PoolSize == 0 {
		ro.PoolSize = maxConnections
	}
	s := &Server{client: redis.NewClient(ro), options: o}
	if s.scripts, err = loadScripts(); err != nil {
		return nil, errors.Join(err, s.client.Close())
	}
	if err := s.check(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("redis at %s: %w%s", ro.Addr, err, advice(err)), s.client.Close())
	}
	return s, nil
}

// parseURL quotes nothing of the URL in its errors, because wherever it is
// wrong, what stands there may be a part of the password.
func parseURL(raw string) (*redis.Options, error) {
	const want = "want redis://[user:password@]host:port[/db], or rediss:// for TLS"
	if !strings.HasPrefix(raw, "redis://") && !strings.HasPrefix(raw, "rediss://") {
		return nil, fmt.Errorf("the redis URL does not begin with redis:// or rediss://; %s", want)
	}
	if _, err := url.Parse(raw); err != nil {
		return nil, fmt.Errorf("the redis URL can't be read; %s, with special characters of the password percent-encoded", want)
	}
	ro, err := redis.ParseURL(raw)
	if err != nil {
		return nil, fmt.Errorf("the redis URL has a database that is not a number, or an unknown or malformed option; %s", want)
	}
	return ro, nil
}

// advice says what to do about a server's refusal.
func advice(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "invalid password"):
		return " (the user or password in the redis URL is wrong)"
	case strings.Contains(text, "NOAUTH"):
		return " (the redis URL has no password, and the server wants one)"
	}
	return ""
}

// Close ends all connections.
func (s *Server) Close() error { return s.client.Close() }

// Ping reports whether the server answers.
func (s *Server) Ping(ctx context.Context) error { return classify(s.client.Ping(ctx).Err()) }

// check refuses a server that would lose items: too old for the scripts, or one
// that evicts keys when its memory is full.
func (s *Server) check(ctx context.Context) error {
	if s.options.AnyServer {
		return s.Ping(ctx)
	}
	info := ""
	for _, section := range []string{"server", "memory"} {
		text, err := s.client.Info(ctx, section).Result()
		if err != nil {
			return fmt.Errorf("asking what it is: %w", classify(err))
		}
		info += "\n" + text
	}
	fields := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	var major, minor int
	if _, err := fmt.Sscanf(fields["redis_version"], "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("it does not say its version (got %q)", fields["redis_version"])
	}
	if major < 6 || major == 6 && minor < 2 {
		return fmt.Errorf("it has version %s; 6.2 or later is needed", fields["redis_version"])
	}
	if p := fields["maxmemory_policy"]; p != "noeviction" {
		return fmt.Errorf("its maxmemory-policy is %q, so it may drop queued items when its memory is full; set it to noeviction", p)
	}
	return nil
}

// classify gives errors their meaning in the contract. What the server said
// stays part of the text.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	case redis.IsOOMError(err), strings.Contains(err.Error(), "OOM command not allowed"): // 6.2 wraps it, in scripts
		return fmt.Errorf("%w: %w", queue.ErrFull, err)
	}
	return fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
}
