package kube

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// readTemplate reads a PodTemplate, and changes it by edit.
func readTemplate(t *testing.T, edit func(*corev1.PodTemplate)) *corev1.PodTemplate {
	t.Helper()
	text, err := os.ReadFile("testdata/podtemplate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var template corev1.PodTemplate
	if err := yaml.UnmarshalStrict(text, &template); err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(&template)
	}
	return &template
}

func TestBuildJobGolden(t *testing.T) {
	t.Parallel()
	const golden = "testdata/job.golden.yaml"
	template := readTemplate(t, nil)
	before := template.DeepCopy()
	job, err := buildJob("thumbnails", template)
	if err != nil {
		t.Fatal(err)
	}
	got, err := yaml.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); run with UPDATE_GOLDEN=1 if this is meant:\n%s", golden, diff)
	}
	if diff := cmp.Diff(before, template); diff != "" {
		t.Errorf("buildJob changed its argument:\n%s", diff)
	}
}

// The Job's name is the same for the same pod template and no other.
func TestJobNames(t *testing.T) {
	t.Parallel()
	name := func(edit func(*corev1.PodTemplate)) string {
		t.Helper()
		job, err := buildJob("thumbnails", readTemplate(t, edit))
		if err != nil {
			t.Fatal(err)
		}
		return job.Name
	}
	base := name(nil)
	for what, test := range map[string]struct {
		edit func(*corev1.PodTemplate)
		same bool
	}{
		"nothing": {nil, true},
		"what the API server sets": {func(p *corev1.PodTemplate) {
			p.UID, p.ResourceVersion, p.Generation = "1", "2", 3
			p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		}, true},
		"its own labels":       {func(p *corev1.PodTemplate) { p.Labels["owner"] = "b" }, true},
		"OnFailure by default": {func(p *corev1.PodTemplate) { p.Template.Spec.RestartPolicy = "" }, true},
		"a pod label":          {func(p *corev1.PodTemplate) { p.Template.Labels["team"] = "b" }, false},
		"an annotation":        {func(p *corev1.PodTemplate) { p.Template.Annotations["a"] = "b" }, false},
		"the image":            {func(p *corev1.PodTemplate) { p.Template.Spec.Containers[0].Image = "b" }, false},
	} {
		if got := name(test.edit); (got == base) != test.same {
			t.Errorf("%s changed: the name is %s, and was %s; want them the same: %t", what, got, base, test.same)
		}
	}
}

// The longest name still leaves room for what Kubernetes appends to it.
func TestLongestName(t *testing.T) {
	t.Parallel()
	job, err := buildJob(strings.Repeat("p", maxPipelineName), readTemplate(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if pod := job.Name + "-99999-abcde"; len(pod) > 63 {
		t.Errorf("pod name %s has %d characters, at most 63 are allowed", pod, len(pod))
	}
}

func TestBuildJobRefuses(t *testing.T) {
	t.Parallel()
	restart := func(policy corev1.RestartPolicy) func(*corev1.PodTemplate) {
		return func(p *corev1.PodTemplate) { p.Template.Spec.RestartPolicy = policy }
	}
	for name, test := range map[string]struct {
		pipeline string
		edit     func(*corev1.PodTemplate)
		want     []string
	}{
		"Always": {"thumbnails", restart(corev1.RestartPolicyAlways), []string{
			"PodTemplate media/thumbnails", "restartPolicy is Always", `"restartPolicy: OnFailure"`,
		}},
		"Never": {"thumbnails", restart(corev1.RestartPolicyNever), []string{"restartPolicy is Never"}},
		"no worker container": {"thumbnails", func(p *corev1.PodTemplate) { p.Template.Spec.Containers[0].Name = "main" }, []string{
			"PodTemplate media/thumbnails", `no container named "worker", only ["main"]`,
		}},
		"worker is only an init container": {"thumbnails", func(p *corev1.PodTemplate) {
			p.Template.Spec.InitContainers, p.Template.Spec.Containers = p.Template.Spec.Containers, nil
		}, []string{`no container named "worker"`}},
		"long name":  {strings.Repeat("p", maxPipelineName+1), nil, []string{"at most 40 characters"}},
		"wrong name": {"Thumb_nails", nil, []string{`"Thumb_nails"`, "lower-case"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job, err := buildJob(test.pipeline, readTemplate(t, test.edit))
			if err == nil {
				t.Fatalf("no error, but Job %s", job.Name)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q, want it to say %q", err, want)
				}
			}
		})
	}
}
