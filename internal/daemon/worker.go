package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tidemill/internal/command"
	"tidemill/internal/gcp"
	"tidemill/internal/obs"
	"tidemill/internal/work"
)

// commandGrace is what a command has between SIGTERM and SIGKILL. The help of
// --drain speaks of it.
const commandGrace = 10 * time.Second

// Worker are a worker's flags.
type Worker struct {
	Common
	Pipeline string
	Name     string
	WorkDir  string
	Drain    time.Duration
	Argv     []string

	// Kill, once closed, ends the command at once. It may be nil.
	Kill <-chan struct{}
	// Ready is told about readiness, besides /readyz. It may be nil.
	Ready func(bool)
}

// Flags adds the flags to a command.
func (w *Worker) Flags(cmd *cobra.Command, env *Env) {
	w.Common.Flags(cmd, env)
	f := cmd.Flags()
	f.StringVar(&w.Pipeline, "pipeline", "", "the pipeline to work for (required)")
	f.StringVar(&w.Name, "name", "", "unique name of this worker; by default the host name, which is a pod's name")
	f.StringVar(&w.WorkDir, "work-dir", filepath.Join(os.TempDir(), "tidemill"), "where inputs and outputs of io \"files\" are kept while an item is worked on")
	f.DurationVar(&w.Drain, "drain", 20*time.Second, "how long the item in hand may go on after SIGTERM, before its command gets SIGTERM, and 10 s later SIGKILL; keep it 15 s below the pod's grace period")
	env.Bind("pipeline", "TIDEMILL_PIPELINE")
	env.Bind("name", "TIDEMILL_WORKER")
	env.Bind("work-dir", "TIDEMILL_WORK_DIR")
	env.Bind("drain", "TIDEMILL_DRAIN")
}

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9_.]{0,252}$`)

// Run works until ctx is done.
func (w *Worker) Run(ctx context.Context) error {
	if w.Pipeline == "" {
		return Usage(errors.New("--pipeline is required"))
	}
	if err := CheckProgram(w.Argv); err != nil {
		return err
	}
	if w.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("no --name is given, and the host has none: %w", err)
		}
		w.Name = host
	}
	// It becomes the name of a directory, which is emptied.
	if !nameRule.MatchString(w.Name) {
		return Usage(fmt.Errorf("--name %q: a worker's name has at most 253 letters, digits, '-', '_' and '.', and begins with a letter or digit", w.Name))
	}
	if err := os.MkdirAll(w.WorkDir, 0o700); err != nil {
		return fmt.Errorf("--work-dir: %w", err)
	}
	// A directory of its own: others may share the parent, and what an earlier
	// life of this worker left behind can go.
	dir := filepath.Join(w.WorkDir, w.Name)
	unlock, err := lockName(dir + ".lock")
	if err != nil {
		return fmt.Errorf("--name %s: %w", w.Name, err)
	}
	defer unlock()
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("--work-dir: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("--work-dir: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // the next life tries again

	health := obs.NewHealth("work")
	return w.Host(ctx, "tidemill-worker", health, func(b Base) error { return w.work(ctx, b, health, dir) })
}

// work is what Run does in a directory of this worker's own.
func (w *Worker) work(ctx context.Context, b Base, health *obs.Health, dir string) error {
	log := b.Log
	metrics, err := work.NewMetrics(b.Registry)
	if err != nil {
		return err
	}
	store, err := gcp.NewStore(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // everything was answered by then
	loop, err := work.New(work.Config{
		Name: w.Name, Pipeline: w.Pipeline, Queue: b.Redis.Queue(w.Pipeline), Settings: b.Redis, Store: store,
		WorkDir: dir, Drain: w.Drain, Kill: w.Kill, Log: log, Metrics: metrics,
		Command: command.Spec{Argv: w.Argv, Grace: commandGrace, Log: func(stream, line string) {
			log.Info(line, obs.Label("pipeline", w.Pipeline), obs.Label("worker", w.Name), zap.String("stream", stream))
		}},
		Ready: func(ready bool) {
			health.Set("work", map[bool]error{false: errors.New("barred: this worker may lease nothing more")}[ready])
			if w.Ready != nil {
				w.Ready(ready)
			}
		},
	})
	if err != nil {
		return err
	}
	log.Info("worker started", zap.String("pipeline", w.Pipeline), zap.String("worker", w.Name), zap.Strings("command", w.Argv))
	if err := loop.Run(ctx); err != nil {
		return err
	}
	log.Info("worker stopped", zap.String("worker", w.Name))
	return nil
}

// lockName makes sure that no other worker of this name works in the same place:
// it would empty this one's directory. The lock goes with the process.
func lockName(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("another worker of that name uses the same --work-dir: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
