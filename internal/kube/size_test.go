package kube

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tidemill/internal/scale"
)

// testJob is a Job as the API server has it; age orders several.
func testJob(name string, age time.Duration, wanted, active, ready int32) batchv1.Job {
	return batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name:              name,
			CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-age)),
		},
		Spec:   batchv1.JobSpec{Parallelism: &wanted},
		Status: batchv1.JobStatus{Active: active, Ready: &ready},
	}
}

func ended(job batchv1.Job, condition batchv1.JobConditionType, status corev1.ConditionStatus) batchv1.Job {
	job.Status.Conditions = []batchv1.JobCondition{{Type: condition, Status: status}}
	return job
}

func deleted(job batchv1.Job) batchv1.Job {
	job.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	return job
}

func TestSizeOf(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		jobs []batchv1.Job
		want scale.Size
	}{
		"no Job yet":               {nil, scale.Size{}},
		"just created":             {[]batchv1.Job{testJob("a", 0, 5, 0, 0)}, scale.Size{Wanted: 5, Pending: 5}},
		"some pods, one ready":     {[]batchv1.Job{testJob("a", 0, 5, 3, 1)}, scale.Size{Wanted: 5, Ready: 1, Pending: 2, Other: 2}},
		"all ready":                {[]batchv1.Job{testJob("a", 0, 5, 5, 5)}, scale.Size{Wanted: 5, Ready: 5}},
		"just lowered":             {[]batchv1.Job{testJob("a", 0, 2, 5, 2)}, scale.Size{Wanted: 2, Ready: 2, Other: 3}},
		"ready seen before active": {[]batchv1.Job{testJob("a", 0, 2, 1, 2)}, scale.Size{Wanted: 2, Ready: 2, Pending: 1}},
		"no parallelism, no status": {
			[]batchv1.Job{{}}, scale.Size{Wanted: 1, Pending: 1}, // Kubernetes takes none for 1
		},
		"two": {
			[]batchv1.Job{testJob("a", 1, 0, 2, 1), testJob("b", 0, 4, 3, 3)},
			scale.Size{Wanted: 4, Ready: 4, Pending: 1, Other: 1},
		},
		"ended or being deleted": {[]batchv1.Job{
			ended(testJob("a", 0, 5, 0, 0), batchv1.JobComplete, corev1.ConditionTrue),
			ended(testJob("b", 0, 5, 0, 0), batchv1.JobFailed, corev1.ConditionTrue),
			ended(testJob("c", 0, 5, 2, 2), batchv1.JobFailureTarget, corev1.ConditionTrue),
			deleted(testJob("d", 0, 5, 5, 5)),
		}, scale.Size{}},
		"a condition that is not true": {
			[]batchv1.Job{ended(testJob("a", 0, 5, 5, 5), batchv1.JobFailed, corev1.ConditionFalse)},
			scale.Size{Wanted: 5, Ready: 5},
		},
	} {
		if diff := cmp.Diff(test.want, sizeOf(test.jobs)); diff != "" {
			t.Errorf("%s: size differs (-want +got):\n%s", name, diff)
		}
	}
}

func TestPlanResize(t *testing.T) {
	t.Parallel()
	one := []batchv1.Job{testJob("a", 0, 5, 5, 3)}
	// An old and a new Job; both have one worker that is not ready.
	two := []batchv1.Job{testJob("new", 0, 4, 4, 3), testJob("old", time.Hour, 3, 3, 2)}
	for name, test := range map[string]struct {
		jobs    []batchv1.Job
		from, n int
		want    []string // "job: from to to"
		refused bool
	}{
		"up":                             {one, 5, 9, []string{"a: 5 to 9"}, false},
		"down":                           {one, 5, 1, []string{"a: 5 to 1"}, false},
		"to zero":                        {one, 5, 0, []string{"a: 5 to 0"}, false},
		"no change":                      {one, 5, 5, nil, false},
		"stale":                          {one, 4, 9, nil, true},
		"stale, although as asked":       {one, 4, 5, nil, true},
		"below zero":                     {one, 5, -1, nil, true},
		"more than a Job takes":          {one, 5, completions + 1, nil, true},
		"none yet":                       {nil, 0, 5, nil, false},
		"ended is zero":                  {[]batchv1.Job{ended(one[0], batchv1.JobFailed, corev1.ConditionTrue)}, 5, 6, nil, true},
		"two, up: the new one":           {two, 7, 9, []string{"new: 4 to 6"}, false},
		"two, down by one: old first":    {two, 7, 6, []string{"old: 3 to 2"}, false},
		"two, down by two: not ready":    {two, 7, 5, []string{"old: 3 to 2", "new: 4 to 3"}, false},
		"two, down by three: old goes":   {two, 7, 4, []string{"old: 3 to 1", "new: 4 to 3"}, false},
		"two, down to one":               {two, 7, 1, []string{"old: 3 to 0", "new: 4 to 1"}, false},
		"two, one of them at zero: grow": {[]batchv1.Job{testJob("new", 0, 0, 0, 0), testJob("old", 1, 2, 2, 2)}, 2, 3, []string{"old: 2 to 3"}, false},
	} {
		changes, err := planResize(test.jobs, test.from, test.n)
		if (err != nil) != test.refused {
			t.Errorf("%s: error %v, want one: %t", name, err, test.refused)
		}
		var got []string
		for _, c := range changes {
			got = append(got, fmt.Sprintf("%s: %d to %d", c.job.Name, c.from, c.to))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: changes differ (-want +got):\n%s", name, diff)
		}
	}
}

func TestIdleAndSpent(t *testing.T) {
	t.Parallel()
	terminating := testJob("a", 0, 0, 0, 0)
	terminating.Status.Terminating = new(int32(1))
	used := testJob("a", 0, 0, 0, 0)
	used.Status.Succeeded = spentIndexes
	for name, test := range map[string]struct {
		job         batchv1.Job
		idle, spent bool
	}{
		"at zero":            {testJob("a", 0, 0, 0, 0), true, false},
		"wants workers":      {testJob("a", 0, 1, 0, 0), false, false},
		"has workers":        {testJob("a", 0, 0, 1, 0), false, false},
		"has ending workers": {terminating, false, false},
		"used up":            {used, true, true},
		"failed":             {ended(testJob("a", 0, 3, 0, 0), batchv1.JobFailed, corev1.ConditionTrue), true, true},
		"being deleted":      {deleted(testJob("a", 0, 0, 0, 0)), false, true},
	} {
		if got := idle(&test.job); got != test.idle {
			t.Errorf("%s: idle is %t", name, got)
		}
		if got := spent(&test.job); got != test.spent {
			t.Errorf("%s: spent is %t", name, got)
		}
	}
}
