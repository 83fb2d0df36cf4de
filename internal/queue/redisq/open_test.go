package redisq_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
	"tidemill/internal/testutil/proctest"
	"tidemill/internal/testutil/redistest"
)

// secret is in every URL of the test, and may be in no error.
const secret = "s3cr3t"

func wantOpenError(t *testing.T, o redisq.Options, texts ...string) error {
	t.Helper()
	_, err := redisq.Open(t.Context(), o)
	if err == nil {
		t.Fatalf("opened, want an error with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("error %q tells the password", err)
	}
	return err
}

func TestOpenBadURL(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ url, want string }{
		"empty":                     {"", "does not begin with redis://"},
		"no scheme":                 {"user:" + secret + "@localhost:6379", "does not begin with redis://"},
		"other scheme":              {"http://:" + secret + "@localhost", "rediss:// for TLS"},
		"unix socket":               {"unix://user:" + secret + "@/run/redis.sock", "does not begin with"},
		"slash in the password":     {"redis://:" + secret + "/x@localhost:6379", "percent-encoded"},
		"hash in the password":      {"redis://:" + secret + "#x@localhost:6379", "percent-encoded"},
		"percent in the password":   {"redis://:" + secret + "%zz@localhost:6379", "percent-encoded"},
		"space in the host":         {"redis://:" + secret + "@local host:6379", "percent-encoded"},
		"control character":         {"redis://:" + secret + "\n@localhost:6379", "percent-encoded"},
		"password for a database":   {"redis://localhost:6379/" + secret, "database"},
		"several path elements":     {"redis://localhost:6379/0/" + secret, "database"},
		"password for an option":    {"redis://localhost:6379/0?" + secret + "=1", "option"},
		"password for a pool size":  {"redis://localhost:6379/0?pool_size=" + secret, "option"},
		"question mark in password": {"redis://:" + secret + "?x@localhost:6379", "percent-encoded"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_ = wantOpenError(t, redisq.Options{URL: tt.url}, tt.want, "redis://[user:password@]host:port")
		})
	}
	for _, prefix := range []string{"a/b", "a{b", "a}b", "a:b", "a b", "a\n"} {
		_ = wantOpenError(t, redisq.Options{URL: "redis://:" + secret + "@localhost", Prefix: prefix}, "queue prefix", "not allowed")
	}
}

func TestOpenUnfitServer(t *testing.T) {
	t.Parallel()
	port, err := proctest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	locked := redistest.Start(t, "--requirepass", secret)
	user := "redis://default:" + secret + "@"
	for _, anyServer := range []bool{false, true} {
		none := wantOpenError(t, redisq.Options{URL: user + "127.0.0.1:" + itoa(port), AnyServer: anyServer}, "127.0.0.1:"+itoa(port), "refused")
		wrong := wantOpenError(t, redisq.Options{URL: "redis://:wrong" + "@" + locked.Addr, AnyServer: anyServer}, "WRONGPASS", "password in the redis URL is wrong")
		missing := wantOpenError(t, redisq.Options{URL: "redis://" + locked.Addr, AnyServer: anyServer}, "NOAUTH", "has no password")
		for _, err := range []error{none, wrong, missing} {
			if !errors.Is(err, queue.ErrUnavailable) {
				t.Errorf("%q is not ErrUnavailable", err)
			}
		}
	}
	right := newServer(t, redisq.Options{URL: user + locked.Addr + "/3"})
	if err := right.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

func TestOpenEvictingServer(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"allkeys-lru", "volatile-ttl"} {
		s := redistest.Start(t, "--maxmemory-policy", policy)
		_ = wantOpenError(t, redisq.Options{URL: s.URL}, policy, "set it to noeviction", s.Addr)
		newServer(t, redisq.Options{URL: s.URL, AnyServer: true})
	}
}

func TestOpenVersions(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ info, want string }{
		"too old":            {"redis_version:6.0.16\r\nmaxmemory_policy:noeviction\r\n", "has version 6.0.16; 6.2 or later"},
		"much too old":       {"redis_version:5.9.0\r\nmaxmemory_policy:noeviction\r\n", "has version 5.9.0"},
		"oldest":             {"redis_version:6.2.0\r\nmaxmemory_policy:noeviction\r\n", ""},
		"newer":              {"redis_version:8.4.1\r\nmaxmemory_policy:noeviction\r\n", ""},
		"says no version":    {"maxmemory_policy:noeviction\r\n", "does not say its version"},
		"says no policy":     {"redis_version:7.2.4\r\n", `maxmemory-policy is ""`},
		"version not number": {"redis_version:seven\r\n", `(got "seven")`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mini := miniredis.RunT(t)
			mini.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
				if cmd == "INFO" {
					c.WriteBulk(tt.info)
				}
				return cmd == "INFO"
			})
			o := redisq.Options{URL: "redis://:" + secret + "@" + mini.Addr()}
			mini.RequireAuth(secret)
			if tt.want == "" {
				newServer(t, o)
				return
			}
			_ = wantOpenError(t, o, tt.want, mini.Addr())
			o.AnyServer = true
			newServer(t, o)
		})
	}
}

func newServer(t *testing.T, o redisq.Options) *redisq.Server {
	t.Helper()
	s, err := redisq.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return s
}
