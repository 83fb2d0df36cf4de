package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tidemill/internal/daemon"
	"tidemill/internal/gcp"
	"tidemill/internal/ingest"
	"tidemill/internal/local"
	"tidemill/internal/local/embed"
	"tidemill/internal/local/files"
	"tidemill/internal/obs"
	"tidemill/internal/pipeline"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
	"tidemill/internal/scale"
)

// session is one run of tidemill local.
type session struct {
	localOptions
	began    time.Time
	console  *console
	services *embed.Services
	server   *redisq.Server
	queue    *redisq.Queue
	store    *gcp.Store
	pipeline pipeline.Pipeline
	files    *files.Files
	fleet    *local.Fleet
	manager  *scale.Manager
	bridge   *ingest.Bridge
	scratch  string        // the workers' work directory
	uploaded chan struct{} // closed when no more uploads come

	mu    sync.Mutex
	tails map[string]*tail
}

func runLocal(o localOptions) (err error) {
	s := &session{localOptions: o, began: time.Now(), console: newConsole(), tails: map[string]*tail{}, uploaded: make(chan struct{})}
	ctx, again, stop := daemon.Signals(context.Background())
	defer stop()
	defer s.console.End()
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return err
	}
	return s.run(ctx, again)
}

// open starts everything that others can be pointed at.
func (s *session) open(ctx context.Context) (err error) {
	if s.scratch, err = os.MkdirTemp("", "tidemill-local-"); err != nil {
		return fmt.Errorf("making the workers' directory: %w", err)
	}
	s.pipeline, _ = pipeline.Parse(localName, s.settings()) // checked before
	s.services, err = embed.Start(ctx, embed.Options{
		Addr: s.addr, Bucket: localName, Project: localName, Topic: localName, Subscription: localName,
	})
	if err != nil {
		return err
	}
	if s.store, err = gcp.NewStore(ctx, gcp.WithEndpoint(s.services.BucketURL)); err != nil {
		return err
	}
	redisq.RouteLogs(func(string) {}) // what matters comes as errors
	if s.server, err = redisq.Open(ctx, redisq.Options{URL: s.services.RedisURL, AnyServer: true}); err != nil {
		return err
	}
	s.queue = s.server.Queue(localName)
	s.files, err = files.Open(files.Options{
		In: s.in, Out: s.out, Mode: files.Mode(s.io), Key: strings.Join(s.argv, "\x00"),
		Store: s.store, Bucket: localName, Prefix: uploads, Results: s.pipeline.Results, Failures: s.pipeline.Failures,
		Log:     func(line string) { s.console.Say("%s", line) },
		Refused: func(rel string, reason error) { s.console.Say("refused: %q: %v", rel, reason) },
	})
	if err != nil {
		return err
	}
	log, metrics := zap.NewNop(), prometheus.NewRegistry()
	if s.verbose {
		if log, err = obs.NewLogger(obs.LogOptions{Format: obs.FormatConsole, Writer: s.console}); err != nil {
			return err
		}
	}
	s.fleet = local.NewFleet(local.Options{
		Command: s.workerCommand, Output: s.workerOutput, Died: s.workerDied,
		Changed: func() { s.manager.Kick(localName) },
	})
	scaleMetrics, err := scale.NewMetrics(metrics)
	if err != nil {
		return err
	}
	ingestMetrics, err := ingest.NewMetrics(metrics)
	if err != nil {
		return err
	}
	s.manager = scale.NewManager(scale.ManagerConfig{
		Store: s.server, Queue: func(name string) queue.Supervisor { return s.server.Queue(name) },
		Fleet: func(string) scale.Fleet { return s.fleet }, Tick: time.Second, Settle: 50 * time.Millisecond, Log: log, Metrics: scaleMetrics,
	})
	s.bridge = ingest.New(ingest.Config{
		Settings: s.server, Queue: func(name string) queue.Producer { return s.server.Queue(name) },
		Log: log, Metrics: ingestMetrics,
	})
	if _, err := s.server.Accept(ctx, map[string]map[string]string{localName: s.settings()}); err != nil {
		return err
	}
	s.console.Say("bucket gs://%s at %s; to upload a file by hand:", localName, s.services.BucketURL)
	s.console.Say("  curl --data-binary @FILE '%s/upload/storage/v1/b/%s/o?uploadType=media&name=%sNAME'", s.services.BucketURL, localName, uploads)
	return nil
}

func (s *session) close() error {
	var errs []error
	if s.fleet != nil {
		s.fleet.Stop(3 * time.Second)
	}
	if s.files != nil {
		errs = append(errs, s.files.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.services != nil {
		errs = append(errs, s.services.Close())
	}
	if s.scratch != "" {
		errs = append(errs, os.RemoveAll(s.scratch))
	}
	return errors.Join(errs...)
}

func (s *session) workerCommand(name string) *exec.Cmd {
	level := "error"
	if s.verbose {
		level = "info"
	}
	args := []string{
		"local-worker", "--listen=", "--log-format=console", "--log-level=" + level, "--allow-any-redis",
		"--redis-url=" + s.services.RedisURL, "--pipeline=" + localName, "--name=" + name,
		"--work-dir=" + s.scratch, "--drain=" + s.pipeline.ItemTimeout.String(), "--",
	}
	c := exec.Command("/proc/self/exe", append(args, s.argv...)...)
	c.Args[0] = "tidemill" // for ps
	c.Env = append(os.Environ(), s.services.Env()...)
	return c
}

func (s *session) workerOutput(name string) io.Writer {
	if s.verbose {
		return s.console
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &tail{}
	s.tails[name] = t
	return t
}

func (s *session) workerDied(name string, err error) {
	s.mu.Lock()
	t := s.tails[name]
	delete(s.tails, name)
	s.mu.Unlock()
	s.console.Say("worker %s died (%v) and is replaced; what it held comes back", name, err)
	if t != nil {
		_, _ = s.console.Write([]byte(t.String())) // a console takes everything
	}
}

// run keeps everything going until it is done, told to stop, or fails.
func (s *session) run(ctx context.Context, again <-chan struct{}) error {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var loops sync.WaitGroup
	loops.Go(func() { s.manager.Run(running) })
	loops.Go(func() {
		err := daemon.Bridge(running, s.bridge, gcp.Subscription{
			Project: localName, Name: localName, Streams: embed.Streams, Endpoint: s.services.PubSubAddr,
			ShutdownTimeout: time.Second,
		}, zap.NewNop(), func() {})
		if err != nil && running.Err() == nil {
			cancel(fmt.Errorf("receiving events: %w", err))
		}
	})
	loops.Go(func() {
		defer close(s.uploaded)
		if err := s.files.Run(running, !s.once); err != nil && running.Err() == nil {
			cancel(err)
		}
	})
	f := newFollower(s, func(err error) { cancel(err) })
	drained := f.follow(running)
	if drained {
		s.awaitZero(running)
	}
	interrupted, complete := ctx.Err() != nil, s.allUploaded()
	failure := context.Cause(running)
	if interrupted {
		failure = nil
		s.console.Say("stopping: what is in hand is finished; Ctrl-C again stops now")
	}
	cancel(nil)
	s.drain(again)
	loops.Wait()
	f.last()
	s.console.End()
	return s.finish(interrupted, complete, failure)
}

// awaitZero lets the scaler take the last workers away.
func (s *session) awaitZero(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for s.fleet.Running() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// drain ends the workers: after the items in hand, or now.
func (s *session) drain(again <-chan struct{}) {
	s.fleet.Drain()
	gone := make(chan struct{})
	go func() { defer close(gone); s.fleet.Wait() }()
	select {
	case <-gone:
	case <-again:
		s.console.Say("stopping now")
		s.fleet.Stop(3 * time.Second)
	}
}

// summary is what --json prints.
type summary struct {
	Items       int     `json:"items"`   // objects that entered the queue
	Done        int     `json:"done"`    // of them, finished with results
	Dead        int     `json:"dead"`    // of them, given up
	Skipped     int     `json:"skipped"` // superseded or deleted before their turn, and files unchanged since the last run
	Refused     int     `json:"refused"` // files that can't be uploaded, or whose results can't be written
	PeakWorkers int     `json:"peakWorkers"`
	Seconds     float64 `json:"seconds"`
}

func (s *session) finish(interrupted, complete bool, failure error) error {
	c := s.files.Counts()
	left := len(s.files.Outstanding())
	sum := summary{
		Items: c.Uploaded + c.Tracked, Done: c.Done, Dead: c.Dead, Skipped: c.Skipped + c.Unchanged, Refused: c.Refused,
		PeakWorkers: s.fleet.Peak(), Seconds: time.Since(s.began).Seconds(),
	}
	s.console.Say("%s: %d done, %d failed; %d skipped (%d unchanged), %d refused; at most %s; %.1f s",
		amount(sum.Items, "item"), sum.Done, sum.Dead, sum.Skipped, c.Unchanged, sum.Refused, amount(sum.PeakWorkers, "worker"), sum.Seconds)
	if reports := s.files.Reports(); sum.Dead > 0 && reports != "" {
		s.console.Say("reports of what failed: %s", reports)
	}
	if s.json {
		if err := json.NewEncoder(os.Stdout).Encode(sum); err != nil {
			return fmt.Errorf("writing the summary: %w", err)
		}
	}
	switch {
	case failure != nil:
		return failure
	case interrupted && (left > 0 || s.once && !complete):
		return &daemon.Exit{Code: exitInterrupted, Err: errors.New("interrupted with work left; run it again to go on")}
	case sum.Dead > 0 || sum.Refused > 0:
		return &daemon.Exit{Code: exitSomeFailed}
	}
	return nil
}

func (s *session) allUploaded() bool {
	select {
	case <-s.uploaded:
		return true
	default:
		return false
	}
}
