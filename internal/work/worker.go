package work

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/bucket"
	"tidemill/internal/command"
	"tidemill/internal/obs"
	"tidemill/internal/pipeline"
	"tidemill/internal/queue"
)

const (
	callTimeout  = 15 * time.Second // one call to the queue
	idleFallback = 10 * time.Second // a lost wake-up costs at most this, plus jitter
	// farewell is how long a worker that stops goes on trying to tell the queue
	// how its last item ended.
	farewell = 10 * time.Second
)

// Config is what a worker works with. All fields are required unless they say
// otherwise.
type Config struct {
	Name     string // unique among workers; in a cluster the pod's name
	Pipeline string
	Queue    queue.Consumer
	Settings queue.SettingsReader
	Store    bucket.Store
	Command  command.Spec
	WorkDir  string // an existing directory for inputs and outputs of io "files"
	// Drain is how long an item may go on after the worker was told to stop.
	Drain time.Duration
	// Kill, once closed, ends the command at once, and Run soon after. It may be nil.
	Kill    <-chan struct{}
	Log     *zap.Logger
	Metrics *Metrics
	// Ready is told about readiness: false while the worker is barred. It may be nil.
	Ready func(bool)
	// Reached is told the outcome of each call to the queue. It may be nil.
	Reached func(error)
}

// Worker works on one item at a time.
type Worker struct {
	Config
	settings pipeline.Pipeline
	revision int64
	ready    bool
}

// New checks the configuration.
func New(c Config) (*Worker, error) {
	if c.Name == "" || c.Pipeline == "" {
		return nil, errors.New("a worker needs a name and a pipeline")
	}
	if c.Ready == nil {
		c.Ready = func(bool) {}
	}
	if c.Reached == nil {
		c.Reached = func(error) {}
	}
	c.Log = c.Log.With(obs.Label("pipeline", c.Pipeline), obs.Label("worker", c.Name))
	return &Worker{Config: c}, nil
}

// Run works until ctx is done, then ends as Config.Drain says. It returns nil
// after an orderly stop, with every lease finished or released, and an error
// when the queue could not be told about the last one.
func (w *Worker) Run(ctx context.Context) error {
	ctx, cancel := w.untilKilled(ctx)
	defer cancel()
	if err := w.awaitSettings(ctx); err != nil {
		return nil // stopped before there was anything to do
	}
	var done []queue.Completion
	var until time.Time // once the worker stops: when to give the queue up
	backoff := newBackoff()
	for {
		call, timeout := queue.Turn{Worker: w.Name, Completions: done, Want: 1, Lease: w.settings.LeaseDuration}, callTimeout
		if ctx.Err() != nil {
			if len(done) == 0 {
				break
			}
			if until.IsZero() {
				until = time.Now().Add(farewell)
			}
			call.Want, timeout = 0, max(time.Second, min(callTimeout, time.Until(until)))
		}
		asked := time.Now()
		turned, err := w.turn(ctx, call, timeout)
		if err != nil {
			w.Log.Warn("the queue did not answer; trying again", zap.Error(err), zap.Int("unacknowledged", len(done)))
			if !backoff.wait(ctx) && !until.IsZero() && !w.pause(until) {
				return fmt.Errorf("stopping with %d items not acknowledged: %w", len(done), err)
			}
			continue
		}
		backoff.reset()
		w.logVerdicts(done, turned.Verdicts)
		done = nil
		w.reloadSettings(ctx, turned)
		w.setReady(!turned.Barred)
		for _, lease := range turned.Leases {
			if c, ended := w.process(ctx, held{Lease: lease, asked: asked, period: call.Lease}); ended {
				done = append(done, c)
			}
		}
		if len(turned.Leases) == 0 && ctx.Err() == nil {
			w.idle(ctx)
		}
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := w.Queue.Leave(leaving, w.Name); err != nil {
		w.Log.Warn("could not sign off; the registration expires by itself", zap.Error(err))
	}
	return nil
}

// untilKilled makes Kill stop the whole loop: a worker that only ended its
// commands would go on to lease, and release at once, one item after another.
func (w *Worker) untilKilled(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-w.Kill:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// turn is one call. One that is under way when the worker is told to stop must
// be answered, or what it leased would be lost until the lease expires.
func (w *Worker) turn(ctx context.Context, t queue.Turn, timeout time.Duration) (queue.Turned, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	turned, err := w.Queue.Turn(ctx, t)
	w.Reached(err)
	return turned, err
}

// pause waits a little, and reports whether to try again: not after until, and
// not when the worker is killed.
func (w *Worker) pause(until time.Time) bool {
	t := time.NewTimer(100*time.Millisecond + rand.N(200*time.Millisecond))
	defer t.Stop()
	select {
	case <-w.Kill:
		return false
	case <-t.C:
		return time.Now().Before(until)
	}
}

func (w *Worker) idle(ctx context.Context) {
	d := idleFallback + rand.N(3*time.Second)
	if err := w.Queue.Wait(ctx, w.Name, d); err != nil && ctx.Err() == nil {
		w.Reached(err)
		newBackoff().wait(ctx)
	}
}

func (w *Worker) setReady(ready bool) {
	if ready != w.ready {
		w.ready = ready
		w.Ready(ready)
	}
}

func (w *Worker) logVerdicts(done []queue.Completion, verdicts []queue.Verdict) {
	for i, c := range done {
		verdict := queue.Refused
		if i < len(verdicts) {
			verdict = verdicts[i]
		}
		if verdict == queue.Refused {
			w.Metrics.lost.Inc()
			w.Log.Warn("the lease was lost before the item could be acknowledged; it runs again",
				obs.Label("item", string(c.ID)), zap.String("outcome", string(c.Kind)))
			continue
		}
		w.Metrics.items.WithLabelValues(string(c.Kind)).Inc()
	}
}

// awaitSettings returns once accepted settings of this pipeline are known.
func (w *Worker) awaitSettings(ctx context.Context) error {
	backoff := newBackoff()
	for told := ""; ; {
		err := w.loadSettings(ctx, callTimeout)
		if err == nil {
			return nil
		}
		if text := err.Error(); text != told && ctx.Err() == nil {
			w.Log.Warn("waiting for accepted settings", zap.Error(err))
			told = text
		}
		if !backoff.wait(ctx) {
			return err
		}
	}
}

// reloadSettings gets the settings that the queue's answer speaks of, if they
// are others than those in force. A lease that came with it is not yet extended
// by anyone, so that little time may be spent.
func (w *Worker) reloadSettings(ctx context.Context, t queue.Turned) {
	if t.Revision == w.revision || t.Revision == 0 {
		return
	}
	timeout := callTimeout
	if len(t.Leases) > 0 {
		timeout = min(timeout, w.settings.LeaseDuration/3)
	}
	if err := w.loadSettings(ctx, timeout); err != nil && ctx.Err() == nil {
		w.Log.Warn("keeping the settings in force", zap.Int64("revision", w.revision), zap.Error(err))
	}
}

func (w *Worker) loadSettings(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	accepted, err := w.Settings.Settings(ctx)
	w.Reached(err)
	if err != nil {
		return err
	}
	keys, ok := accepted.Pipelines[w.Pipeline]
	if !ok {
		return fmt.Errorf("no settings of pipeline %q have been accepted yet; is the scaler running, and its ConfigMap valid?", w.Pipeline)
	}
	p, problems := pipeline.Parse(w.Pipeline, keys)
	if len(problems) > 0 {
		return fmt.Errorf("the accepted settings are not valid for this version of the worker: %w", problems[0])
	}
	if err := command.Check(w.Command.Argv, p.IO == pipeline.Stream); err != nil {
		return err
	}
	w.settings, w.revision = p, accepted.Revision
	return nil
}

// backoff waits longer from try to try, with jitter, up to five seconds.
type backoff struct {
	tries int
}

func newBackoff() *backoff { return &backoff{} }

func (b *backoff) reset() { b.tries = 0 }

// wait reports whether it waited to the end; false means that ctx is done.
func (b *backoff) wait(ctx context.Context) bool {
	d := min(5*time.Second, 100*time.Millisecond<<min(b.tries, 6))
	d = d/2 + rand.N(d/2)
	b.tries++
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
