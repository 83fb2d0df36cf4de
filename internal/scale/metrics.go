package scale

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"tidemill/internal/policy"
	"tidemill/internal/queue"
)

// Metrics are the scaler's figures of all pipelines.
type Metrics struct {
	items     *prometheus.GaugeVec
	oldest    *prometheus.GaugeVec
	workers   *prometheus.GaugeVec
	wanted    *prometheus.GaugeVec
	decisions *prometheus.CounterVec
	observed  *prometheus.GaugeVec
}

// NewMetrics registers the figures.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"pipeline"}, labels...))
	}
	m := &Metrics{
		items:    gauge("tidemill_queue_items", "Items in the queue, by state.", "state"),
		oldest:   gauge("tidemill_queue_oldest_waiting_seconds", "Age of the item that has waited longest."),
		workers:  gauge("tidemill_fleet_workers", "Workers as the platform sees them, by state.", "state"),
		wanted:   gauge("tidemill_fleet_wanted_workers", "Workers that the last decision asks for."),
		observed: gauge("tidemill_scaler_observed", "1 if queue and fleet could be read at the last look, else 0."),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemill_scaler_steps_total", Help: "Steps of decisions, by the rule that took them.",
		}, []string{"pipeline", "reason"}),
	}
	for _, c := range []prometheus.Collector{m.items, m.oldest, m.workers, m.wanted, m.observed, m.decisions} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// observe keeps the figures of the last complete look where this one failed.
func (m *Metrics) observe(pipeline string, q queue.Stats, f Size, d policy.Decision, err error) {
	for _, r := range d.Reasons {
		m.decisions.WithLabelValues(pipeline, string(r.Code)).Inc()
	}
	if err != nil {
		m.observed.WithLabelValues(pipeline).Set(0)
		return
	}
	m.observed.WithLabelValues(pipeline).Set(1)
	for state, n := range map[string]int64{"waiting": q.Waiting, "leased": q.Leased, "delayed": q.Delayed, "dead": q.Dead} {
		m.items.WithLabelValues(pipeline, state).Set(float64(n))
	}
	m.oldest.WithLabelValues(pipeline).Set(q.OldestWaiting.Seconds())
	for state, n := range map[string]int{"ready": f.Ready, "pending": f.Pending, "other": f.Other} {
		m.workers.WithLabelValues(pipeline, state).Set(float64(n))
	}
	m.wanted.WithLabelValues(pipeline).Set(float64(d.Workers))
}

// Forget drops the figures of a pipeline that is gone.
func (m *Metrics) Forget(pipeline string) {
	for _, v := range []*prometheus.GaugeVec{m.items, m.oldest, m.workers, m.wanted, m.observed} {
		v.DeletePartialMatch(prometheus.Labels{"pipeline": pipeline})
	}
	m.decisions.DeletePartialMatch(prometheus.Labels{"pipeline": pipeline})
}
