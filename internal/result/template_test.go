package result_test

import (
	"fmt"
	"strings"
	"testing"

	"tidemill/internal/item"
	"tidemill/internal/result"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, good := range []result.Template{
		"gs://{bucket}/results/{object}",
		"gs://{bucket}/r-{object}",
		"gs://{bucket}-results/x/{object}",
		"gs://out/{dir}/{base}",
		"gs://out/{dir}/{stem}-{generation}.{ext}",
		"gs://out/{bucket}/{object}.json",
		"gs://out/}{object}",
	} {
		if err := good.Check(); err != nil {
			t.Errorf("Check(%q): %v", good, err)
		}
	}
	for bad, want := range map[result.Template]string{
		"":                             "does not start with gs://",
		"s3://b/{object}":              "does not start with gs://",
		"results/{object}":             "does not start with gs://",
		"gs://":                        "does not name a bucket",
		"gs://b":                       "does not name a bucket",
		"gs://b/":                      "does not name a bucket",
		"gs:///{object}":               "does not name a bucket",
		"gs://b/{object":               "without a closing one",
		"gs://b/{Object}":              "uses {Object}; the placeholders are {bucket} {object} {dir}",
		"gs://b/{}{object}":            "uses {}",
		"gs://b/{{object}}":            "uses {{object}",
		"gs://{buc/ket}/{object}":      "uses {buc/ket}",
		"gs://b/results":               "gives two objects the same result name",
		"gs://b/{base}":                "gives two objects the same result name",
		"gs://b/{dir}/{stem}":          "gives two objects the same result name",
		"gs://b/{generation}":          "gives two objects the same result name",
		"gs://{object}/{object}":       "only {bucket} may stand",
		"gs://{bucket}{dir}/x{object}": "only {bucket} may stand",
		"gs://b/a\n{object}":           "line feed",
		"gs://b/\xff{object}":          "UTF-8",
		"gs://b/.well-known/acme-challenge/{object}":                        "reserved",
		result.Template("gs://b/" + strings.Repeat("x", 960) + "/{object}"): "leaves no room for manifests; shorten it by ",
		"gs://b/{bucket}{bucket}{bucket}{bucket}{bucket}/{object}":          "leaves no room",
	} {
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check(%.60q): error %v, want one that says %q", bad, err, want)
		}
	}
}

func TestPlaceholdersAreAllExpanded(t *testing.T) {
	t.Parallel()
	o := item.Object{Bucket: "photos", Name: "2026/may/a.tar.gz", Generation: 42}
	want := map[string]string{
		"bucket": "photos", "object": "2026/may/a.tar.gz", "dir": "2026/may", "base": "a.tar.gz",
		"stem": "a.tar", "ext": "gz", "generation": "42",
	}
	if len(want) != len(result.Placeholders()) {
		t.Fatalf("%d placeholders are tested, there are %d", len(want), len(result.Placeholders()))
	}
	for _, p := range result.Placeholders() {
		got := result.Template("gs://out/<{" + p + "}>").Expand(o)
		if w := (result.Location{Bucket: "out", Name: "<" + want[p] + ">"}); got != w {
			t.Errorf("{%s}: %s, want %s", p, got, w)
		}
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		template result.Template
		object   string
		want     string
	}{
		{"gs://{bucket}/results/{object}", "a.png", "gs://in/results/a.png"},
		{"gs://{bucket}-results/x/{object}", "d/a.png", "gs://in-results/x/d/a.png"},
		{"gs://out/{dir}/{base}", "d/e/a.png", "gs://out/d/e/a.png"},
		{"gs://out/{dir}/{base}", "a.png", "gs://out/a.png"}, // no dir, no slash for it
		{"gs://out/x{dir}/{base}", "a.png", "gs://out/xa.png"},
		{"gs://out/{dir}-{base}", "d/a.png", "gs://out/d-a.png"},
		{"gs://out/{dir}/{base}", "/a.png", "gs://out//a.png"},
		{"gs://out/{dir}/{base}", "d//a.png", "gs://out/d//a.png"},
		{"gs://out/{dir}/{base}", "d/", "gs://out/d/"},
		{"gs://out/{dir}/{stem}.{ext}", "d/a.png", "gs://out/d/a.png"},
		{"gs://out/{dir}/{stem}_{ext}", "d/.profile", "gs://out/d/.profile_"}, // a dot file has no extension
		{"gs://out/{dir}/{stem}_{ext}", "d/.a.b", "gs://out/d/.a_b"},
		{"gs://out/{dir}/{stem}_{ext}", "d.e/a", "gs://out/d.e/a_"}, // the folder's dot is not the file's
		{"gs://out/{dir}/{stem}_{ext}", "a.", "gs://out/a_"},
		// What an object's name says in braces is data, never a placeholder.
		{"gs://out/{object}", "{generation}", "gs://out/{generation}"},
		{"gs://out/{object}", "a{base}b", "gs://out/a{base}b"},
		{"gs://out/{dir}/{base}", "{dir}/{bucket}", "gs://out/{dir}/{bucket}"},
		{"gs://out/{object}-{generation}", "{", "gs://out/{-7"},
		{"gs://out/{object}generation}", "{", "gs://out/{generation}"},
		// Cloud Storage names are flat: dots lead nowhere.
		{"gs://{bucket}/results/{object}", "../../other/x", "gs://in/results/../../other/x"},
	} {
		got := c.template.Expand(item.Object{Bucket: "in", Name: c.object, Generation: 7})
		if got.String() != c.want {
			t.Errorf("%s with %q: %s, want %s", c.template, c.object, got, c.want)
		}
	}
	got := result.Template("gs://out/{object}").File(item.Object{Bucket: "in", Name: "a.png", Generation: 7}, "thumb/small.png")
	if want := "gs://out/a.png/thumb/small.png"; got.String() != want {
		t.Errorf("File: %s, want %s", got, want)
	}
}

func TestPrefixAndReserved(t *testing.T) {
	t.Parallel()
	o := item.Object{Bucket: "in", Name: "d/a.png", Generation: 7}
	long := o
	long.Name = strings.Repeat("x", item.MaxNameBytes)
	for _, c := range []struct {
		template         result.Template
		prefix, reserved string
	}{
		{"gs://{bucket}/results/{object}", "gs://in/results/", "gs://in/results/.tidemill/"},
		{"gs://{bucket}/results/{object}.json", "gs://in/results/", "gs://in/results/.tidemill/"},
		{"gs://{bucket}/r-{object}", "gs://in/r-", "gs://in/.tidemill/"},
		{"gs://{bucket}/a/r-{object}", "gs://in/a/r-", "gs://in/a/.tidemill/"},
		{"gs://out/{dir}/{base}", "gs://out/", "gs://out/.tidemill/"},
		{"gs://{bucket}-results/x/{object}", "gs://in-results/x/", "gs://in-results/x/.tidemill/"},
		{"gs://out/{bucket}/{object}", "gs://out/in/", "gs://out/in/.tidemill/"},
	} {
		if got := c.template.Prefix("in").String(); got != c.prefix {
			t.Errorf("%s: prefix %s, want %s", c.template, got, c.prefix)
		}
		if got := c.template.ReservedFolder("in").String(); got != c.reserved {
			t.Errorf("%s: reserved folder %s, want %s", c.template, got, c.reserved)
		}
		if got := c.template.Expand(o).String(); !strings.HasPrefix(got, c.prefix) {
			t.Errorf("%s expands to %s, outside of its prefix %s", c.template, got, c.prefix)
		}
		manifest := c.template.Manifest(o)
		if rest, ok := strings.CutPrefix(manifest.String(), c.reserved+"manifests/"); !ok || len(rest) != 64+len(".json") {
			t.Errorf("%s: manifest %s, want a digest in %smanifests/", c.template, manifest, c.reserved)
		}
		if got, want := c.template.Report(o), c.template.Expand(o); got != want {
			t.Errorf("%s: report %s, want %s", c.template, got, want)
		}
		report := c.template.Report(long) // its plain name would be too long in all but one
		if got := c.template.Expand(long); item.CheckName(got.Name) != nil && !strings.HasPrefix(report.String(), c.reserved+"reports/") {
			t.Errorf("%s: report of an object with a long name: %s, want one in %sreports/", c.template, report, c.reserved)
		}
		for _, l := range []result.Location{manifest, report} {
			if err := item.CheckName(l.Name); err != nil {
				t.Errorf("%s: %s: %v", c.template, l, err)
			}
		}
		if !result.InReserved(manifest.Name) {
			t.Errorf("%s: manifest %s does not count as reserved", c.template, manifest)
		}
	}
}

func TestInReserved(t *testing.T) {
	t.Parallel()
	file := strings.Repeat("0a", 32) + ".json"
	for name, want := range map[string]bool{
		".tidemill/manifests/" + file: true, "a/.tidemill/manifests/" + file: true, "a/b/.tidemill/reports/" + file: true,
		".tidemill": false, "a/.tidemill/x": false, "a/.tidemill/manifests/x.json": false, "a/.tidemill/other/" + file: false,
		"a.tidemill/manifests/" + file: false, "a/.tidemill2/manifests/" + file: false, "manifests/" + file: false,
	} {
		if got := result.InReserved(name); got != want {
			t.Errorf("InReserved(%q) = %t, want %t", name, got, want)
		}
	}
}

// A manifest is the object's, not the generation's: that is what fences compare.
func TestManifestNames(t *testing.T) {
	t.Parallel()
	sources := map[string]item.Object{}
	for _, bucket := range []string{"a", "b", "a-b"} {
		for _, name := range []string{"x", "X", "x/", "/x", "x//y", "x/y", "x#1", "x.json", "\u00e9", "e\u0301"} {
			o := item.Object{Bucket: bucket, Name: name, Generation: 1}
			manifest := result.Template("gs://out/{bucket}/{object}").Manifest(o)
			shared := result.Template("gs://out/all/{object}").Manifest(o)
			for _, l := range []result.Location{manifest, shared} {
				if other, taken := sources[l.Name]; taken {
					t.Errorf("%s and %s share the manifest %s", other, o, l)
				}
				sources[l.Name] = o
			}
			o.Generation = 2
			if again := result.Template("gs://out/all/{object}").Manifest(o); again != shared {
				t.Errorf("%s: generation 2 has the manifest %s, generation 1 %s", o.Path(), again, shared)
			}
		}
	}
}

// Whatever the names are: no error of Check, then names in one's own folder and
// a manifest and report that Cloud Storage takes.
func FuzzTemplate(f *testing.F) {
	f.Add("gs://{bucket}/results/{object}", "photos", "{generation}", int64(1))
	f.Add("gs://out/{dir}/{stem}.{ext}", "photos", "../a/.b", int64(2))
	f.Fuzz(func(t *testing.T, text, bucket, name string, generation int64) {
		template := result.Template(text)
		o := item.Object{Bucket: bucket, Name: name, Generation: generation}
		if template.Check() != nil || item.CheckName(name) != nil || !plainBucket(bucket) {
			return
		}
		prefix, expanded := template.Prefix(bucket), template.Expand(o)
		if expanded.Bucket != prefix.Bucket || !strings.HasPrefix(expanded.Name, prefix.Name) {
			t.Errorf("%q with %s: %s is outside of %s", text, o, expanded, prefix)
		}
		for _, l := range []result.Location{template.Manifest(o), template.Report(o)} {
			if err := item.CheckName(l.Name); err != nil || l.Bucket != prefix.Bucket {
				t.Errorf("%q with %s: %s: %v", text, o, l, err)
			}
		}
		want := fmt.Sprintf("gs://%s/%s", bucket, name)
		if text == "gs://{bucket}/{object}" && expanded.String() != want {
			t.Errorf("%q with %s: %s, want %s", text, o, expanded, want)
		}
	})
}

func plainBucket(s string) bool {
	return s != "" && len(s) <= 222 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}
