package obs

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry returns a registry of the process's own, never the global one,
// with the Go runtime's and the process's metrics and tidemill_build_info,
// which is always 1 and carries the version. Parts register theirs on it as a
// prometheus.Registerer.
func NewRegistry(version string) (*prometheus.Registry, error) {
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "tidemill_build_info",
		Help:        "Always 1; the version is in the label.",
		ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 })
	reg := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		info,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of version %q: %w", clip(version), err)
		}
	}
	return reg, nil
}
