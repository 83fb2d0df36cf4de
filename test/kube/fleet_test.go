//go:build kube

package kube_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tidemill/internal/kube"
	"tidemill/internal/scale"
)

const pipeline = "thumbnails"

// podTemplate is what an author writes; edit may spoil it.
func (n *namespace) podTemplate(t *testing.T, edit func(*corev1.PodTemplate)) *corev1.PodTemplate {
	t.Helper()
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: pipeline, Namespace: n.name},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{
				Labels:      map[string]string{"team": "media"},
				Annotations: map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
			},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyOnFailure,
				Containers:    []corev1.Container{{Name: "worker", Image: "example.com/thumbnails:1"}},
			},
		},
	}
	if edit != nil {
		edit(template)
	}
	stored, err := n.admin.CoreV1().PodTemplates(n.name).Create(t.Context(), template, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func (n *namespace) jobs(t *testing.T) []batchv1.Job {
	t.Helper()
	list, err := n.admin.BatchV1().Jobs(n.name).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// pods are those that are not being deleted.
func (n *namespace) pods(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := n.admin.CoreV1().Pods(n.name).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var live []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			live = append(live, p)
		}
	}
	return live
}

func resize(t *testing.T, f *kube.Fleet, from, n int) {
	t.Helper()
	if err := f.Resize(t.Context(), from, n); err != nil {
		t.Fatalf("Resize(%d, %d): %v", from, n, err)
	}
}

func waitSize(t *testing.T, f *kube.Fleet, want scale.Size) {
	t.Helper()
	eventually(t, fmt.Sprintf("size %+v", want), func() error {
		got, err := f.Observe(t.Context())
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("size is %+v", got)
		}
		return nil
	})
}

func (n *namespace) waitPods(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d pods", want), func() error {
		if got := len(n.pods(t)); got != want {
			return fmt.Errorf("%d pods", got)
		}
		return nil
	})
}

func testFleet(t *testing.T, n *namespace) {
	n.podTemplate(t, nil)
	f := kube.NewFleet(n.scaler, n.name, pipeline)
	waitSize(t, f, scale.Size{})
	resize(t, f, 0, 0)
	if jobs := n.jobs(t); len(jobs) != 0 {
		t.Fatalf("a fleet that stays at zero has %d Jobs", len(jobs))
	}

	resize(t, f, 0, 5)
	jobs := n.jobs(t)
	if len(jobs) != 1 {
		t.Fatalf("%d Jobs after the first Resize, want 1", len(jobs))
	}
	checkJob(t, &jobs[0])
	n.waitPods(t, 5)
	waitSize(t, f, scale.Size{Wanted: 5, Other: 5}) // without nodes none gets ready
	for _, p := range n.pods(t) {
		if p.Labels[kube.LabelPipeline] != pipeline || p.Labels["team"] != "media" {
			t.Errorf("pod %s has the labels %v", p.Name, p.Labels)
		}
	}

	resize(t, f, 5, 2)
	n.waitPods(t, 2)
	waitSize(t, f, scale.Size{Wanted: 2, Other: 2})
	before := n.jobs(t)[0]
	for _, to := range []int{9, 0, 2} {
		if err := f.Resize(t.Context(), 5, to); err == nil || !strings.Contains(err.Error(), "wants 2 workers and not 5") {
			t.Errorf("Resize(5, %d) of a fleet of 2 gives the error %v", to, err)
		}
	}
	if after := n.jobs(t)[0]; after.Generation != before.Generation || *after.Spec.Parallelism != 2 {
		t.Errorf("refused resizes changed the Job: parallelism %d, generation %d to %d",
			*after.Spec.Parallelism, before.Generation, after.Generation)
	}

	resize(t, f, 2, 0)
	n.waitPods(t, 0)
	waitSize(t, f, scale.Size{})
	resize(t, f, 0, 1) // the same Job again
	n.waitPods(t, 1)
	if again := n.jobs(t); len(again) != 1 || again[0].UID != jobs[0].UID {
		t.Errorf("from zero with the same PodTemplate the fleet has the Jobs %v, want the first one alone", again)
	}
}

// checkJob: the API server took every field as asked.
func checkJob(t *testing.T, job *batchv1.Job) {
	t.Helper()
	type asked struct {
		Parallelism, Completions, PerIndex int32
		Mode                               batchv1.CompletionMode
		Restart                            corev1.RestartPolicy
		Owners                             int
		Labels                             map[string]string
		Annotations                        map[string]string
	}
	got := asked{
		*job.Spec.Parallelism, *job.Spec.Completions, *job.Spec.BackoffLimitPerIndex, *job.Spec.CompletionMode,
		job.Spec.Template.Spec.RestartPolicy, len(job.OwnerReferences), job.Labels, job.Spec.Template.Annotations,
	}
	hash := strings.TrimPrefix(job.Name, pipeline+"-")
	want := asked{
		5, 100_000, 2147483647, batchv1.IndexedCompletion, corev1.RestartPolicyOnFailure, 0,
		map[string]string{
			"app.kubernetes.io/part-of": "tidemill", "app.kubernetes.io/component": "worker",
			"tidemill/pipeline": pipeline, "tidemill/template": hash,
		},
		map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Job %s differs (-want +got):\n%s", job.Name, diff)
	}
}

// Scaling down must take the workers that are not ready, and no other.
func testReadyStay(t *testing.T, n *namespace) {
	n.podTemplate(t, nil)
	f := kube.NewFleet(n.scaler, n.name, pipeline)
	resize(t, f, 0, 4)
	n.waitPods(t, 4)
	pods := n.pods(t)
	ready := map[string]bool{pods[1].Name: true, pods[2].Name: true}
	for _, p := range pods {
		p.Status.Phase = corev1.PodRunning // as the kubelet of a node would say
		status := corev1.ConditionFalse
		if ready[p.Name] {
			status = corev1.ConditionTrue
		}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
		if _, err := n.admin.CoreV1().Pods(n.name).UpdateStatus(t.Context(), &p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	waitSize(t, f, scale.Size{Wanted: 4, Ready: 2, Other: 2})
	resize(t, f, 4, 2)
	n.waitPods(t, 2)
	for _, p := range n.pods(t) {
		if !ready[p.Name] {
			t.Errorf("pod %s is left, which was not ready; ready were %v", p.Name, ready)
		}
	}
	waitSize(t, f, scale.Size{Wanted: 2, Ready: 2})
}

// Whoever resizes last on old information must be refused by the API server
// itself, because several read the same size before any of them writes.
func testConcurrentResize(t *testing.T, n *namespace) {
	n.podTemplate(t, nil)
	const writers = 8
	for _, from := range []int{0, 1} { // by creating the Job, and by patching it
		var (
			wg   sync.WaitGroup
			won  [writers]error
			gate = make(chan struct{})
		)
		for i := range writers {
			f := kube.NewFleet(n.scaler, n.name, pipeline)
			wg.Go(func() {
				<-gate
				won[i] = f.Resize(t.Context(), from, 10+i)
			})
		}
		close(gate)
		wg.Wait()
		winner := -1
		for i, err := range won {
			if err == nil && winner >= 0 {
				t.Errorf("from %d, resizes to %d and to %d both succeeded", from, 10+winner, 10+i)
			}
			if err == nil {
				winner = i
			}
		}
		if winner < 0 {
			t.Fatalf("from %d, no resize succeeded: %v", from, won)
		}
		f := kube.NewFleet(n.scaler, n.name, pipeline)
		if size, err := f.Observe(t.Context()); err != nil || size.Wanted != 10+winner {
			t.Errorf("from %d, the fleet wants %d workers (error: %v), want the winner's %d", from, size.Wanted, err, 10+winner)
		}
		resize(t, f, 10+winner, 1)
	}
}

func testNewTemplate(t *testing.T, n *namespace) {
	template := n.podTemplate(t, nil)
	f := kube.NewFleet(n.scaler, n.name, pipeline)
	resize(t, f, 0, 2)
	old := n.jobs(t)[0]
	template.Template.Spec.Containers[0].Image = "example.com/thumbnails:2"
	if _, err := n.admin.CoreV1().PodTemplates(n.name).Update(t.Context(), template, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	resize(t, f, 2, 3)
	if jobs := n.jobs(t); len(jobs) != 1 || jobs[0].UID != old.UID {
		t.Fatalf("a fleet above zero got other Jobs: %v", jobs)
	}
	resize(t, f, 3, 0)
	n.waitPods(t, 0)
	waitSize(t, f, scale.Size{})
	resize(t, f, 0, 1)
	n.waitPods(t, 1)
	current := n.pods(t)[0]
	if got := current.Spec.Containers[0].Image; got != "example.com/thumbnails:2" {
		t.Errorf("after zero a worker runs %s, want the image of the new PodTemplate", got)
	}
	eventually(t, "the old Job's pods to be counted as gone", func() error {
		for _, job := range n.jobs(t) {
			if s := job.Status; job.Name == old.Name && (s.Active > 0 || s.Terminating != nil && *s.Terminating > 0) {
				return fmt.Errorf("status is %+v", s)
			}
		}
		return nil
	})
	resize(t, f, 1, 2) // sweeps
	jobs := n.jobs(t)
	if len(jobs) != 1 || jobs[0].Name == old.Name || *jobs[0].Spec.Parallelism != 2 {
		t.Errorf("the fleet has the Jobs %v, want one of 2 workers that is not %s", jobs, old.Name)
	}
}

func testRefused(t *testing.T, n *namespace) {
	f := kube.NewFleet(n.scaler, n.name, pipeline)
	if err := f.Resize(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "no PodTemplate "+n.name+"/"+pipeline) {
		t.Errorf("without a PodTemplate Resize gives the error %v", err)
	}
	for _, test := range []struct {
		name  string
		spoil func(*corev1.PodTemplate)
		want  string
	}{
		{"no worker", func(p *corev1.PodTemplate) { p.Template.Spec.Containers[0].Name = "main" }, `no container named "worker", only ["main"]`},
		{"restartPolicy Always", func(p *corev1.PodTemplate) { p.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways }, "restartPolicy is Always"},
		{"no restartPolicy", func(p *corev1.PodTemplate) { p.Template.Spec.RestartPolicy = "" }, `"restartPolicy: OnFailure"`},
	} {
		n.podTemplate(t, test.spoil)
		if err := f.Resize(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Resize gives the error %v, want one with %q", test.name, err, test.want)
		}
		if err := n.admin.CoreV1().PodTemplates(n.name).Delete(t.Context(), pipeline, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if jobs := n.jobs(t); len(jobs) != 0 {
		t.Errorf("refused PodTemplates made %d Jobs", len(jobs))
	}
}

// A Job that someone ended is no capacity, and must not block its successor of
// the same name.
func testEndedJob(t *testing.T, n *namespace) {
	n.podTemplate(t, nil)
	f := kube.NewFleet(n.scaler, n.name, pipeline)
	resize(t, f, 0, 3)
	n.waitPods(t, 3)
	ended := n.jobs(t)[0]
	deadline := []byte(`{"spec":{"activeDeadlineSeconds":1}}`)
	if err := patchJob(t, n, ended.Name, deadline); err != nil {
		t.Fatal(err)
	}
	waitSize(t, f, scale.Size{})
	resize(t, f, 0, 2)
	jobs := n.jobs(t)
	if len(jobs) != 1 || jobs[0].Name != ended.Name || jobs[0].UID == ended.UID {
		t.Errorf("after the Job ended the fleet has %v, want a new Job %s alone", jobs, ended.Name)
	}
	waitSize(t, f, scale.Size{Wanted: 2, Other: 2})
}
