package work

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are a worker's own figures.
type Metrics struct {
	items   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	lost    prometheus.Counter
	busy    prometheus.Gauge
}

// NewMetrics registers the figures.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		items: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemill_worker_items_total", Help: "Items finished, by outcome.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidemill_worker_item_seconds", Help: "Time spent on an item, by outcome.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 10),
		}, []string{"outcome"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidemill_worker_leases_lost_total", Help: "Leases that ran out while this worker held them.",
		}),
		busy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidemill_worker_busy", Help: "1 while an item is being worked on.",
		}),
	}
	for _, c := range []prometheus.Collector{m.items, m.seconds, m.lost, m.busy} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}
