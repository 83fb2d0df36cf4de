//go:build kube

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tidemill/internal/kube"
	"tidemill/internal/scale"
	"tidemill/test/kube/cluster"
)

type settings = map[string]map[string]string

func patchJob(t *testing.T, n *namespace, name string, patch []byte) error {
	t.Helper()
	_, err := n.admin.BatchV1().Jobs(n.name).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// watch runs kube.Watch until the test ends.
func (n *namespace) watch(t *testing.T) <-chan settings {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	calls, ended := make(chan settings, 100), make(chan error, 1)
	var busy atomic.Bool
	go func() {
		ended <- kube.Watch(ctx, n.scaler, n.name, func(s map[string]map[string]string) {
			if !busy.CompareAndSwap(false, true) {
				t.Error("two calls at once")
			}
			calls <- s
			busy.Store(false)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, "the end of the watch", ended); err != nil {
			t.Errorf("the watch ended with %v", err)
		}
	})
	return calls
}

func (n *namespace) configMap(name, bucket string, labels map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: n.name, Labels: labels},
		Data:       map[string]string{"bucket": bucket},
	}
}

func pipelineLabels() map[string]string {
	return map[string]string{"app.kubernetes.io/part-of": "tidemill", "app.kubernetes.io/component": "pipeline"}
}

func testWatch(t *testing.T, n *namespace) {
	configs := n.admin.CoreV1().ConfigMaps(n.name)
	var took []time.Duration
	change := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	calls := n.watch(t)
	expect := func(want settings) {
		t.Helper()
		start := time.Now()
		if diff := cmp.Diff(want, receive(t, fmt.Sprintf("settings %v", want), calls)); diff != "" {
			t.Fatalf("settings differ (-want +got):\n%s", diff)
		}
		took = append(took, time.Since(start))
	}
	create := func(c *corev1.ConfigMap) error {
		_, err := configs.Create(t.Context(), c, metav1.CreateOptions{})
		return err
	}
	update := func(c *corev1.ConfigMap) error {
		_, err := configs.Update(t.Context(), c, metav1.UpdateOptions{})
		return err
	}
	a := map[string]string{"bucket": "uploads-a"}
	expect(settings{}) // an empty namespace is known to be empty

	change(create(n.configMap("a", "uploads-a", pipelineLabels())))
	expect(settings{"a": a})
	change(create(n.configMap("other", "not-a-pipeline", nil)))
	change(create(n.configMap("b", "uploads-b", pipelineLabels())))
	expect(settings{"a": a, "b": {"bucket": "uploads-b"}})
	change(update(n.configMap("b", "uploads-c", pipelineLabels())))
	expect(settings{"a": a, "b": {"bucket": "uploads-c"}})
	labelled := n.configMap("b", "uploads-c", pipelineLabels())
	labelled.Labels["team"] = "media"
	change(update(labelled)) // no call: the settings are the same
	change(update(n.configMap("other", "a-pipeline-now", pipelineLabels())))
	expect(settings{"a": a, "b": {"bucket": "uploads-c"}, "other": {"bucket": "a-pipeline-now"}})
	change(update(n.configMap("other", "not-any-more", nil)))
	expect(settings{"a": a, "b": {"bucket": "uploads-c"}})
	change(configs.Delete(t.Context(), "b", metav1.DeleteOptions{}))
	expect(settings{"a": a})

	slices.Sort(took) // the median, since a loaded machine may delay any one of them
	if median := took[len(took)/2]; median > time.Second {
		t.Errorf("changes took %v, want a median of at most a second", took)
	}
	t.Logf("changes took %v", took)
}

// candidate is one that stands for election until it is told not to.
type candidate struct {
	name     string
	leads    chan context.Context // the context of each time it leads
	withdraw context.CancelFunc
	ended    chan error
}

// stand starts a candidate, which leads for as long as it can. leading counts
// those that lead.
func (n *namespace) stand(t *testing.T, name string, leading *atomic.Int32) *candidate {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &candidate{name: name, leads: make(chan context.Context, 10), withdraw: cancel, ended: make(chan error, 1)}
	go func() {
		c.ended <- kube.Elect(ctx, kube.Candidate{Client: n.scaler, Namespace: n.name, Lease: scaler, Identity: name},
			func(ctx context.Context) {
				if leading.Add(1) > 1 {
					t.Errorf("%s leads beside another", name)
				}
				c.leads <- ctx
				<-ctx.Done()
				leading.Add(-1)
			})
	}()
	t.Cleanup(cancel)
	return c
}

func (c *candidate) end(t *testing.T) {
	t.Helper()
	c.withdraw()
	if err := receive(t, c.name+" to end", c.ended); err != nil {
		t.Errorf("%s ended with %v", c.name, err)
	}
}

func testHandOver(t *testing.T, n *namespace) {
	var leading atomic.Int32
	first := n.stand(t, "first", &leading)
	receive(t, "first to lead", first.leads)
	second := n.stand(t, "second", &leading)
	never := n.stand(t, "never", &leading)
	never.end(t) // a candidate that does not lead can go at any time

	start := time.Now()
	first.end(t)
	receive(t, "second to lead", second.leads)
	t.Logf("handed over in %v", time.Since(start))
	holder := func() string {
		lease, err := n.admin.CoordinationV1().Leases(n.name).Get(t.Context(), scaler, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return *lease.Spec.HolderIdentity
	}
	if got := holder(); got != "second" {
		t.Errorf("the Lease is held by %q, want second", got)
	}
	second.end(t)
	if got := holder(); got != "" {
		t.Errorf("after the last one the Lease is held by %q, want nobody", got)
	}

	// One that returns by itself is done, and the Lease is free at once.
	err := kube.Elect(t.Context(), kube.Candidate{Client: n.scaler, Namespace: n.name, Lease: scaler, Identity: "third"},
		func(context.Context) {})
	if err != nil || holder() != "" {
		t.Errorf("a run that returns ends its election with %v, the Lease held by %q", err, holder())
	}
}

func testEvents(t *testing.T, n *namespace) {
	stored, err := n.admin.CoreV1().ConfigMaps(n.name).Create(t.Context(),
		n.configMap("a", "uploads", pipelineLabels()), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	template := n.podTemplate(t, nil)
	events := kube.NewEvents(t.Context(), n.scaler, n.name, scaler)
	for range 2 {
		events.Warn(t.Context(), kube.KindConfigMap, "a", "SettingsRefused", "max-workers is -1; it must be 1 to 10000")
	}
	events.Note(t.Context(), kube.KindPodTemplate, pipeline, "Started", "the fleet uses it now")
	type told struct {
		Type, Message string
		UID           types.UID
		Count         int32
	}
	want := map[string]told{
		"SettingsRefused": {"Warning", "max-workers is -1; it must be 1 to 10000", stored.UID, 2},
		"Started":         {"Normal", "the fleet uses it now", template.UID, 1},
	}
	eventually(t, "the Events", func() error {
		list, err := n.admin.CoreV1().Events(n.name).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		got := make(map[string]told)
		for _, e := range list.Items {
			got[e.Reason] = told{e.Type, e.Message, e.InvolvedObject.UID, e.Count}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// An API server that is gone is unknown, never zero, and everything goes on by
// itself when it is back.
func testOutage(t *testing.T, c *cluster.Cluster, n *namespace) {
	n.podTemplate(t, nil)
	f := kube.NewFleet(n.scaler, n.name, pipeline)
	resize(t, f, 0, 3)
	want := scale.Size{Wanted: 3, Other: 3}
	waitSize(t, f, want)
	configs := n.admin.CoreV1().ConfigMaps(n.name)
	if _, err := configs.Create(t.Context(), n.configMap("a", "uploads", pipelineLabels()), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	calls := n.watch(t)
	if diff := cmp.Diff(settings{"a": {"bucket": "uploads"}}, receive(t, "the settings", calls)); diff != "" {
		t.Fatalf("settings differ (-want +got):\n%s", diff)
	}
	var leading atomic.Int32
	leader := n.stand(t, "leader", &leading)
	term := receive(t, "a leader", leader.leads)

	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if size, err := f.Observe(t.Context()); err == nil {
		t.Errorf("without an API server the size is %+v, want an error", size)
	}
	if err := f.Resize(t.Context(), 3, 0); err == nil {
		t.Error("without an API server a resize succeeds")
	}
	receive(t, "the leader to step down", term.Done())
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitSize(t, f, want)
	receive(t, "the leader to lead again", leader.leads)
	if _, err := configs.Create(t.Context(), n.configMap("b", "uploads", pipelineLabels()), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The very next call: nothing was taken for an empty set meanwhile.
	if diff := cmp.Diff(settings{"a": {"bucket": "uploads"}, "b": {"bucket": "uploads"}},
		receive(t, "the settings after the outage", calls)); diff != "" {
		t.Errorf("settings differ (-want +got):\n%s", diff)
	}
	resize(t, f, 3, 4)
	n.waitPods(t, 4) // the controller-manager is back as well
	leader.end(t)
}
