package files

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// Goroutines of this package must end with their Run. The stand-ins' clients
// leave some of theirs.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil {
		for _, ours := range []string{"/local/files.", "/fsnotify."} {
			if strings.Contains(err.Error(), ours) {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// expect finishes what is uploaded until OUT has exactly these results.
func (r *rig) expect(f *Files, o Options, want map[string]string) {
	r.t.Helper()
	r.until(fmt.Sprintf("OUT has %q", want), func() bool {
		for _, obj := range f.Outstanding() {
			r.done(f, o, obj)
		}
		return cmp.Equal(r.results(), want)
	})
}

func TestWatch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	in := func(name string) string { return filepath.Join(r.in, name) }
	o := r.options(ModeStream)
	r.write("there before", "1")
	r.write("old/sub/file", "2")
	f := r.open(o)
	r.follow(f, o)
	want := map[string]string{"there before": "1", "old/sub/file": "2"}
	r.expect(f, o, want)

	r.write("new", "3")
	want["new"] = "3"
	r.expect(f, o, want)

	r.write("new", "changed")
	want["new"] = "changed"
	r.expect(f, o, want)

	// The way that editors and downloads put a file in place.
	elsewhere := filepath.Join(filepath.Dir(r.in), "moved in")
	write(t, elsewhere, "replaced")
	must(t, os.Rename(elsewhere, in("new")))
	want["new"] = "replaced"
	r.expect(f, o, want)

	r.write("a/b/c/d/e/f/g", "nested")
	want["a/b/c/d/e/f/g"] = "nested"
	r.expect(f, o, want)

	// A moved folder, and what happens in it afterwards. The results under the
	// old names stay.
	must(t, os.Rename(in("old"), in("moved")))
	want["moved/sub/file"] = "2"
	r.expect(f, o, want)
	r.write("moved/sub/file", "after the move")
	r.write("moved/sub/more", "4")
	want["moved/sub/file"], want["moved/sub/more"] = "after the move", "4"
	r.expect(f, o, want)

	// A new folder under the old name.
	r.write("old/sub/file", "again")
	want["old/sub/file"] = "again"
	r.expect(f, o, want)
	r.write("moved/sub/more", "5")
	r.write("old/sub/other", "6")
	want["moved/sub/more"], want["old/sub/other"] = "5", "6"
	r.expect(f, o, want)

	// A folder is removed, comes back as a file, and as a folder again.
	must(t, os.RemoveAll(in("a")))
	r.write("a", "file")
	delete(want, "a/b/c/d/e/f/g")
	want["a"] = "file"
	r.expect(f, o, want)
	must(t, os.Remove(in("a")))
	r.write("a/b", "folder")
	delete(want, "a")
	want["a/b"] = "folder"
	r.expect(f, o, want)

	must(t, os.Symlink("a/b", in("link")))
	want["link"] = "folder"
	r.expect(f, o, want)

	// Nothing in OUT, or in a folder full of names, is missed or taken twice.
	for i := range 70 {
		name := fmt.Sprintf("many/%d/%d", i%7, i)
		r.write(name, name)
		want[name] = name
	}
	r.expect(f, o, want)
	before := f.Counts()
	f.scans.request(".")
	r.write("last", "7")
	want["last"] = "7"
	r.expect(f, o, want)
	before.Uploaded++
	before.Done++
	if diff := cmp.Diff(before, f.Counts()); diff != "" {
		t.Errorf("a scan of what is known took something again: %s", diff)
	}
	if len(r.refused) > 0 {
		t.Errorf("refused: %q", r.refused)
	}
}

// Where the system's limits don't allow watching, changes are found by scanning.
func TestPolling(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeStream)
	o.tuning.poll = 20 * time.Millisecond
	o.tuning.watch = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
	f := r.open(o)
	r.follow(f, o)
	r.write("a/b", "1")
	r.expect(f, o, map[string]string{"a/b": "1"})
	r.write("a/b", "2")
	r.expect(f, o, map[string]string{"a/b": "2"})
	if !r.logged("limit on watching programs", "fs.inotify.max_user_instances", "scanned every few seconds") {
		t.Errorf("log: %q", r.lines)
	}
}

func TestWatchLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := newWatcher(fsnotify.NewWatcher, r.options(ModeStream).Log)
	defer w.notify.Close()
	w.giveUp(fmt.Errorf("adding: %w", syscall.ENOSPC))
	w.giveUp(syscall.EIO)
	<-w.blind
	if !r.logged("limit on watched folders", "fs.inotify.max_user_watches") || len(r.lines) != 1 {
		t.Errorf("log: %q", r.lines)
	}
}

// After lost events, everything is looked at again.
func TestLostEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := r.options(ModeStream)
	f := r.open(o)
	w := newWatcher(fsnotify.NewWatcher, o.Log)
	defer w.notify.Close()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		f.listen(t.Context(), w)
	}()
	w.notify.Errors <- fsnotify.ErrEventOverflow
	select {
	case <-f.scans.wake:
	case <-time.After(time.Minute):
		t.Fatal("no scan was asked for")
	}
	if diff := cmp.Diff([]string{"."}, f.scans.take()); diff != "" {
		t.Error(diff)
	}
	must(t, w.notify.Close())
	<-heard
	r.close(f)
}

func TestScanRequests(t *testing.T) {
	t.Parallel()
	s := newScans()
	s.request("a")
	s.request("a")
	s.request("b")
	if diff := cmp.Diff([]string{"a", "b"}, s.take()); diff != "" {
		t.Error(diff)
	}
	for i := range maxRequests + 10 {
		s.request(fmt.Sprint(i))
	}
	if diff := cmp.Diff([]string{"."}, s.take()); diff != "" {
		t.Error(diff)
	}
}
