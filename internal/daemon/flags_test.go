package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"tidemill/internal/daemon"
)

const patience = 60 * time.Second

// command is a root with one subcommand, as the daemons' are.
func command(run func(*cobra.Command, *daemon.Env) error) *cobra.Command {
	root := &cobra.Command{Use: "mill"}
	sub := &cobra.Command{Use: "run", Args: cobra.NoArgs}
	env := daemon.NewEnv(sub)
	sub.Flags().Duration("drain", time.Second, "how long")
	sub.Flags().String("secret", "none", "what nobody may see")
	env.Bind("drain", "MILL_DRAIN")
	env.Bind("secret", "MILL_SECRET")
	sub.RunE = func(c *cobra.Command, _ []string) error { return run(c, env) }
	exact := &cobra.Command{Use: "exact", Args: cobra.ExactArgs(1), RunE: func(*cobra.Command, []string) error { return nil }}
	root.AddCommand(sub, exact)
	return root
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	plain := errors.New("it broke")
	tests := map[string]struct {
		args   []string
		err    error
		code   int
		stderr string
	}{
		"success":              {[]string{"run"}, nil, 0, ""},
		"failure":              {[]string{"run"}, plain, 1, "mill run: it broke\n"},
		"usage":                {[]string{"run"}, daemon.Usage(plain), 2, "mill run: it broke\nTry 'mill run --help'.\n"},
		"usage, wrapped":       {[]string{"run"}, fmt.Errorf("doing x: %w", daemon.Usage(plain)), 2, "mill run: doing x: it broke\nTry 'mill run --help'.\n"},
		"terminated":           {[]string{"run"}, &daemon.Exit{Code: daemon.ExitTerminated}, 143, ""},
		"with a text":          {[]string{"run"}, &daemon.Exit{Code: 7, Err: plain}, 7, "mill run: it broke\n"},
		"unknown command":      {[]string{"rum"}, nil, 2, "unknown command"},
		"unknown flag":         {[]string{"run", "--drian=1s"}, nil, 2, "mill run: unknown flag: --drian\nTry 'mill run --help'.\n"},
		"unknown flag, root":   {[]string{"--drain=1s"}, nil, 2, "unknown flag"},
		"bad value":            {[]string{"run", "--drain=soon"}, nil, 2, `"soon"`},
		"superfluous argument": {[]string{"run", "x"}, nil, 2, "mill run: "},
		"missing argument":     {[]string{"exact"}, nil, 2, "accepts 1 arg(s), received 0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := command(func(*cobra.Command, *daemon.Env) error { return tt.err })
			c.SetArgs(tt.args)
			var stdout, stderr bytes.Buffer
			c.SetOut(&stdout)
			if code := daemon.Main(c, &stderr); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if got := stderr.String(); !strings.Contains(got, tt.stderr) || (tt.stderr == "") != (got == "") {
				t.Errorf("stderr %q, want %q", got, tt.stderr)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout %q", stdout.String())
			}
		})
	}
}

// Not parallel: it sets the environment.
func TestEnv(t *testing.T) {
	tests := map[string]struct {
		env    map[string]string
		args   []string
		drain  string
		secret string
		stderr []string // parts of it, and exit code 2
	}{
		"default":              {drain: "1s", secret: "none"},
		"environment":          {env: map[string]string{"MILL_DRAIN": "2s", "MILL_SECRET": "s3cret"}, drain: "2s", secret: "s3cret"},
		"flag":                 {env: map[string]string{"MILL_DRAIN": "2s"}, args: []string{"--drain=3s"}, drain: "3s", secret: "none"},
		"flag, as the default": {env: map[string]string{"MILL_DRAIN": "2s"}, args: []string{"--drain=1s"}, drain: "1s", secret: "none"},
		"flag beats a bad one": {env: map[string]string{"MILL_DRAIN": "soon"}, args: []string{"--drain=3s"}, drain: "3s", secret: "none"},
		"empty":                {env: map[string]string{"MILL_DRAIN": ""}, drain: "1s", secret: "none"},
		"bad": {
			env: map[string]string{"MILL_DRAIN": "soon", "MILL_SECRET": "s3cret"}, stderr: []string{"MILL_DRAIN", `"soon"`, "--help"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			var got map[string]string
			c := command(func(c *cobra.Command, env *daemon.Env) error {
				if err := env.Apply(); err != nil {
					return err
				}
				flags := c.Flags()
				got = map[string]string{"drain": flags.Lookup("drain").Value.String(), "secret": flags.Lookup("secret").Value.String()}
				return nil
			})
			c.SetArgs(append([]string{"run"}, tt.args...))
			var stderr bytes.Buffer
			code := daemon.Main(c, &stderr)
			if tt.stderr != nil {
				if code != daemon.ExitUsage {
					t.Errorf("exit code %d", code)
				}
				for _, part := range tt.stderr {
					if !strings.Contains(stderr.String(), part) {
						t.Errorf("stderr %q does not say %q", stderr.String(), part)
					}
				}
				if strings.Contains(stderr.String(), "s3cret") {
					t.Error("a secret is printed")
				}
				return
			}
			if diff := cmp.Diff(map[string]string{"drain": tt.drain, "secret": tt.secret}, got); code != 0 || diff != "" {
				t.Errorf("exit code %d, values (-want +got):\n%s", code, diff)
			}
		})
	}
}

// Not parallel: it sets the environment.
func TestHelpNamesVariablesAndNoValues(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://:s3cret@example.invalid:6379")
	t.Setenv("PUBSUB_SUBSCRIPTION", "projects/s3cret/subscriptions/x")
	t.Setenv("TIDEMILL_PIPELINE", "s3cret")
	var w daemon.Worker
	var i daemon.Ingest
	for name, flags := range map[string]func(*cobra.Command, *daemon.Env){"worker": w.Flags, "ingest": i.Flags} {
		t.Run(name, func(t *testing.T) {
			c := &cobra.Command{Use: name, RunE: func(*cobra.Command, []string) error { return errors.New("not reached") }}
			flags(c, daemon.NewEnv(c))
			c.SetArgs([]string{"--help"})
			var stdout, stderr bytes.Buffer
			c.SetOut(&stdout)
			if code := daemon.Main(c, &stderr); code != 0 || stderr.Len() > 0 {
				t.Errorf("exit code %d, stderr %q", code, stderr.String())
			}
			if help := stdout.String(); !strings.Contains(help, "[$REDIS_URL]") || strings.Contains(help, "s3cret") {
				t.Errorf("help:\n%s", help)
			}
		})
	}
}

func TestErrorsKeepTheRedisPassword(t *testing.T) {
	t.Parallel()
	c := daemon.Common{RedisURL: "redis://user:s3cret@127.0.0.1:1/0"}
	_, err := c.Redis(t.Context())
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "--redis-url") {
		t.Errorf("Redis = %v", err)
	}
}

func TestCheckProgram(t *testing.T) {
	t.Parallel()
	var exit *daemon.Exit
	if err := daemon.CheckProgram(nil); !errors.As(err, &exit) || exit.Code != daemon.ExitUsage {
		t.Errorf("CheckProgram() = %v, want a usage error", err)
	}
	if err := daemon.CheckProgram([]string{"sh", "-c", "no-such-program"}); err != nil {
		t.Errorf("CheckProgram(sh) = %v", err)
	}
	for _, program := range []string{"no-such-program", "/no/such/program", "/etc/passwd", "/"} {
		err := daemon.CheckProgram([]string{program})
		if err == nil || !strings.Contains(err.Error(), program) {
			t.Errorf("CheckProgram(%s) = %v", program, err)
		}
	}
	if err := daemon.CheckProgram([]string{"no-such-program"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("CheckProgram = %v, want it wrapped", err)
	}
}

// Not parallel: the signals go to this process.
func TestSignals(t *testing.T) {
	closed := func(c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(patience):
			t.Fatal("nothing happens")
		}
	}
	for name, sig := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			ctx, second, stop := daemon.Signals(t.Context())
			defer stop()
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			closed(ctx.Done())
			select {
			case <-second:
				t.Fatal("one signal counts as two")
			default:
			}
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			closed(second)
			stop()
		})
	}
	parent, cancel := context.WithCancel(t.Context())
	ctx, second, stop := daemon.Signals(parent)
	cancel()
	closed(ctx.Done())
	stop()
	select {
	case <-second:
		t.Error("the second is reported without any")
	default:
	}
}
