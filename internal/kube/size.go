package kube

import (
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"tidemill/internal/scale"
)

// sizeOf adds up the Jobs of one pipeline, of which there is normally one that
// wants workers at all. Everything is as the Job controller sees it, which is
// also what it deletes by:
//
//   - Wanted is .spec.parallelism.
//   - Ready is .status.ready.
//   - Pending is what .status.active lacks to Wanted: pods not created yet.
//   - Other is active but not ready. A Job's status does not tell a pod that
//     waits for a node or starts from one that runs and is barred, so all are here.
//
// Pods that are being deleted are in none of them. A Job that has ended, or is
// being deleted, counts nothing: it will never run a pod again.
func sizeOf(jobs []batchv1.Job) scale.Size {
	var size scale.Size
	for i := range jobs {
		if !runs(&jobs[i]) {
			continue
		}
		wanted, ready, active := counts(&jobs[i])
		size.Wanted += wanted
		size.Ready += ready
		size.Pending += max(0, wanted-active)
		size.Other += max(0, active-ready)
	}
	return size
}

// change is one Job's new parallelism.
type change struct {
	job      *batchv1.Job
	from, to int
}

// planResize says which Jobs to patch so that the fleet goes from from workers
// to n. It returns none where nothing has to change, and for a fleet at zero,
// which grows by its PodTemplate's Job instead.
//
// Growth goes to the newest Job. Going down, what is not ready goes first,
// whichever Job has it: within a Job the controller sees to that, and between
// Jobs this does.
func planResize(jobs []batchv1.Job, from, n int) ([]change, error) {
	if n < 0 || n > completions {
		return nil, fmt.Errorf("%d workers asked for; a fleet has 0 to %d", n, completions)
	}
	if wanted := sizeOf(jobs).Wanted; wanted != from {
		return nil, fmt.Errorf("the fleet wants %d workers and not %d any more; observe it again", wanted, from)
	}
	changes := wanting(jobs)
	if n >= from {
		if len(changes) > 0 {
			changes[len(changes)-1].to += n - from
		}
	} else {
		left := from - n
		for i := range changes {
			_, ready, _ := counts(changes[i].job)
			left -= changes[i].lower(min(left, max(0, changes[i].from-ready)))
		}
		for i := range changes {
			left -= changes[i].lower(min(left, changes[i].to))
		}
	}
	return slices.DeleteFunc(changes, func(c change) bool { return c.to == c.from }), nil
}

func (c *change) lower(by int) int {
	c.to -= by
	return by
}

// wanting lists the Jobs that want any workers, oldest first, each unchanged.
func wanting(jobs []batchv1.Job) []change {
	var all []change
	for i := range jobs {
		if wanted, _, _ := counts(&jobs[i]); wanted > 0 && runs(&jobs[i]) {
			all = append(all, change{job: &jobs[i], from: wanted, to: wanted})
		}
	}
	slices.SortFunc(all, func(a, b change) int {
		if c := a.job.CreationTimestamp.Compare(b.job.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.job.Name, b.job.Name)
	})
	return all
}

// counts are a Job's parallelism, ready pods, and pods that are neither
// finished nor being deleted.
func counts(job *batchv1.Job) (wanted, ready, active int) {
	wanted = 1 // what Kubernetes makes of none
	if p := job.Spec.Parallelism; p != nil {
		wanted = int(*p)
	}
	if r := job.Status.Ready; r != nil {
		ready = int(*r)
	}
	return wanted, ready, int(job.Status.Active)
}

// runs tells whether the Job can still run pods.
func runs(job *batchv1.Job) bool {
	if job.DeletionTimestamp != nil {
		return false
	}
	for _, c := range job.Status.Conditions {
		switch c.Type {
		case batchv1.JobComplete, batchv1.JobFailed, batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget:
			if c.Status == corev1.ConditionTrue {
				return false
			}
		}
	}
	return true
}

// idle tells whether the Job wants nothing and has nothing left.
func idle(job *batchv1.Job) bool {
	if !runs(job) {
		return job.DeletionTimestamp == nil
	}
	wanted, _, active := counts(job)
	terminating := job.Status.Terminating
	return wanted == 0 && active == 0 && (terminating == nil || *terminating == 0)
}

// spent tells whether the Job is to be replaced although its template is right.
func spent(job *batchv1.Job) bool {
	return !runs(job) || job.Status.Succeeded >= spentIndexes
}
