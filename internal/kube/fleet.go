package kube

import (
	"context"
	"encoding/json"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"tidemill/internal/scale"
)

// Fleet is the workers of one pipeline as the pods of a Job, which is made from
// the PodTemplate that has the pipeline's name. It is safe for concurrent use,
// and several processes may hold one for the same pipeline: every write names
// the state that it expects, and is refused where it finds another.
type Fleet struct {
	client    kubernetes.Interface
	namespace string
	pipeline  string
}

var _ scale.Fleet = (*Fleet)(nil)

// NewFleet is the fleet of a pipeline in a namespace. It makes no call.
func NewFleet(client kubernetes.Interface, namespace, pipeline string) *Fleet {
	return &Fleet{client: client, namespace: namespace, pipeline: pipeline}
}

// Observe implements scale.Fleet in one call to the API server. A pipeline that
// has no Job yet is a fleet of zero.
func (f *Fleet) Observe(ctx context.Context) (scale.Size, error) {
	jobs, err := f.jobs(ctx)
	if err != nil {
		return scale.Size{}, err
	}
	return sizeOf(jobs), nil
}

// Resize implements scale.Fleet. n is at most 100,000. A fleet that grows from
// zero gets its Job from the PodTemplate as it is then; an error names the
// PodTemplate where that is missing or can't be used. In all other cases it is
// one patch, which the API server refuses if parallelism is not what it was.
func (f *Fleet) Resize(ctx context.Context, from, n int) error {
	jobs, err := f.jobs(ctx)
	if err != nil {
		return err
	}
	changes, err := planResize(jobs, from, n)
	if err != nil {
		return fmt.Errorf("resizing the fleet of pipeline %s/%s: %w", f.namespace, f.pipeline, err)
	}
	if from == 0 && n > 0 {
		return f.start(ctx, jobs, n)
	}
	for _, c := range changes {
		if err := f.patch(ctx, c); err != nil {
			return err
		}
	}
	if from > 0 {
		return f.sweep(ctx, jobs)
	}
	return nil
}

// sweep removes what earlier PodTemplates left, once nothing runs on it any more.
// It is for a fleet that has another Job to work with.
func (f *Fleet) sweep(ctx context.Context, jobs []batchv1.Job) error {
	for i := range jobs {
		if !idle(&jobs[i]) {
			continue
		}
		// One that changed since it was read is left for the next time.
		if err := f.remove(ctx, &jobs[i]); err != nil && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

// start takes a fleet that wants nothing to n workers of the PodTemplate as it
// is now. Jobs of earlier ones are left for the next resize to sweep: their last
// pods may still be ending, and a wake-up shall not wait.
func (f *Fleet) start(ctx context.Context, jobs []batchv1.Job, n int) error {
	job, err := f.template(ctx)
	if err != nil {
		return err
	}
	for i := range jobs {
		if jobs[i].Name != job.Name {
			continue
		}
		if !spent(&jobs[i]) {
			return f.patch(ctx, change{job: &jobs[i], from: 0, to: n})
		}
		if err := f.remove(ctx, &jobs[i]); err != nil {
			return err
		}
	}
	*job.Spec.Parallelism = int32(n)
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	_, err = f.client.BatchV1().Jobs(f.namespace).Create(ctx, job, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil {
		return fmt.Errorf("creating Job %s/%s with %d workers: %w", f.namespace, job.Name, n, err)
	}
	return nil
}

// template is the Job, at zero, that the pipeline's PodTemplate asks for.
func (f *Fleet) template(ctx context.Context) (*batchv1.Job, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	template, err := f.client.CoreV1().PodTemplates(f.namespace).Get(ctx, f.pipeline, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("pipeline %s has no PodTemplate %s/%s, which says what its workers run; create it: %w",
			f.pipeline, f.namespace, f.pipeline, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading PodTemplate %s/%s: %w", f.namespace, f.pipeline, err)
	}
	return buildJob(f.pipeline, template)
}

func (f *Fleet) jobs(ctx context.Context) ([]batchv1.Job, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	list, err := f.client.BatchV1().Jobs(f.namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.SelectorFromSet(workerLabels(f.pipeline)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("reading the Jobs of pipeline %s/%s: %w", f.namespace, f.pipeline, err)
	}
	return list.Items, nil
}

func (f *Fleet) patch(ctx context.Context, c change) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	body, err := json.Marshal([]operation{
		{"test", "/metadata/uid", c.job.UID}, // a Job of the same name may have replaced it
		{"test", "/spec/parallelism", c.from},
		{"replace", "/spec/parallelism", c.to},
	})
	if err != nil {
		return fmt.Errorf("encoding a patch: %w", err)
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	_, err = f.client.BatchV1().Jobs(f.namespace).Patch(ctx, c.job.Name, types.JSONPatchType, body,
		metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil {
		return fmt.Errorf("patching Job %s/%s from %d to %d workers, which is refused if it changed meanwhile: %w",
			f.namespace, c.job.Name, c.from, c.to, err)
	}
	return nil
}

// remove deletes a Job and leaves its pods, if any, to the garbage collector. It
// fails if the Job changed since it was read, for it may want workers again.
func (f *Fleet) remove(ctx context.Context, job *batchv1.Job) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	err := f.client.BatchV1().Jobs(f.namespace).Delete(ctx, job.Name, metav1.DeleteOptions{
		PropagationPolicy: new(metav1.DeletePropagationBackground),
		Preconditions:     &metav1.Preconditions{UID: &job.UID, ResourceVersion: &job.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting Job %s/%s, which is not needed any more: %w", f.namespace, job.Name, err)
	}
	return nil
}
