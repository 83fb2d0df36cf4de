package pipeline_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/pipeline"
	"tidemill/internal/policy"
)

// keys are the settings of a pipeline on bucket "in", changed by key and value.
func keys(pairs ...string) map[string]string {
	m := map[string]string{"bucket": "in-bucket"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	got, problems := pipeline.Parse("p", map[string]string{"bucket": "in-bucket"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := pipeline.Pipeline{
		Name: "p", Bucket: "in-bucket", Match: []string{"**"},
		Results: "gs://{bucket}/results/{object}", Failures: "gs://{bucket}/failures/{object}.json", IO: pipeline.Files,
		Scaling: policy.Settings{
			MaxWorkers: 100, ItemsPerWorker: 10, FixedWorkers: -1,
			ScaleDownWindow: 30 * time.Second, ScaleToZeroAfter: time.Minute,
		},
		LeaseDuration: time.Minute, ItemTimeout: time.Hour, MaxAttempts: 3, MaxDeliveries: 5,
		RetryBackoffMin: 10 * time.Second, RetryBackoffMax: 10 * time.Minute,
		PermanentExitCodes: []int{65}, MaxObjectSize: -1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

// Every key reaches its setting, at both ends of its range.
func TestEveryKeyIsTaken(t *testing.T) {
	t.Parallel()
	type p = pipeline.Pipeline
	cases := map[string]map[string]func(*p){
		"bucket":   {"a.b_c-1": func(p *p) { p.Bucket = "a.b_c-1" }},
		"match":    {" a/*.png , b/{c,d}/**,": func(p *p) { p.Match = []string{"a/*.png", "b/{c,d}/**"} }},
		"exclude":  {"**/.*": func(p *p) { p.Exclude = []string{"**/.*"} }, "": func(*p) {}},
		"results":  {"gs://out/{dir}/{base}": func(p *p) { p.Results = "gs://out/{dir}/{base}" }},
		"failures": {"gs://out/{object}": func(p *p) { p.Failures = "gs://out/{object}" }},
		"io":       {"stream": func(p *p) { p.IO = pipeline.Stream }, "files": func(*p) {}},
		"min-workers": {
			"0": func(*p) {}, "100": func(p *p) { p.Scaling.MinWorkers = 100 },
		},
		"max-workers": {
			"1": func(p *p) { p.Scaling.MaxWorkers = 1 }, "10000": func(p *p) { p.Scaling.MaxWorkers = 10_000 },
		},
		"items-per-worker": {
			"1": func(p *p) { p.Scaling.ItemsPerWorker = 1 }, "1000000": func(p *p) { p.Scaling.ItemsPerWorker = 1_000_000 },
		},
		"scale-down-window": {
			"0s": func(p *p) { p.Scaling.ScaleDownWindow = 0 }, "1h": func(p *p) { p.Scaling.ScaleDownWindow = time.Hour },
		},
		"scale-to-zero-after": {
			"0s": func(p *p) { p.Scaling.ScaleToZeroAfter = 0 }, "24h": func(p *p) { p.Scaling.ScaleToZeroAfter = 24 * time.Hour },
		},
		"freeze": {"true": func(p *p) { p.Scaling.Freeze = true }, "false": func(*p) {}},
		"fixed-workers": {
			"0": func(p *p) { p.Scaling.FixedWorkers = 0 }, "10000": func(p *p) { p.Scaling.FixedWorkers = 10_000 }, "none": func(*p) {},
		},
		"lease-duration": {
			"5s": func(p *p) { p.LeaseDuration = 5 * time.Second }, "1h": func(p *p) { p.LeaseDuration = time.Hour },
		},
		"item-timeout": {
			"1s": func(p *p) { p.ItemTimeout = time.Second }, "168h": func(p *p) { p.ItemTimeout = 168 * time.Hour },
			"1h30m": func(p *p) { p.ItemTimeout = 90 * time.Minute },
		},
		"max-attempts": {
			"1": func(p *p) { p.MaxAttempts = 1 }, "100": func(p *p) { p.MaxAttempts = 100 },
		},
		"max-deliveries": {
			"1": func(p *p) { p.MaxDeliveries = 1 }, "1000": func(p *p) { p.MaxDeliveries = 1000 },
		},
		"retry-backoff": {
			"0s..0s":   func(p *p) { p.RetryBackoffMin, p.RetryBackoffMax = 0, 0 },
			"1s..24h":  func(p *p) { p.RetryBackoffMin, p.RetryBackoffMax = time.Second, 24*time.Hour },
			"5s .. 5s": nil, // a space belongs to no duration
		},
		"permanent-exit-codes": {
			"none": func(p *p) { p.PermanentExitCodes = nil }, "1, 255": func(p *p) { p.PermanentExitCodes = []int{1, 255} },
		},
		"max-object-size": {
			"none": func(*p) {}, "0": func(p *p) { p.MaxObjectSize = 0 }, "7": func(p *p) { p.MaxObjectSize = 7 },
			"500Mi": func(p *p) { p.MaxObjectSize = 500 << 20 }, "2Ki": func(p *p) { p.MaxObjectSize = 2 << 10 },
			"3Gi": func(p *p) { p.MaxObjectSize = 3 << 30 }, "5Ti": func(p *p) { p.MaxObjectSize = 5 << 40 },
		},
	}
	for _, k := range pipeline.Keys() {
		if len(cases[k.Name]) == 0 {
			t.Errorf("key %s is not tested", k.Name)
		}
		if strings.TrimSpace(k.Doc) == "" || strings.ContainsAny(k.Doc, "\n|") {
			t.Errorf("key %s: %q does not do for a line of a table", k.Name, k.Doc)
		}
	}
	defaults, _ := pipeline.Parse("p", keys())
	for key, values := range cases {
		for value, change := range values {
			got, problems := pipeline.Parse("p", keys(key, value))
			if change == nil {
				if len(problems) == 0 {
					t.Errorf("%s %q is taken", key, value)
				}
				continue
			}
			want := defaults
			want.Match, want.PermanentExitCodes = slices.Clone(want.Match), slices.Clone(want.PermanentExitCodes)
			change(&want)
			if diff := cmp.Diff(want, got); diff != "" || len(problems) > 0 {
				t.Errorf("%s %q: problems %v (-want +got):\n%s", key, value, problems, diff)
			}
		}
	}
}

func TestWhiteSpaceAroundAValueDoesNotCount(t *testing.T) {
	t.Parallel()
	p, problems := pipeline.Parse("p", keys("freeze", " true\n", "bucket", "\tin-bucket "))
	if len(problems) > 0 || !p.Scaling.Freeze || p.Bucket != "in-bucket" {
		t.Errorf("freeze %t, bucket %q, problems %v", p.Scaling.Freeze, p.Bucket, problems)
	}
}

// A refusal names the key and the value, and says what would be right.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ key, value, want string }{
		{"bucket", "", `"" is not a bucket name`},
		{"bucket", "gs://in", `"gs://in" is not a bucket name, such as my-bucket (without gs://)`},
		{"bucket", "In", `"In" is not a bucket name`},
		{"match", "", "no pattern is given"},
		{"match", " , ", "no pattern is given"},
		{"match", "[a", `"[a" is not a valid glob`},
		{"match", "a/*.{png", `"a/*.{png" is not a valid glob`},
		{"match", "results/**", `"results/**" matches nothing but the pipeline's own results`},
		{"exclude", "a,{", `"{" is not a valid glob`},
		{"results", "", "does not start with gs://"},
		{"results", "gs://out/x", "gives two objects the same result name"},
		{"results", "gs://{bucket}/{object}", "would make every object of the input bucket an output"},
		{"results", "gs://in-bucket/{dir}/{base}", "would make every object of the input bucket an output"},
		{"results", "gs://OUT/{object}", `leads to "OUT", which is not a bucket name`},
		{"failures", "gs://{bucket}/{dir}/{base}.json", "would make every object of the input bucket an output"},
		{"failures", "gs://{bucket}/results/{object}.json", "starts like results"},
		{"io", "mount", `"mount" is neither files nor stream`},
		{"min-workers", "-1", `"-1" is not a whole number from 0 to 10000`},
		{"min-workers", "10001", `"10001" is not a whole number from 0 to 10000`},
		{"min-workers", "101", "101 is more than max-workers, 100"},
		{"max-workers", "0", `"0" is not a whole number from 1 to 10000`},
		{"max-workers", "1e3", `"1e3" is not a whole number from 1 to 10000`},
		{"items-per-worker", "0", `"0" is not a whole number from 1 to 1000000`},
		{"items-per-worker", "1.5", `"1.5" is not a whole number`},
		{"scale-down-window", "30", `"30" is not a duration from 0s to 1h, such as 90s or 1h30m`},
		{"scale-down-window", "61m", `"61m" is not a duration from 0s to 1h`},
		{"scale-to-zero-after", "-1s", `"-1s" is not a duration from 0s to 24h`},
		{"freeze", "yes", `"yes" is neither true nor false`},
		{"freeze", "True", `"True" is neither true nor false`},
		{"fixed-workers", "-1", `"-1" is not a whole number from 0 to 10000`},
		{"fixed-workers", "", `"" is not a whole number from 0 to 10000`},
		{"lease-duration", "4s", `"4s" is not a duration from 5s to 1h`},
		{"item-timeout", "0s", `"0s" is not a duration from 1s to 168h`},
		{"max-attempts", "0", `"0" is not a whole number from 1 to 100`},
		{"max-deliveries", "1001", `"1001" is not a whole number from 1 to 1000`},
		{"retry-backoff", "10s", `"10s" is not a range such as 10s..10m`},
		{"retry-backoff", "x..25h", `"x" is not a duration from 0s to 24h`},
		{"retry-backoff", "10m..10s", `"10m..10s" starts above its end`},
		{"permanent-exit-codes", "0", `"0" is not a whole number from 1 to 255`},
		{"permanent-exit-codes", "65,", `"" is not a whole number from 1 to 255`},
		{"max-object-size", "1MB", `"1MB" is neither none nor a number of bytes such as 500Mi`},
		{"max-object-size", "-1", `"-1" is neither none`},
		{"max-object-size", "9999999Ti", `"9999999Ti" is neither none`},
		{"max-wrokers", "5", "there is no such key; the keys are bucket, exclude, "},
	} {
		_, problems := pipeline.Parse("p", keys(c.key, c.value))
		if len(problems) != 1 || problems[0].Key != c.key || !strings.Contains(problems[0].Text, c.want) {
			t.Errorf("%s %q: %v, want one problem that says %q", c.key, c.value, problems, c.want)
			continue
		}
		if got, want := problems[0].Error(), "pipeline p: "+c.key+": "+problems[0].Text; got != want {
			t.Errorf("%s %q: error %q, want %q", c.key, c.value, got, want)
		}
	}
}

func TestSeveralProblemsAtOnce(t *testing.T) {
	t.Parallel()
	for range 20 { // maps have no order, the answer has one
		_, problems := pipeline.Parse("Not_A_Name", map[string]string{
			"max-workers": "0", "lease-duration": "1", "zzz": "", "aaa": "", "io": "x",
		})
		var got []string
		for _, p := range problems {
			got = append(got, p.Key)
		}
		want := []string{"", "aaa", "bucket", "io", "lease-duration", "max-workers", "zzz"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("keys that are complained of (-want +got):\n%s", diff)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "1", "a-b", strings.Repeat("x", 40)} {
		if _, problems := pipeline.Parse(good, keys()); len(problems) > 0 {
			t.Errorf("name %q: %v", good, problems)
		}
	}
	for _, bad := range []string{"", "A", "-a", "a-", "a.b", "a_b", "é", strings.Repeat("x", 41)} {
		_, problems := pipeline.Parse(bad, keys())
		if len(problems) != 1 || problems[0].Key != "" || !strings.Contains(problems[0].Error(), "1 to 40 lower-case letters") {
			t.Errorf("name %q: %v", bad, problems)
		}
	}
}

func TestOwn(t *testing.T) {
	t.Parallel()
	p, problems := pipeline.Parse("p", keys("results", "gs://{bucket}/r-{object}", "failures", "gs://out/f/{object}"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for at, want := range map[string]bool{
		"in-bucket/r-a": true, "in-bucket/r-": true, "in-bucket/a": false, "in-bucket/d/r-a": false,
		"in-bucket/.tidemill/manifests/x": true, "in-bucket/f/a": false,
		"out/f/a": true, "out/f/.tidemill/reports/x": true, "out/a": false, "out/r-a": false,
	} {
		bucket, name, _ := strings.Cut(at, "/")
		if got := p.Own(bucket, name); got != want {
			t.Errorf("Own(%s) = %t, want %t", at, got, want)
		}
	}
}

// Whatever an operator writes is taken, or refused with a problem of that key.
func FuzzParse(f *testing.F) {
	for _, k := range pipeline.Keys() {
		f.Add(k.Name, k.Default)
	}
	f.Add("match", `{a,b},[,],\,`)
	f.Add("max-object-size", "1Ti")
	known := map[string]bool{}
	for _, k := range pipeline.Keys() {
		known[k.Name] = true
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		data := keys(key, value)
		before := maps.Clone(data)
		p, problems := pipeline.Parse("p", data)
		if !maps.Equal(before, data) {
			t.Errorf("the keys handed in were changed to %v", data)
		}
		for _, problem := range problems {
			if problem.Pipeline != "p" || problem.Text == "" {
				t.Errorf("%s %q: empty problem %+v", key, value, problem)
			}
		}
		if len(problems) > 0 {
			return
		}
		s := p.Scaling
		if !known[key] || s.MinWorkers < 0 || s.MinWorkers > s.MaxWorkers || s.MaxWorkers > 10_000 || s.ItemsPerWorker < 1 ||
			s.FixedWorkers < -1 || p.LeaseDuration < 5*time.Second || p.MaxAttempts < 1 || p.MaxDeliveries < 1 ||
			p.RetryBackoffMin > p.RetryBackoffMax || p.MaxObjectSize < -1 || len(p.Match) == 0 {
			t.Errorf("%q %q is taken: %+v", key, value, p)
		}
		set, problems := pipeline.NewSet(map[string]map[string]string{"p": data})
		if len(problems) > 0 {
			t.Errorf("%q %q alone is refused: %v", key, value, problems)
		}
		for _, name := range []string{"a", "d/a.png", "results/a", ".tidemill/x"} {
			if got, ok := set.Route(p.Bucket, name); ok && (got != "p" || p.Own(p.Bucket, name)) {
				t.Errorf("%q %q: %s is routed to %q", key, value, name, got)
			}
		}
	})
}
