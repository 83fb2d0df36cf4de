//go:build kube

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
	"tidemill/internal/testutil/proctest"
	"tidemill/internal/testutil/redistest"
)

// testScaler runs the scaler's own binary: settings from a ConfigMap reach Redis,
// waiting items make workers, and idle workers go without one being removed that
// holds an item. There is no kubelet: the test says in its place which pods are
// ready, and leases in the workers' place.
func testScaler(t *testing.T, n *namespace) {
	redis := redistest.Start(t)
	server, err := redisq.Open(t.Context(), redisq.Options{URL: redis.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	q := server.Queue(pipeline)

	n.podTemplate(t, nil)
	settings := n.configMap(pipeline, "uploaded", pipelineLabels())
	settings.Data["items-per-worker"] = "2"
	settings.Data["max-workers"] = "4"
	settings.Data["scale-down-window"] = "1s"
	settings.Data["scale-to-zero-after"] = "1s"
	if _, err := n.admin.CoreV1().ConfigMaps(n.name).Create(t.Context(), settings, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	startScaler(t, n, redis.URL)
	eventually(t, "the settings to be in force", func() error {
		s, err := server.Settings(t.Context())
		if err == nil && s.Pipelines[pipeline]["max-workers"] != "4" {
			err = fmt.Errorf("settings are %v", s.Pipelines)
		}
		return err
	})

	// 6 items make 3 workers; 20 would make 10, and are held to the most allowed.
	enqueue(t, q, 0, 6)
	n.waitParallelism(t, 3)
	enqueue(t, q, 6, 20)
	n.waitParallelism(t, 4)

	// A bad edit changes nothing, and is told.
	settings.Data["max-workers"] = "many"
	if _, err := n.admin.CoreV1().ConfigMaps(n.name).Update(t.Context(), settings, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a Warning Event that names key and value", func() error {
		events, err := n.admin.CoreV1().Events(n.name).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Type == corev1.EventTypeWarning && e.InvolvedObject.Kind == "ConfigMap" &&
				strings.Contains(e.Message, `max-workers: "many" is not a whole number from 1 to 10000`) {
				return nil
			}
		}
		return fmt.Errorf("%d events, none of them it", len(events.Items))
	})
	if s, err := server.Settings(t.Context()); err != nil || s.Pipelines[pipeline]["max-workers"] != "4" {
		t.Errorf("settings in force are %v (%v), want the last good ones", s.Pipelines, err)
	}

	// One worker holds an item; the others find nothing left.
	n.waitPods(t, 4)
	workers := podNames(n.pods(t))
	holder := workers[2]
	held := drain(t, q, holder)
	stop := n.serve(t, q, holder)
	n.waitParallelism(t, 1)
	n.waitPods(t, 1)
	if left := podNames(n.pods(t)); !slices.Equal(left, []string{holder}) {
		t.Fatalf("%v is left, want the worker that holds an item, %s", left, holder)
	}

	// It finishes, and everything goes.
	if _, err := q.Turn(t.Context(), queue.Turn{Worker: holder, Completions: []queue.Completion{held}}); err != nil {
		t.Fatal(err)
	}
	stop()
	stop = n.serve(t, q, "")
	n.waitParallelism(t, 0)
	n.waitPods(t, 0)
	stop()
}

// startScaler builds the scaler and runs it with the ServiceAccount's token.
func startScaler(t *testing.T, n *namespace, redisURL string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "scaler")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/scaler").CombinedOutput(); err != nil {
		t.Fatalf("building the scaler: %v\n%s", err, out)
	}
	p, err := proctest.Start(exec.Command(binary, "--kubeconfig", n.kubeconfig, "--redis-url", redisURL, "--listen", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(10 * time.Second); err != nil {
			t.Errorf("stopping the scaler: %v", err)
		}
		if t.Failed() {
			t.Logf("the scaler's log:\n%s", p.Output())
		}
	})
}

func enqueue(t *testing.T, q queue.Producer, from, to int) {
	t.Helper()
	var items []item.Item
	for i := from; i < to; i++ {
		items = append(items, item.Item{Object: item.Object{Bucket: "uploaded", Name: fmt.Sprint(i), Generation: 1}})
	}
	if _, err := q.Enqueue(t.Context(), items); err != nil {
		t.Fatal(err)
	}
}

// drain has a worker finish all items but the last, which it keeps.
func drain(t *testing.T, q queue.Consumer, worker string) queue.Completion {
	t.Helper()
	var held []queue.Completion
	for {
		turned, err := q.Turn(t.Context(), queue.Turn{Worker: worker, Want: 1, Lease: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if len(turned.Leases) == 0 {
			break
		}
		l := turned.Leases[0]
		held = append(held, queue.Completion{ID: l.Item.ID(), Token: l.Token, Kind: queue.Done})
	}
	last := len(held) - 1
	if _, err := q.Turn(t.Context(), queue.Turn{Worker: worker, Completions: held[:last]}); err != nil {
		t.Fatal(err)
	}
	return held[last]
}

// serve stands in for kubelet and workers until stop is called: every worker but
// the busy one asks for work, and is ready unless it is barred.
func (n *namespace) serve(t *testing.T, q *redisq.Queue, busy string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, p := range n.pods(t) {
				ready := true
				if p.Name != busy {
					turned, err := q.Turn(ctx, queue.Turn{Worker: p.Name, Want: 1, Lease: time.Minute})
					if err != nil && !errors.Is(err, context.Canceled) {
						t.Errorf("asking for work: %v", err)
					}
					ready = !turned.Barred
				}
				n.setReady(ctx, p, ready)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// setReady writes what a kubelet would, if it is news. A pod that is gone or has
// changed meanwhile is left for the next round.
func (n *namespace) setReady(ctx context.Context, p corev1.Pod, ready bool) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	if len(p.Status.Conditions) == 1 && p.Status.Conditions[0].Status == status {
		return
	}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	_, _ = n.admin.CoreV1().Pods(n.name).UpdateStatus(ctx, &p, metav1.UpdateOptions{}) // see above
}

func podNames(pods []corev1.Pod) []string {
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

func (n *namespace) waitParallelism(t *testing.T, want int32) {
	t.Helper()
	eventually(t, fmt.Sprintf("parallelism %d", want), func() error {
		jobs := n.jobs(t)
		if len(jobs) != 1 || *jobs[0].Spec.Parallelism != want {
			var now []int32
			for _, j := range jobs {
				now = append(now, *j.Spec.Parallelism)
			}
			return fmt.Errorf("the jobs' parallelism is %v", now)
		}
		return nil
	})
}
