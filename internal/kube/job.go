package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The labels of everything that belongs to Tidemill, and of a fleet's Jobs and
// pods.
const (
	LabelPartOf    = "app.kubernetes.io/part-of"
	LabelComponent = "app.kubernetes.io/component"
	LabelPipeline  = "tidemill/pipeline" // the pipeline's name
	LabelTemplate  = "tidemill/template" // the hash of the pod template

	PartOf            = "tidemill"
	ComponentWorker   = "worker"
	ComponentPipeline = "pipeline"
)

// WorkerContainer is the name of the container in a PodTemplate that runs the
// worker. Whatever else is in the pod is the author's business.
const WorkerContainer = "worker"

const (
	// completions is the most that an Indexed Job takes at any parallelism.
	completions = 100_000
	// A worker that exits 0 uses up its index. A Job is replaced, at zero, long
	// before it could run out of them.
	spentIndexes = completions / 2
	// neverGiveUp is the largest backoffLimitPerIndex there is.
	neverGiveUp = 1<<31 - 1

	hashDigits      = 10
	maxPipelineName = 40 // with hash, index and pod suffix the names stay below 63
)

// buildJob makes the Job of a pipeline for its PodTemplate, at parallelism 0.
// An error says what the author has to change in the PodTemplate.
func buildJob(pipeline string, from *corev1.PodTemplate) (*batchv1.Job, error) {
	if wrong := validation.IsDNS1123Label(pipeline); len(wrong) > 0 || len(pipeline) > maxPipelineName {
		return nil, fmt.Errorf("pipeline name %q can't name a Job: it must be lower-case letters, digits and '-', "+
			"at most %d characters", pipeline, maxPipelineName)
	}
	template := corev1.PodTemplateSpec{Spec: *from.Template.Spec.DeepCopy()}
	template.Labels = with(from.Template.Labels, workerLabels(pipeline))
	template.Annotations = maps.Clone(from.Template.Annotations)
	if err := checkPod(&template.Spec); err != nil {
		return nil, fmt.Errorf("PodTemplate %s/%s: %w", from.Namespace, from.Name, err)
	}
	// A Job must say it, and only OnFailure restarts a crashed worker in place
	// instead of failing its pod.
	template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure

	hash, err := hashOf(&template)
	if err != nil {
		return nil, fmt.Errorf("PodTemplate %s/%s: %w", from.Namespace, from.Name, err)
	}
	labels := with(workerLabels(pipeline), map[string]string{LabelTemplate: hash})
	template.Labels = with(template.Labels, labels)
	return &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		// No owner: deleting the PodTemplate must not take busy workers along.
		ObjectMeta: metav1.ObjectMeta{
			Name: pipeline + "-" + hash, Namespace: from.Namespace, Labels: labels,
		},
		Spec: batchv1.JobSpec{
			Parallelism:          new(int32(0)),
			CompletionMode:       new(batchv1.IndexedCompletion),
			Completions:          new(int32(completions)),
			BackoffLimitPerIndex: new(int32(neverGiveUp)),
			Template:             template,
		},
	}, nil
}

func checkPod(pod *corev1.PodSpec) error {
	// The API server fills in Always where a PodTemplate says nothing, so one
	// can't be told from the other.
	if p := pod.RestartPolicy; p != "" && p != corev1.RestartPolicyOnFailure {
		return fmt.Errorf("template.spec.restartPolicy is %s (Always is also what Kubernetes makes of none at all); "+
			"workers need \"restartPolicy: OnFailure\"", p)
	}
	names := make([]string, 0, len(pod.Containers))
	for i := range pod.Containers {
		if pod.Containers[i].Name == WorkerContainer {
			return nil
		}
		names = append(names, pod.Containers[i].Name)
	}
	return fmt.Errorf("template.spec.containers has no container named %q, only %q; "+
		"name the one that runs the worker so", WorkerContainer, names)
}

// hashOf identifies a pod template. It is the same for the same template, as
// the API server stores it; defaults that a new Kubernetes release adds count as
// a change.
func hashOf(template *corev1.PodTemplateSpec) (string, error) {
	text, err := json.Marshal(template)
	if err != nil {
		return "", fmt.Errorf("hashing the pod template: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])[:hashDigits], nil
}

func workerLabels(pipeline string) map[string]string {
	return map[string]string{
		LabelPartOf: PartOf, LabelComponent: ComponentWorker, LabelPipeline: pipeline,
	}
}

// with is base and over in a new map; over wins.
func with(base, over map[string]string) map[string]string {
	all := make(map[string]string, len(base)+len(over))
	maps.Copy(all, base)
	maps.Copy(all, over)
	return all
}
