package files

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFoldersThatOverlap(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	write(t, filepath.Join(top, "a", "b", "file"), "x")
	if err := os.Symlink(filepath.Join(top, "a"), filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, in, out, want string }{
		{"the same", "a", "a", "are the same"},
		{"the same through a link", "a", "link", "are the same"},
		{"in below out", "a/b", "a", "lies below the output folder"},
		{"in below out through a link", "link/b", "a", "lies below the output folder"},
		{"no such folder", "c", "a", "no such file"},
		{"a file", "a/b/file", "out", "is not a folder"},
		{"out is a file", "a", "a/b/file", "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := Open(Options{Mode: ModeFiles, In: filepath.Join(top, tt.in), Out: filepath.Join(top, tt.out)})
			if err == nil {
				t.Fatal("no error", f.Close())
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
	if left := tree(t, top, ""); len(left) != 1 {
		t.Errorf("files were left behind: %q", names(left))
	}
}

func TestOutBelowIn(t *testing.T) {
	t.Parallel()
	for _, linked := range []bool{false, true} {
		r := newRig(t)
		r.out = filepath.Join(r.in, "deep", "results")
		r.write("deep/a", "A")
		r.write("b", "B")
		o := r.options(ModeFiles)
		if linked { // the same folder, by another name
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(r.in, link); err != nil {
				t.Fatal(err)
			}
			o.In = link
		}
		if diff := cmp.Diff(Counts{Uploaded: 2, Done: 2}, r.process(o)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(Counts{Unchanged: 2}, r.process(o)); diff != "" {
			t.Errorf("results became input: %s", diff)
		}
		if diff := cmp.Diff(map[string]string{"deep/a/copy": "A", "b/copy": "B"}, r.results()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestTwoRunsOnOneFolder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeFiles)
	first := r.open(o)
	if f, err := Open(o); err == nil {
		t.Fatal("the second run got the folder", f.Close())
	} else if want := "another tidemill local is using " + r.out; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
	r.close(first)
	r.close(r.open(o))
}

// A source may have the name of the bookkeeping folder; an earlier run's
// bookkeeping may be below IN.
func TestBookkeepingNames(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeStream)
	r.write("a", "A")
	r.process(o)

	// Another run takes the first one's results as its input.
	next := r.options(ModeStream)
	next.In, next.Out = r.out, filepath.Join(t.TempDir(), "out")
	if diff := cmp.Diff(Counts{Uploaded: 1, Done: 1}, r.process(next)); diff != "" {
		t.Error(diff)
	}

	// The source's name appears while an earlier run's notes have it: they move.
	r.write(".tidemill/mine", "M")
	if diff := cmp.Diff(Counts{Uploaded: 1, Done: 1, Unchanged: 1}, r.process(o)); diff != "" {
		t.Error(diff)
	}
	r.write(".tidemill-1", "a file")
	r.write(".tidemill-2/"+marker, "not the text")
	if diff := cmp.Diff(Counts{Uploaded: 2, Done: 2, Unchanged: 2}, r.process(o)); diff != "" {
		t.Error(diff)
	}
	want := map[string]string{"a": "A", ".tidemill/mine": "M", ".tidemill-1": "a file", ".tidemill-2/" + marker: "not the text"}
	if diff := cmp.Diff(want, tree(t, r.out, ".tidemill-3")); diff != "" {
		t.Error(diff)
	}
	// And stay where they are when it is gone again.
	if err := os.RemoveAll(filepath.Join(r.in, ".tidemill")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Counts{Unchanged: 3}, r.process(o)); diff != "" {
		t.Error(diff)
	}

	// While a run is under way, the name can only be refused.
	f := r.open(r.options(ModeStream))
	r.follow(f, o)
	r.write(".tidemill-3/late", "L")
	r.until("the name is refused", func() bool { return f.Counts().Refused == 1 })
	if got := r.refused[".tidemill-3/late"]; !strings.Contains(got, "Tidemill keeps its own notes") {
		t.Errorf("refused: %q", got)
	}
}

// A run that was killed at its very start leaves an empty folder.
func TestBookkeepingAfterEarlyDeath(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := os.MkdirAll(filepath.Join(r.out, bookkeeping), 0o777); err != nil {
		t.Fatal(err)
	}
	r.close(r.open(r.options(ModeFiles)))
	if !isBookkeeping(r.out, bookkeeping) {
		t.Error("the empty folder was not taken")
	}
}
