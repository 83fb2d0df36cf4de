package files

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
)

func (r *rig) journal() string { return filepath.Join(r.out, bookkeeping, "journal") }

func TestWhatIsProcessedAgain(t *testing.T) {
	t.Parallel()
	old := time.Now().Add(-time.Hour)
	again, same := Counts{Uploaded: 1, Done: 1, Unchanged: 1}, Counts{Unchanged: 2}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, r *rig, o *Options)
		want   Counts
	}{
		{"nothing changed", func(*testing.T, *rig, *Options) {}, same},
		{"a file changed", func(_ *testing.T, r *rig, _ *Options) { r.write("a", "other") }, again},
		{"a file was touched", func(t *testing.T, r *rig, _ *Options) {
			must(t, os.Chtimes(filepath.Join(r.in, "a"), old, old.Add(time.Second)))
		}, again},
		{"its content changed, its times did not", func(t *testing.T, r *rig, _ *Options) {
			r.write("a", "B")
			must(t, os.Chtimes(filepath.Join(r.in, "a"), old, old))
		}, again},
		{"its rights changed", func(t *testing.T, r *rig, _ *Options) {
			must(t, os.Chmod(filepath.Join(r.in, "a"), 0o600))
		}, same},
		{"it was copied with its times", func(t *testing.T, r *rig, _ *Options) {
			must(t, os.Remove(filepath.Join(r.in, "a")))
			r.write("a", "A")
			must(t, os.Chtimes(filepath.Join(r.in, "a"), old, old))
		}, same},
		{"a result is missing", func(t *testing.T, r *rig, _ *Options) {
			must(t, os.Remove(filepath.Join(r.out, "a", "copy")))
		}, again},
		{"a result was cut", func(t *testing.T, r *rig, _ *Options) {
			must(t, os.Truncate(filepath.Join(r.out, "a", "copy"), 0))
		}, again},
		{"a result became a link", func(t *testing.T, r *rig, _ *Options) {
			must(t, os.Rename(filepath.Join(r.out, "a", "copy"), filepath.Join(r.out, "a", "moved")))
			must(t, os.Symlink("moved", filepath.Join(r.out, "a", "copy")))
		}, again},
		{"another command", func(_ *testing.T, _ *rig, o *Options) { o.Key = "wc" }, Counts{Uploaded: 2, Done: 2}},
		{"another mode", func(_ *testing.T, _ *rig, o *Options) { o.Mode = ModeStream }, Counts{Uploaded: 2, Done: 2}},
		{"the journal's end is torn", func(t *testing.T, r *rig, _ *Options) {
			data, err := os.ReadFile(r.journal())
			must(t, err)
			must(t, os.WriteFile(r.journal(), data[:len(data)-7], 0o666))
		}, again},
		{"the journal has a bad line", func(t *testing.T, r *rig, _ *Options) {
			data, err := os.ReadFile(r.journal())
			must(t, err)
			must(t, os.WriteFile(r.journal(), append([]byte("\x00\n\n{}\n"), data...), 0o666))
		}, same},
		{"the journal is gone", func(t *testing.T, r *rig, _ *Options) {
			must(t, os.Remove(r.journal()))
		}, Counts{Uploaded: 2, Done: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for _, name := range []string{"a", "b"} {
				r.write(name, strings.ToUpper(name))
				must(t, os.Chtimes(filepath.Join(r.in, name), old, old))
			}
			o := r.options(ModeFiles)
			r.process(o)
			tt.change(t, r, &o)
			if diff := cmp.Diff(tt.want, r.process(o)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(same, r.process(o)); diff != "" {
				t.Errorf("the run after it: %s", diff)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a run noted before it was killed, between moving two files into place,
// must not pass for a finished set, and must not be forgotten.
func TestKilledWhileMoving(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("a", "A")
	o := r.options(ModeFiles)
	f := r.open(o)
	r.once(f, func(obj item.Object) {
		r.publish(o, obj, map[string]string{"one": "1", "two": "2"})
		must(t, f.Done(t.Context(), obj))
	})
	r.close(f)
	lines := strings.SplitAfter(strings.TrimSuffix(read(t, r.journal()), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("journal: %q", lines)
	}
	must(t, os.WriteFile(r.journal(), []byte(lines[0]), 0o666)) // killed before the second line
	must(t, os.Remove(filepath.Join(r.out, "a", "two")))        // and before the second file
	write(t, filepath.Join(r.out, bookkeeping, "tmp", "LEFTOVER"), "half")
	if diff := cmp.Diff(Counts{Uploaded: 1, Done: 1}, r.process(o)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"a/copy": "A"}, r.results()); diff != "" {
		t.Error(diff)
	}
	if left := tree(t, filepath.Join(r.out, bookkeeping, "tmp"), ""); len(left) > 0 {
		t.Errorf("temporary files are left: %q", names(left))
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	must(t, err)
	return string(data)
}

// A write that fails half way must not spoil the line after it.
func TestJournalAfterFailedWrite(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer root.Close()
	quiet := func(string) {}
	j, _, err := openJournal(root, "journal", quiet)
	must(t, err)
	first := &entry{Path: "first", Results: []standing{{Path: "first/\u2028\"\t", Size: 1 << 40}}}
	must(t, j.add(first))
	_, err = j.f.WriteString(`{"path":"torn`)
	must(t, err)
	j.torn = true
	third := &entry{Path: "third", Key: "k", Version: &version{Source: fingerprint{1, 2, 3, 1 << 63}, CRC32C: 1 << 31}}
	must(t, j.add(third))
	must(t, j.close())
	for range 2 {
		j, saved, err := openJournal(root, "journal", quiet)
		must(t, err)
		must(t, j.close())
		if diff := cmp.Diff(map[string]*entry{"first": first, "third": third}, saved); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add("")
	f.Add(`{"path":"a","key":"k","version":{"source":{"size":1,"mtime":2},"crc32c":3},"results":[{"path":"a/b","size":4}]}` + "\n")
	f.Add("{\"path\":\"a\",\"results\":[{\"path\":\"x\"}]}\n{\"path\":\"a\"}\n{\"path\"")
	f.Add("null\n[]\n\x00\n{\"path\":1}\n")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := os.OpenRoot(t.TempDir())
		must(t, err)
		defer root.Close()
		must(t, root.WriteFile("journal", []byte(text), 0o666))
		j, saved, err := openJournal(root, "journal", func(string) {})
		must(t, err)
		must(t, j.close())
		again, clean, err := readJournal(root, "journal")
		must(t, err)
		if !clean {
			t.Error("opening the journal left it torn, or longer than it must be")
		}
		if diff := cmp.Diff(saved, again); diff != "" {
			t.Error(diff)
		}
	})
}
