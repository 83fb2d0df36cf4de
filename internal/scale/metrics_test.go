package scale

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"tidemill/internal/policy"
	"tidemill/internal/queue"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMetrics(registry); err == nil {
		t.Error("the same figures are registered twice")
	}
	decided := policy.Decision{Workers: 3, Reasons: []policy.Reason{{Code: policy.Backlog, Workers: 9}, {Code: policy.MaxWorkers, Workers: 3}}}
	stats := queue.Stats{Waiting: 80, Leased: 2, Delayed: 4, Dead: 1, OldestWaiting: 1500 * time.Millisecond}
	m.observe("p", stats, Size{Wanted: 3, Ready: 2, Pending: 1}, decided, nil)

	// A reading that failed changes no figure but the one that says so.
	m.observe("p", queue.Stats{}, Size{}, policy.Decision{Hold: true, Reasons: []policy.Reason{{Code: policy.Unobserved}}}, errors.New("down"))
	want := []string{
		`tidemill_fleet_wanted_workers{pipeline="p"} 3`,
		`tidemill_fleet_workers{pipeline="p",state="other"} 0`,
		`tidemill_fleet_workers{pipeline="p",state="pending"} 1`,
		`tidemill_fleet_workers{pipeline="p",state="ready"} 2`,
		`tidemill_queue_items{pipeline="p",state="dead"} 1`,
		`tidemill_queue_items{pipeline="p",state="delayed"} 4`,
		`tidemill_queue_items{pipeline="p",state="leased"} 2`,
		`tidemill_queue_items{pipeline="p",state="waiting"} 80`,
		`tidemill_queue_oldest_waiting_seconds{pipeline="p"} 1.5`,
		`tidemill_scaler_observed{pipeline="p"} 0`,
		`tidemill_scaler_steps_total{pipeline="p",reason="backlog"} 1`,
		`tidemill_scaler_steps_total{pipeline="p",reason="max-workers"} 1`,
		`tidemill_scaler_steps_total{pipeline="p",reason="unobserved"} 1`,
	}
	if diff := cmp.Diff(want, figures(t, registry)); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
	m.Forget("p")
	if left := figures(t, registry); len(left) > 0 {
		t.Errorf("figures that are left of a forgotten pipeline: %v", left)
	}
}

// figures are all that is registered, one a line.
func figures(t *testing.T, registry *prometheus.Registry) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			lines = append(lines, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), value))
		}
	}
	slices.Sort(lines)
	return lines
}
