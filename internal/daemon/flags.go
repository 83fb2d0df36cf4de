package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"tidemill/internal/obs"
	"tidemill/internal/queue/redisq"
)

// Exit codes of all commands.
const (
	ExitOK    = 0
	ExitError = 1
	ExitUsage = 2
	// ExitTerminated is a worker's after SIGTERM (128 + 15): to a Kubernetes
	// Job an exit 0 would mean that there is nothing left to do.
	ExitTerminated = 143
)

// Exit is an error that stands for an exit code.
type Exit struct {
	Code int
	Err  error // nil: nothing is said
}

func (e *Exit) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns the error behind the exit code.
func (e *Exit) Unwrap() error { return e.Err }

// Usage marks an error in how a command was called.
func Usage(err error) error { return &Exit{Code: ExitUsage, Err: err} }

// Main runs a command and returns the process's exit code, after it has said on
// stderr what went wrong.
func Main(c *cobra.Command, stderr io.Writer) int {
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage(err) })
	cmd, err := c.ExecuteC()
	if err == nil {
		return ExitOK
	}
	exit := &Exit{Code: ExitError, Err: err}
	if !errors.As(err, &exit) && cobraUsage(err) {
		exit.Code = ExitUsage
	}
	if exit.Err != nil {
		_, _ = fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
	}
	if exit.Code == ExitUsage {
		_, _ = fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
	}
	return exit.Code
}

// cobraUsage recognizes cobra's own errors in how a command was called, which
// have no type.
func cobraUsage(err error) bool {
	for _, start := range []string{"unknown command ", "accepts ", "requires at least ", "required flag", "invalid argument "} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

// Env gives a flag that was not set on the command line the value of an
// environment variable, and says so in its help.
type Env struct {
	flags *pflag.FlagSet
	names map[string]string // flag -> variable
}

// NewEnv returns an Env for c's flags.
func NewEnv(c *cobra.Command) *Env {
	return &Env{flags: c.Flags(), names: map[string]string{}}
}

// Bind names a flag's variable.
func (e *Env) Bind(flag, variable string) {
	e.names[flag] = variable
	f := e.flags.Lookup(flag)
	f.Usage += " [$" + variable + "]"
}

// Apply is to be called after the command line has been parsed.
func (e *Env) Apply() error {
	var errs []error
	e.flags.VisitAll(func(f *pflag.Flag) {
		variable := e.names[f.Name]
		value, ok := os.LookupEnv(variable)
		if variable == "" || !ok || f.Changed || value == "" {
			return
		}
		if err := e.flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", variable, err))
		}
	})
	if len(errs) > 0 {
		return Usage(errors.Join(errs...))
	}
	return nil
}

// Common are the flags that all daemons have.
type Common struct {
	RedisURL  string
	Prefix    string
	AnyRedis  bool
	Listen    string
	LogLevel  string
	LogFormat string
	Project   string
	Version   string
}

// Flags adds the flags to a command.
func (c *Common) Flags(cmd *cobra.Command, env *Env) {
	f := cmd.Flags()
	f.StringVar(&c.RedisURL, "redis-url", "redis://127.0.0.1:6379", "Redis to use: redis://[user:password@]host:port[/db], rediss:// for TLS")
	f.StringVar(&c.Prefix, "prefix", redisq.DefaultPrefix, "this installation's part of every Redis key")
	f.BoolVar(&c.AnyRedis, "allow-any-redis", false, "accept a Redis that is too old or may evict keys; items can be lost")
	f.StringVar(&c.Listen, "listen", ":8080", "host:port of /healthz, /readyz and /metrics; empty for none")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", obs.FormatJSON, "json (Cloud Logging's structure) or console")
	f.StringVar(&c.Project, "project", "", "Google Cloud project of traces, and of a subscription given by its short name")
	env.Bind("redis-url", "REDIS_URL")
	env.Bind("prefix", "TIDEMILL_PREFIX")
	env.Bind("listen", "TIDEMILL_LISTEN")
	env.Bind("log-level", "TIDEMILL_LOG_LEVEL")
	env.Bind("log-format", "TIDEMILL_LOG_FORMAT")
	env.Bind("project", "GOOGLE_CLOUD_PROJECT")
}

// Logger returns the daemon's logger. Human lines go to standard error.
func (c *Common) Logger(service string) (*zap.Logger, error) {
	log, err := obs.NewLogger(obs.LogOptions{
		Service: service, Version: c.Version, Level: c.LogLevel, Format: c.LogFormat, Project: c.Project,
	})
	if err != nil {
		return nil, Usage(err)
	}
	redisq.RouteLogs(func(line string) { log.Debug(line, zap.String("from", "redis client")) })
	return log, nil
}

// Redis connects to the queue's server.
func (c *Common) Redis(ctx context.Context) (*redisq.Server, error) {
	server, err := redisq.Open(ctx, redisq.Options{URL: c.RedisURL, Prefix: c.Prefix, AnyServer: c.AnyRedis})
	if err != nil {
		return nil, fmt.Errorf("--redis-url %s: %w", obs.RedactURL(c.RedisURL), err)
	}
	return server, nil
}

// Signals returns a context that is done at the first SIGTERM or SIGINT, and a
// channel that closes at the second. stop may be called twice.
func Signals(parent context.Context) (ctx context.Context, second <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGTERM, os.Interrupt)
	again := make(chan struct{})
	done := make(chan struct{})
	go func() {
		select {
		case <-ch:
			cancel()
		case <-done:
			return
		}
		select {
		case <-ch:
			close(again)
		case <-done:
		}
	}()
	return ctx, again, sync.OnceFunc(func() { signal.Stop(ch); close(done); cancel() })
}

// CheckProgram makes sure that a command can be started at all, before any item
// is taken for it.
func CheckProgram(argv []string) error {
	if len(argv) == 0 {
		return Usage(errors.New("no command is given; write it after --, for example: -- sha256sum {input}"))
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return fmt.Errorf("the command can't be started: %w", err)
	}
	return nil
}
