package files

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/result"
)

// set runs everything once more; each object gets the results that sets has for
// it, and none if there is nothing.
func (r *rig) set(o Options, sets map[string]map[string]string) (Counts, error) {
	r.t.Helper()
	f := r.open(o)
	defer r.close(f)
	var errs []error
	r.once(f, func(obj item.Object) {
		rel := strings.TrimPrefix(obj.Name, "uploads/")
		if o.Mode == ModeStream {
			r.publishStream(o, obj, sets[rel][""])
		} else {
			r.publish(o, obj, sets[rel])
		}
		errs = append(errs, f.Done(r.t.Context(), obj))
	})
	return f.Counts(), errors.Join(errs...)
}

func TestSmallerSetsAndOtherShapes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeFiles)
	for i, set := range []map[string]string{
		{"x": "1", "d/e/f": "2", "d/e/g": "3", "z/z": ""},
		{"x": "11", "d/e/f": "2"},
		{"x/y": "a folder now", "d": "a file now"},
		{"x": "and back", "d/e/f": "2"},
		{},
		{"new": "n"},
	} {
		r.write("src", strings.Repeat("v", i+1))
		if _, err := r.set(o, map[string]map[string]string{"src": set}); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for name, content := range set {
			want["src/"+name] = content
		}
		if diff := cmp.Diff(want, r.results()); diff != "" {
			t.Errorf("set %d: %s", i, diff)
		}
	}
	if _, err := os.Stat(filepath.Join(r.out, "src", "d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder is left: %v", err)
	}
	r.process(o)
	o.Mode = ModeStream
	if diff := cmp.Diff(Counts{Uploaded: 1, Done: 1}, r.process(o)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"src": "vvvvvv"}, r.results()); diff != "" {
		t.Errorf("the other mode: %s", diff)
	}
}

// A file in IN becomes a folder, and the reverse: old results make room.
func TestFileBecomesFolder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeStream)
	for i, tree := range []map[string]string{
		{"a": "file"}, {"a/b": "below", "a/c/d": "deeper"}, {"a": "file again"}, {"a/b/c": "deepest"},
	} {
		must(t, os.RemoveAll(filepath.Join(r.in, "a")))
		for name, content := range tree {
			r.write(name, content)
		}
		if diff := cmp.Diff(Counts{Uploaded: len(tree), Done: len(tree)}, r.process(o)); diff != "" {
			t.Errorf("run %d: %s", i, diff)
		}
		if diff := cmp.Diff(tree, r.results()); diff != "" {
			t.Errorf("run %d: %s", i, diff)
		}
	}
	if diff := cmp.Diff(Counts{Unchanged: 1}, r.process(o)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatMayNotMakeRoom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		stand func(t *testing.T, out string)
		set   map[string]string
		want  string
	}{
		{"a stranger's file where a folder must be",
			func(t *testing.T, out string) { write(t, filepath.Join(out, "src"), "precious") },
			map[string]string{"x": "1"}, `/out/src" must be a folder for "src/x", but is a file that Tidemill did not write`},
		{"a stranger's folder where a file must be",
			func(t *testing.T, out string) { write(t, filepath.Join(out, "src", "x", "y"), "precious") },
			map[string]string{"x": "1"}, `/out/src/x" must be a file, but is a folder with`},
		{"a link out where a folder must be",
			func(t *testing.T, out string) { must(t, os.Symlink(t.TempDir(), filepath.Join(out, "src"))) },
			map[string]string{"x": "1"}, `/out/src" must be a folder for "src/x", but is a symbolic link`},
		{"a link to nothing where a folder must be",
			func(t *testing.T, out string) { must(t, os.Symlink("nothing", filepath.Join(out, "src"))) },
			map[string]string{"x": "1"}, `is a symbolic link`},
		{"a name too long for the file system",
			func(*testing.T, string) {},
			map[string]string{strings.Repeat("n", 256): "1"}, "file name too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			o := r.options(ModeFiles)
			must(t, os.Mkdir(r.out, 0o777))
			tt.stand(t, r.out)
			before := r.results()
			r.write("src", "v")
			r.write("other", "v")
			c, err := r.set(o, map[string]map[string]string{"src": tt.set, "other": {"x": "1"}})
			if !errors.Is(err, ErrNotMirrored) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not say %q", err, tt.want)
			}
			if diff := cmp.Diff(Counts{Uploaded: 2, Done: 1, Refused: 1}, c); diff != "" {
				t.Error(diff)
			}
			before["other/x"] = "1"
			if diff := cmp.Diff(before, r.results()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"src"}, names(r.refused)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A link that ends below OUT is an arrangement of the user's; a final name that
// is a link is replaced, not followed.
func TestLinksInOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "precious")
	must(t, os.MkdirAll(filepath.Join(r.out, "elsewhere"), 0o777))
	must(t, os.Symlink("elsewhere", filepath.Join(r.out, "src")))
	must(t, os.Symlink(outside, filepath.Join(r.out, "elsewhere", "x")))
	r.write("src", "v")
	if _, err := r.set(r.options(ModeFiles), map[string]map[string]string{"src": {"x": "1"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"elsewhere/x": "1"}, r.results()); diff != "" {
		t.Error(diff)
	}
	if got := read(t, outside); got != "precious" {
		t.Errorf("a file outside was written: %q", got)
	}
}

func TestManifestsAreNotTrusted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeFiles)
	f := r.open(o)
	defer r.close(f)
	for _, set := range [][]string{
		{"../x"}, {"/etc/x"}, {""}, {"."}, {"a/../../x"}, {"a//b"}, {"a/"}, {"a\x00b"}, {"x", "x"}, {"a", "a/b"}, {"a/b/c", "a"},
	} {
		obj := r.upload("dir/src", strings.Join(set, ","))
		f.Track(obj)
		m := result.Manifest{Version: result.Version, Source: "gs://" + obj.Path(), Generation: obj.Generation}
		for _, name := range set {
			m.Results = append(m.Results, result.File{Path: name, Generation: 1})
		}
		r.manifest(o, obj, m)
		if err := f.Done(t.Context(), obj); !errors.Is(err, ErrNotMirrored) {
			t.Errorf("%q: %v", set, err)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*result.Manifest)
		want   string
	}{
		{"another schema", func(m *result.Manifest) { m.Version = 99 }, "version 99"},
		{"another source", func(m *result.Manifest) { m.Source = "gs://tide/other" }, "is the manifest of gs://tide/other"},
		{"an older generation", func(m *result.Manifest) { m.Generation-- }, "the results that stand are of generation"},
		{"another checksum", func(m *result.Manifest) { m.Results[0].CRC32C++ }, "its manifest says"},
		{"another size", func(m *result.Manifest) { m.Results[0].Size++ }, "its manifest says"},
		{"a result that is gone", func(m *result.Manifest) { m.Results[0].Generation++ }, "does not exist"},
	} {
		obj := r.upload("src", tt.name)
		f.Track(obj)
		a := r.put(o.Results.File(obj, "x"), "1", nil)
		m := result.Manifest{
			Version: result.Version, Source: "gs://" + obj.Path(), Generation: obj.Generation,
			Results: []result.File{{Path: "x", Generation: a.Generation, Size: 1, CRC32C: a.CRC32C}},
		}
		tt.change(&m)
		r.manifest(o, obj, m)
		if err := f.Done(t.Context(), obj); err == nil || errors.Is(err, ErrNotMirrored) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v does not say %q", tt.name, err, tt.want)
		}
		if got := f.Outstanding(); len(got) != 1 || got[0] != obj {
			t.Errorf("%s: outstanding is %v", tt.name, got)
		}
	}
	if got := r.results(); len(got) > 0 {
		t.Errorf("something was written: %q", got)
	}
	if left := tree(t, filepath.Join(r.out, bookkeeping, "tmp"), ""); len(left) > 0 {
		t.Errorf("temporary files are left: %q", names(left))
	}
}

func TestNewerStandsAgainstOlder(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModeFiles, ModeStream} {
		r := newRig(t)
		o := r.options(mode)
		f := r.open(o)
		defer r.close(f)
		v1 := r.upload("src", "one")
		f.Track(v1)
		first := f.claim(v1) // its end is being written while the newer version comes and ends
		v2 := r.upload("src", "two")
		f.Track(v2)
		f.Track(v1)
		f.Track(v2)
		r.done(f, o, v2)
		if _, how, err := f.mirror(t.Context(), first); err != nil || how != isSkipped {
			t.Errorf("the older one ended as %v, %v", how, err)
		}
		f.settle(t.Context(), first, isSkipped, nil, 0)
		must(t, f.Done(t.Context(), v1))
		for _, got := range r.results() {
			if got != "two" {
				t.Errorf("OUT has %q", got)
			}
		}
		if diff := cmp.Diff(Counts{Tracked: 2, Done: 1, Skipped: 1}, f.Counts()); diff != "" {
			t.Error(diff)
		}
		if left := f.Outstanding(); len(left) > 0 {
			t.Errorf("outstanding: %v", left)
		}
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeFiles)
	reports := filepath.Join(r.out, bookkeeping, "failures")
	bury := func() Counts {
		f := r.open(o)
		defer r.close(f)
		r.once(f, func(obj item.Object) {
			r.report(o, obj, "exit status 1")
			rep, err := f.Dead(t.Context(), obj)
			must(t, err)
			if rep.Reason != "exit status 1" || rep.Generation != obj.Generation {
				t.Errorf("report: %+v", rep)
			}
		})
		return f.Counts()
	}
	r.write("deep/a b", "A")
	if diff := cmp.Diff(Counts{Uploaded: 1, Dead: 1}, bury()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"deep/a b/report.json"}, names(tree(t, reports, ""))); diff != "" {
		t.Error(diff)
	}
	// It is tried again; then its report goes.
	if diff := cmp.Diff(Counts{Uploaded: 1, Done: 1}, r.process(o)); diff != "" {
		t.Error(diff)
	}
	if left := tree(t, reports, ""); len(left) > 0 {
		t.Errorf("reports are left: %q", names(left))
	}
	// Reports of files that became folders, and the reverse, make room.
	for i, name := range []string{"x", "x/report.json/y", "x", "x/report.json"} {
		must(t, os.RemoveAll(filepath.Join(r.in, "x")))
		r.write(name, strings.Repeat("v", i))
		if diff := cmp.Diff(Counts{Uploaded: 1, Dead: 1, Unchanged: 1}, bury()); diff != "" {
			t.Error(diff)
		}
		if _, err := os.Stat(filepath.Join(reports, name, "report.json")); err != nil {
			t.Error(err)
		}
	}
}

func TestWithoutOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeFiles)
	o.Out = ""
	r.write("a", "A")
	for range 2 {
		if diff := cmp.Diff(Counts{Uploaded: 1, Done: 1}, r.process(o)); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := os.Stat(r.out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OUT was made: %v", err)
	}
}

func TestConcurrentEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeFiles)
	want := map[string]string{}
	for i := range 24 {
		name := fmt.Sprintf("%d/%d", i%3, i)
		r.write(name, name)
		want[name+"/copy"] = name
	}
	f := r.open(o)
	must(t, f.Run(t.Context(), false))
	var group sync.WaitGroup
	for _, obj := range f.Outstanding() {
		r.publish(o, obj, map[string]string{"copy": strings.TrimPrefix(obj.Name, "uploads/")})
		for range 2 { // told twice
			group.Go(func() {
				if err := f.Done(t.Context(), obj); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	if diff := cmp.Diff(Counts{Uploaded: 24, Done: 24}, f.Counts()); diff != "" {
		t.Error(diff)
	}
	r.close(f)
	if diff := cmp.Diff(want, r.results()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Counts{Unchanged: 24}, r.process(o)); diff != "" {
		t.Error(diff)
	}
}
