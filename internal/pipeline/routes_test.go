package pipeline_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/pipeline"
)

type pipelines = map[string]map[string]string

func mustSet(t *testing.T, all pipelines) pipeline.Set {
	t.Helper()
	set, problems := pipeline.NewSet(all)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return set
}

func TestRoute(t *testing.T) {
	t.Parallel()
	set := mustSet(t, pipelines{
		"all":   keys("exclude", "tmp/**, **/*.part"),
		"shots": keys("match", "photos/**", "exclude", "**/raw/**"),
		"png":   keys("match", "photos/p/*.png, icons/**/*.png"),
		"jpg":   keys("match", "photos/2026/*.jpg"),
		"gif":   keys("match", "photos/2026/*.gif"),
		"other": {"bucket": "other", "match": "**.png"},
	})
	sum := strings.Repeat("0a", 32) + ".json"
	for at, want := range map[string]string{
		"in-bucket/a.txt":                        "all",
		"in-bucket/d/a.png":                      "all",
		"in-bucket/photos":                       "shots", // ** also stands for nothing
		"in-bucket/photos/d/a.txt":               "shots",
		"in-bucket/photos/2026/a.jpg":            "jpg", // the longest constant start wins
		"in-bucket/photos/2026/a.gif":            "gif",
		"in-bucket/photos/2026/a.txt":            "shots",
		"in-bucket/photos/2026/m/a.jpg":          "shots", // * stops at /
		"in-bucket/photos/raw/a.txt":             "all",
		"in-bucket/icons/a.png":                  "png",
		"in-bucket/icons/x/y/a.png":              "png",
		"in-bucket/icons/x/y/a.gif":              "all",
		"in-bucket/tmp/a":                        "",
		"in-bucket/d/a.part":                     "",
		"in-bucket/photos/a.part":                "shots", // an exclusion is one pipeline's
		"in-bucket/results/a.txt":                "",
		"in-bucket/failures/a.txt.json":          "",
		"in-bucket/resultsx/a.txt":               "all",
		"in-bucket/.tidemill/manifests/" + sum:   "",
		"in-bucket/d/.tidemill/manifests/" + sum: "",
		"in-bucket/d/.tidemill/reports/" + sum:   "",
		"in-bucket/results/.tidemill/a":          "",
		"other/a.png":                            "other",
		"other/d/a.png":                          "",
		"third/a.png":                            "",
	} {
		bucket, name, _ := strings.Cut(at, "/")
		got, ok := set.Route(bucket, name)
		if got != want || ok != (want != "") {
			t.Errorf("Route(%s) = %q, %t, want %q", at, got, ok, want)
		}
	}
}

// A tie is where two patterns have the same constant start and may match the
// same name. Only the pipeline that sorts later is kept out.
func TestTies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		tie  bool
	}{
		{"**", "**", true},
		{"a/**", "a/*", true},
		{"a/**", "b/**", false},
		{"a/**", "a/b/**", false},
		{"a/*.png", "a/*.jpg", false},
		{"a/*.png", "a/*g", true},
		{"a/*.png", "a/*.png", true},
		{"a/*.png", "a/**", true},
		{"a/**/*.png", "a/*.jpg", false},
		{"a/**/x.png", "a/*x.png", true}, // both match a/x.png
		{"a/{x,y}.png", "a/{z}.png", true},
		{"a/*.png, c/*", "b/*, c/*", true},
		{"a/x", "a/x", true},
		{"a/x", "a/y", false},
		{"{**}/x", "{**}/y", false},
		{"{**}/x", "*x", true},
	} {
		_, problems := pipeline.NewSet(pipelines{"one": keys("match", c.a), "two": keys("match", c.b)})
		if tie := len(problems) > 0; tie != c.tie {
			t.Errorf("%q beside %q: tie %t, want %t: %v", c.a, c.b, tie, c.tie, problems)
		}
		for _, p := range problems {
			if p.Pipeline != "two" || p.Key != "match" || !strings.Contains(p.Text, "pipeline one's") || !strings.Contains(p.Text, "longer folder") {
				t.Errorf("%q beside %q: %v", c.a, c.b, p)
			}
		}
		if _, problems := pipeline.NewSet(pipelines{"one": keys("match", c.a), "two": {"bucket": "other", "match": c.b}}); len(problems) > 0 {
			t.Errorf("%q beside %q in another bucket: %v", c.a, c.b, problems)
		}
	}
}

// No object is ever claimed by two pipelines with equal right: that is what the
// refusal of ties is for.
func FuzzNoTies(f *testing.F) {
	f.Add("a/*.png", "a/**", "a/x.png")
	f.Add("{**}/x", "*x", "x")
	f.Add("**/a", "**a", "a")
	f.Fuzz(func(t *testing.T, a, b, name string) {
		if item.CheckName(name) != nil || strings.Contains(a, ",") || strings.Contains(b, ",") {
			return
		}
		if _, problems := pipeline.NewSet(pipelines{"one": keys("match", a), "two": keys("match", b)}); len(problems) > 0 {
			return
		}
		one, two := mustSet(t, pipelines{"one": keys("match", a)}), mustSet(t, pipelines{"two": keys("match", b)})
		_, isOne := one.Route("in-bucket", name)
		_, isTwo := two.Route("in-bucket", name)
		start := func(g string) int { // of the trimmed pattern, to the first wildcard
			return strings.IndexAny(strings.TrimSpace(g)+"*", `*?[]{}\`)
		}
		if isOne && isTwo && start(a) == start(b) {
			t.Errorf("%q matches %q and %q, which start equally far", name, a, b)
		}
	})
}

func TestABadPipelineKeepsOnlyItselfOut(t *testing.T) {
	t.Parallel()
	for range 10 {
		set, problems := pipeline.NewSet(pipelines{
			"a-bad": keys("max-workers", "0"), "b-good": keys("match", "b/**"), "c-tie": keys("match", "b/*"), "d-good": keys("match", "d/**"),
		})
		if diff := cmp.Diff([]string{"b-good", "d-good"}, set.Names()); diff != "" {
			t.Errorf("in the set (-want +got):\n%s", diff)
		}
		if len(problems) != 2 || problems[0].Pipeline != "a-bad" || problems[1].Pipeline != "c-tie" {
			t.Errorf("problems %v", problems)
		}
		if _, ok := set.Get("a-bad"); ok {
			t.Error("the bad pipeline is in the set")
		}
		if p, ok := set.Get("d-good"); !ok || p.Match[0] != "d/**" {
			t.Errorf("d-good is %+v, %t", p, ok)
		}
	}
}

func TestChainsAndCycles(t *testing.T) {
	t.Parallel()
	stage := func(match, results string, more ...string) map[string]string {
		return keys(append([]string{"match", match, "results", results, "failures", "gs://failed/{bucket}/{object}"}, more...)...)
	}
	for _, c := range []struct {
		name string
		all  pipelines
		bad  string // the pipeline that is kept out
	}{
		{"a chain", pipelines{
			"a": stage("a/**", "gs://{bucket}/b/{object}"), "b": stage("b/**", "gs://{bucket}/c/{object}"), "c": stage("c/**", "gs://{bucket}/d/{object}"),
		}, ""},
		{"a chain over buckets", pipelines{
			"a": stage("**", "gs://mid/{object}"), "b": {"bucket": "mid", "results": "gs://end/{object}", "failures": "gs://failed/{object}"},
		}, ""},
		{"two in a ring", pipelines{
			"a": stage("a/**", "gs://{bucket}/b/{object}"), "b": stage("b/**", "gs://{bucket}/a/{object}"),
		}, "b"},
		{"three in a ring", pipelines{
			"a": stage("a/**", "gs://{bucket}/b/{object}"), "b": stage("b/**", "gs://{bucket}/c/{object}"), "c": stage("c/**", "gs://{bucket}/a/{object}"),
		}, "c"},
		{"a ring over buckets", pipelines{
			"a": stage("**", "gs://mid/{object}"), "b": {"bucket": "mid", "results": "gs://in-bucket/back/{object}", "failures": "gs://failed/{object}"},
		}, "b"},
		{"a ring of failures", pipelines{
			"a": stage("a/**", "gs://end/{object}", "failures", "gs://{bucket}/b/{object}"),
			"b": stage("b/**", "gs://end/{object}", "failures", "gs://{bucket}/a/{object}"),
		}, "b"},
		{"a folder of the one is in the other's results", pipelines{
			"a": stage("a/**", "gs://{bucket}/b/{object}"), "b": stage("b/c/**", "gs://{bucket}/a/x/{object}"),
		}, "b"},
		{"an exclusion breaks the ring", pipelines{
			"a": stage("a/**", "gs://{bucket}/b/{object}", "exclude", "a/back/**"), "b": stage("b/**", "gs://{bucket}/a/back/{object}"),
		}, ""},
		{"an exclusion of something else does not", pipelines{
			"a": stage("a/**", "gs://{bucket}/b/{object}", "exclude", "a/back/*.tmp"), "b": stage("b/**", "gs://{bucket}/a/back/{object}"),
		}, "b"},
		{"one's own results are no ring", pipelines{"a": stage("**", "gs://{bucket}/b/{object}")}, ""},
	} {
		for range 5 { // maps have no order
			set, problems := pipeline.NewSet(c.all)
			if c.bad == "" {
				if len(problems) > 0 {
					t.Errorf("%s: %v", c.name, problems)
				}
				continue
			}
			if _, in := set.Get(c.bad); in || len(problems) != 1 || problems[0].Pipeline != c.bad || problems[0].Key != "results" ||
				!strings.Contains(problems[0].Text, "by way of pipeline a") && !strings.Contains(problems[0].Text, "by way of pipeline a, b") {
				t.Errorf("%s: %v", c.name, problems)
			}
			if len(set.Names()) != len(c.all)-1 {
				t.Errorf("%s: only %v are left", c.name, set.Names())
			}
		}
	}
}

// A member of a chain takes results, never the bookkeeping beside them.
func TestAChainLeavesManifestsAlone(t *testing.T) {
	t.Parallel()
	all := pipelines{
		"a": keys("match", "a/**", "results", "gs://{bucket}/b/{object}"),
		"b": keys("match", "b/**", "results", "gs://{bucket}/c/{object}"),
	}
	set := mustSet(t, all)
	a, _ := set.Get("a")
	o := item.Object{Bucket: "in-bucket", Name: "a/x", Generation: 1}
	if got, _ := set.Route("in-bucket", a.Results.File(o, "y").Name); got != "b" {
		t.Errorf("a result is routed to %q, not b", got)
	}
	if got, ok := set.Route("in-bucket", a.Results.Manifest(o).Name); ok {
		t.Errorf("a manifest is routed to %q", got)
	}
}

func TestWithBlamesTheNewcomer(t *testing.T) {
	t.Parallel()
	set := mustSet(t, pipelines{"old": keys("match", "a/**")})
	same, problems := set.With("new", keys("match", "a/*")) // sorts before the one it disturbs
	if len(problems) != 1 || problems[0].Pipeline != "new" || fmt.Sprint(same.Names()) != "[old]" {
		t.Errorf("problems %v, set %v", problems, same.Names())
	}
	bigger, problems := set.With("new", keys("match", "b/**"))
	if len(problems) > 0 || fmt.Sprint(bigger.Names()) != "[new old]" || fmt.Sprint(set.Names()) != "[old]" {
		t.Errorf("problems %v, set %v, before it %v", problems, bigger.Names(), set.Names())
	}
	changed, problems := bigger.With("old", keys("match", "c/**"))
	if got, _ := changed.Route("in-bucket", "a/x"); len(problems) > 0 || got != "" {
		t.Errorf("problems %v, a/x is routed to %q by old settings", problems, got)
	}
	if got := changed.Without("new").Names(); fmt.Sprint(got) != "[old]" {
		t.Errorf("left without new: %v", got)
	}
}

// ** takes every name that Cloud Storage does.
func FuzzEverythingMatches(f *testing.F) {
	for _, name := range []string{"a", "/", "//", "a//b", ".a/.b", `a\b`, "\x00", "日本/é", "{a}", "-"} {
		f.Add(name)
	}
	set, problems := pipeline.NewSet(pipelines{"p": keys("results", "gs://out/{object}", "failures", "gs://failed/{object}")})
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if item.CheckName(name) != nil || strings.Contains(name, ".tidemill/") {
			return
		}
		if _, ok := set.Route("in-bucket", name); !ok {
			t.Errorf("%q is not matched by **", name)
		}
	})
}
