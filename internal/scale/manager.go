package scale

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/pipeline"
	"tidemill/internal/policy"
	"tidemill/internal/queue"
)

// ManagerConfig is what a Manager works with. All fields are required unless
// they say otherwise.
type ManagerConfig struct {
	Store   queue.SettingsStore
	Queue   func(pipeline string) queue.Supervisor
	Fleet   func(pipeline string) Fleet // nil: settings are kept, nothing is scaled
	Tick    time.Duration
	Settle  time.Duration // see Config
	Log     *zap.Logger
	Metrics *Metrics
	Reached func(error) // see Config
	// Fleets names the pipelines that have a fleet, so that one which was deleted
	// while no scaler ran can run out. It may be nil.
	Fleets func(ctx context.Context) ([]string, error)
	// Refused is told of settings that are not put in force. It may be nil.
	Refused func(pipeline.Problem)
	// Decided is told each decision that differs from its pipeline's last. It may be nil.
	Decided func(pipeline string, d policy.Decision)
}

// Manager keeps the accepted settings, and one controller per pipeline.
type Manager struct {
	ManagerConfig
	offers   chan map[string]map[string]string
	told     []pipeline.Problem           // of the last offer
	accepted map[string]map[string]string // what was last stored; nil before that
	mu       sync.Mutex
	set      pipeline.Set
	offered  map[string]map[string]string // the last offer; nil: none yet
	kicks    map[string]chan struct{}
	running  sync.WaitGroup
}

// NewManager returns a manager that has seen no settings yet.
func NewManager(c ManagerConfig) *Manager {
	if c.Refused == nil {
		c.Refused = func(pipeline.Problem) {}
	}
	if c.Decided == nil {
		c.Decided = func(string, policy.Decision) {}
	}
	return &Manager{ManagerConfig: c, offers: make(chan map[string]map[string]string, 1), kicks: map[string]chan struct{}{}}
}

// Offer hands in the complete set of pipelines as the operator wrote it, name
// to keys. A newer offer replaces one that has not been looked at yet. Safe for
// concurrent use.
func (m *Manager) Offer(pipelines map[string]map[string]string) {
	for {
		select {
		case m.offers <- pipelines:
			return
		default:
		}
		select {
		case <-m.offers:
		default:
		}
	}
}

// Run scales until ctx is done. The settings accepted before, by this process
// or another, are in force from the start.
func (m *Manager) Run(ctx context.Context) {
	defer m.running.Wait()
	var pending map[string]map[string]string
	retry := time.NewTimer(0) // the first round takes up what was accepted before
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case pending = <-m.offers:
		case <-retry.C:
		}
		if err := m.accept(ctx, pending); err != nil && ctx.Err() == nil {
			m.Log.Warn("could not store the settings; trying again", zap.Error(err))
			retry.Reset(time.Second)
		} else {
			retry.Reset(m.Tick) // the store may lose what it holds
		}
	}
}

// accept puts in force what is valid of an offer (nil: none yet), and for the
// rest what was in force before.
func (m *Manager) accept(ctx context.Context, offer map[string]map[string]string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	before, err := m.Store.Settings(call)
	if err != nil {
		return err
	}
	lost := before.Revision == 0 && m.accepted != nil
	if lost {
		before.Pipelines = m.accepted
	}
	wanted := offer
	if offer == nil {
		wanted = before.Pipelines
	}
	c := choose(wanted, before.Pipelines)
	m.tell(c.problems)
	if offer != nil || before.Revision != 0 || lost {
		revision, err := m.Store.Accept(call, c.accepted)
		if err != nil {
			return err
		}
		m.accepted = c.accepted
		if lost {
			m.Log.Warn("the store had lost the settings; they have been written again")
		}
		if revision != before.Revision {
			m.tellGone(before.Pipelines)
			m.Log.Info("settings are in force", zap.Int64("revision", revision), zap.Strings("pipelines", c.set.Names()))
		}
	}
	var fleets []string
	if m.Fleets != nil {
		fleets, err = m.Fleets(call) // tried again, but the settings don't wait for it
	}
	names := slices.Concat(c.set.Names(), slices.Collect(maps.Keys(before.Pipelines)), fleets)
	m.control(ctx, c.set, offer, names)
	return err
}

// tellGone names the pipelines that are no longer in force.
func (m *Manager) tellGone(before map[string]map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, stays := m.accepted[name]; !stays {
			m.Log.Warn("the pipeline is gone: its uploads are no longer taken, its workers go when they find nothing to do, "+
				"and what is still queued then waits for a pipeline of that name", zap.String("pipeline", name))
		}
	}
}

// tell reports problems, but not the same ones again and again.
func (m *Manager) tell(problems []pipeline.Problem) {
	if slices.Equal(problems, m.told) {
		return
	}
	m.told = problems
	for _, p := range problems {
		m.Log.Warn("settings are refused; the last good ones stay in force",
			zap.String("pipeline", p.Pipeline), zap.String("key", p.Key), zap.String("problem", p.Text))
		m.Refused(p)
	}
}

// control starts the controllers that are missing, and wakes the rest to look at
// their settings. A deleted pipeline has one too, which lets its fleet run out.
func (m *Manager) control(ctx context.Context, set pipeline.Set, offer map[string]map[string]string, names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set, m.offered = set, offer
	if m.Fleet == nil {
		return // settings only
	}
	for _, name := range names {
		if m.kicks[name] != nil {
			continue
		}
		kick := make(chan struct{}, 1)
		m.kicks[name] = kick
		c := New(Config{
			Pipeline: name, Queue: m.Queue(name), Fleet: m.Fleet(name), Tick: m.Tick, Settle: m.Settle, Kick: kick,
			Settings: func() policy.Settings { return m.settings(name) },
			Log:      m.Log, Metrics: m.Metrics, Reached: m.Reached,
			Decided: func(d policy.Decision) { m.Decided(name, d) },
		})
		m.running.Go(func() { c.Run(ctx) })
	}
	for _, kick := range m.kicks {
		notify(kick)
	}
}

// Kick makes one pipeline's controller look at once, for instance because its
// fleet changed. An unknown name does nothing.
func (m *Manager) Kick(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if kick := m.kicks[name]; kick != nil {
		notify(kick)
	}
}

func notify(kick chan<- struct{}) {
	select {
	case kick <- struct{}{}:
	default:
	}
}

// settings are those in force. A pipeline that nobody offers any more keeps those
// at work and nobody else; one of which nothing valid is known stays as it is.
func (m *Manager) settings(name string) policy.Settings {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.set.Get(name); ok {
		return p.Scaling
	}
	_, offered := m.offered[name]
	return policy.Settings{FixedWorkers: 0, Freeze: m.offered == nil || offered, ItemsPerWorker: 1}
}
