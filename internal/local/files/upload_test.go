package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
)

// A reader never gets to the end of a file that changed under it.
func TestChangeWhileReading(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, name string)
		want   error
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"appended", func(t *testing.T, name string) {
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = f.WriteString("more")
			must(t, errors.Join(err, f.Close()))
		}, errRestless},
		{"cut", func(t *testing.T, name string) { must(t, os.Truncate(name, 10)) }, errRestless},
		{"overwritten", func(t *testing.T, name string) {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteString("other")
			must(t, errors.Join(err, f.Close()))
		}, errRestless},
		{"replaced", func(t *testing.T, name string) {
			write(t, name+".new", "whatever")
			must(t, os.Rename(name+".new", name))
		}, errRestless},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &Files{in: t.TempDir()}
			name := filepath.Join(f.in, "a")
			write(t, name, strings.Repeat("x", 1000))
			old := time.Unix(1e9, 0)
			must(t, os.Chtimes(name, old, old))
			info, err := os.Stat(name)
			must(t, err)
			src, err := f.open("a", fingerprintOf(info))
			must(t, err)
			defer src.close()
			_, err = io.ReadFull(src, make([]byte, 500))
			must(t, err)
			tt.change(t, name)
			if _, err = io.Copy(io.Discard, src); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// While a file keeps growing, nothing half old and half new is uploaded, and in
// the end the whole is.
func TestGrowingFile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeStream)
	f := r.open(o)
	r.follow(f, o)
	name := filepath.Join(r.in, "log")
	w, err := os.Create(name)
	must(t, err)
	defer w.Close()
	var whole strings.Builder
	for i := range 200 {
		line := fmt.Sprintf("%d\n", i)
		whole.WriteString(line)
		_, err := w.WriteString(line)
		must(t, err)
		for _, obj := range f.Outstanding() {
			if got := r.read(obj); !strings.HasPrefix(whole.String(), got) {
				t.Fatalf("uploaded %q", got)
			}
		}
	}
	must(t, w.Close())
	r.until("all of it is uploaded", func() bool {
		left := f.Outstanding()
		return len(left) == 1 && r.read(left[0]) == whole.String()
	})
	c := f.Counts()
	if c.Uploaded != c.Skipped+1 {
		t.Errorf("counts: %+v", c)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeFiles)
	o.MaxFiles, o.MaxBytes = 3, 1000
	for i := range 20 {
		r.write(fmt.Sprintf("small-%d", i), strings.Repeat("s", 300))
	}
	r.write("large", strings.Repeat("l", 5000))
	f := r.open(o)
	defer r.close(f)
	largeAlone := false
	r.once(f, func(obj item.Object) {
		all := f.Outstanding()
		var sum int64
		for _, o := range all {
			a, err := r.store.Stat(t.Context(), o.Bucket, o.Name)
			must(t, err)
			sum += a.Size
		}
		if len(all) > 3 || sum > 1000 && len(all) > 1 {
			t.Errorf("%d objects, %d bytes outstanding", len(all), sum)
		}
		largeAlone = largeAlone || sum == 5000
		r.done(f, o, obj)
	})
	if diff := cmp.Diff(Counts{Uploaded: 21, Done: 21}, f.Counts()); diff != "" {
		t.Error(diff)
	}
	if !largeAlone {
		t.Error("the large file was never seen alone")
	}
}

// What has ended is removed from the bucket when there is too much of it; what
// others uploaded stays.
func TestEviction(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		maxFiles int
		maxBytes int64
		kept     int
	}{
		{"by number", 4, 1 << 20, 4},
		{"by bytes", 100, 1100, 1}, // each has 500 twice, and its manifest
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			o := r.options(ModeFiles)
			o.MaxFiles, o.MaxBytes = tt.maxFiles, tt.maxBytes
			f := r.open(o)
			defer r.close(f)
			theirs := r.upload("theirs", "T")
			f.Track(theirs)
			r.done(f, o, theirs)
			for i := range 10 {
				r.write(fmt.Sprintf("ours-%d", i), strings.Repeat("x", 500))
			}
			r.once(f, func(obj item.Object) { r.done(f, o, obj) })
			if diff := cmp.Diff(Counts{Tracked: 1, Uploaded: 10, Done: 11}, f.Counts()); diff != "" {
				t.Error(diff)
			}
			for _, prefix := range []string{"uploads/", "results/uploads/", "results/.tidemill/manifests/"} {
				list := r.list(prefix)
				if len(list) != tt.kept+1 {
					t.Errorf("below %s stand %q", prefix, list)
				}
			}
			if n := len(r.results()); n != 11 {
				t.Errorf("%d results in OUT", n)
			}
		})
	}
}

func (r *rig) list(prefix string) []string {
	r.t.Helper()
	var list []string
	err := r.store.List(r.t.Context(), testBucket, prefix, func(e bucket.Entry) error {
		list = append(list, e.Name)
		return nil
	})
	must(r.t, err)
	return list
}

// Whoever else writes to uploads/, each version is taken once, and ours replaces
// theirs only with a newer file.
func TestOtherClients(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeStream)
	theirs := r.upload("shared", "theirs")
	r.write("shared", "ours")
	f := r.open(o)
	must(t, f.Run(t.Context(), false))
	f.Track(theirs) // known too late: it has been replaced
	ours := f.Outstanding()
	if len(ours) != 1 || r.read(ours[0]) != "ours" {
		t.Fatalf("outstanding: %v", ours)
	}
	for _, obj := range ours {
		f.Track(obj) // ours: nothing new
	}
	newer := r.upload("shared", "newer")
	f.Track(newer)
	f.Skipped(t.Context(), ours[0])
	r.done(f, o, newer)
	r.done(f, o, newer)
	if diff := cmp.Diff(Counts{Uploaded: 1, Tracked: 1, Done: 1, Skipped: 1}, f.Counts()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"shared": "newer"}, r.results()); diff != "" {
		t.Error(diff)
	}

	// Names that OUT can't take: the result stays in the bucket.
	for _, name := range []string{"a//b", "/abs", "dir/", "../up", bookkeeping + "/journal", strings.Repeat("n", 300)} {
		obj := r.upload(name, "x")
		f.Track(obj)
		r.publishStream(o, obj, "x")
		if err := f.Done(t.Context(), obj); !errors.Is(err, ErrNotMirrored) {
			t.Errorf("%q: %v", name, err)
		}
	}
	odd := item.Object{Bucket: testBucket, Name: "elsewhere/x", Generation: 1}
	f.Track(odd)
	f.Skipped(t.Context(), odd)
	r.close(f)
	// The file is still ours to process.
	if diff := cmp.Diff(Counts{Uploaded: 1, Done: 1}, r.process(o)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"shared": "ours"}, r.results()); diff != "" {
		t.Error(diff)
	}
}

// What another client uploaded beside a result of the same name is refused by
// both names; it takes nothing away.
func TestConflictOfTwoSources(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeStream)
	f := r.open(o)
	defer r.close(f)
	upper, lower := r.upload("a", "1"), r.upload("a/b", "2")
	for _, obj := range []item.Object{upper, lower} {
		f.Track(obj)
		r.publishStream(o, obj, r.read(obj))
	}
	must(t, f.Done(t.Context(), upper))
	err := f.Done(t.Context(), lower)
	if !errors.Is(err, ErrNotMirrored) || !strings.Contains(err.Error(), `a result of "a", stands in the way of "`+r.out+`/a/b", a result of "a/b"`) {
		t.Errorf("error: %v", err)
	}
	if diff := cmp.Diff(map[string]string{"a": "1"}, r.results()); diff != "" {
		t.Error(diff)
	}
}

func TestMissingManifest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.open(r.options(ModeFiles))
	defer r.close(f)
	obj := r.upload("a", "1")
	f.Track(obj)
	if err := f.Done(t.Context(), obj); !errors.Is(err, bucket.ErrNotExist) {
		t.Errorf("error: %v", err)
	}
	if _, err := f.Dead(t.Context(), obj); !errors.Is(err, bucket.ErrNotExist) {
		t.Errorf("error: %v", err)
	}
	if got := f.Outstanding(); !slices.Equal(got, []item.Object{obj}) {
		t.Errorf("outstanding: %v", got)
	}
	f.Unreported(t.Context(), obj)
	if diff := cmp.Diff(Counts{Tracked: 1, Dead: 1}, f.Counts()); diff != "" {
		t.Error(diff)
	}
}
