package ingest

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are ingest's own figures.
type Metrics struct {
	events         *prometheus.CounterVec
	enqueueSeconds prometheus.Histogram
}

// NewMetrics registers the figures.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemill_ingest_events_total",
			Help: "Pub/Sub messages by what became of them: queued, duplicate, unmatched, placeholder, other (not a finalize), unknown, rejected, returned.",
		}, []string{"outcome"}),
		enqueueSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tidemill_ingest_enqueue_seconds", Help: "Time of one successful batch enqueue.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
	}
	for _, c := range []prometheus.Collector{m.events, m.enqueueSeconds} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}
