// Package kube is Tidemill's Kubernetes side: fleets of workers as Jobs, the
// pipelines' ConfigMaps, leader election, and Events. Nothing else in the
// module talks to a Kubernetes API server.
//
// # Fleets
//
// The workers of a pipeline are the pods of an Indexed Job that has far more
// completions than it will ever use, so that the Job controller does nothing
// but keep .spec.parallelism pods running: a lost pod is replaced at once, and
// a lower parallelism takes pending pods and pods that are not ready before any
// other. A Job's pod template can't be changed, so the Job's name carries a
// hash of it: the same PodTemplate is always the same Job, and creating it twice
// fails instead of doubling the fleet.
//
// # A changed PodTemplate
//
// It takes effect when the fleet next grows from zero: a new Job is made from
// it, and the old one is deleted by the first resize that finds it without pods.
// Until then the fleet keeps growing and shrinking with the template it was
// started with, and no running worker is replaced. A pipeline that never goes to
// zero therefore keeps its old template until it is taken to zero by hand.
//
// # What a read means
//
// Every read asks the API server; nothing is answered from a cache that may be
// stale. A failed read is an error, and never a fleet of zero workers.
package kube
