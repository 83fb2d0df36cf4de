package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"tidemill/internal/bucket"
	"tidemill/internal/gcp"
	"tidemill/internal/item"
	"tidemill/internal/local/embed"
	"tidemill/internal/queue"
	"tidemill/internal/result"
)

const testBucket = "tide"

// rig is a folder, a place for results, and a bucket that speaks HTTP.
type rig struct {
	t       *testing.T
	in, out string
	store   *gcp.Store

	mu      sync.Mutex
	lines   []string // of the log
	refused map[string]string
	token   int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	services, err := embed.Start(t.Context(), embed.Options{Bucket: testBucket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := services.Close(); err != nil {
			t.Error(err)
		}
	})
	store, err := gcp.NewStore(t.Context(), gcp.WithEndpoint(services.BucketURL))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	r := &rig{t: t, in: filepath.Join(dir, "in"), out: filepath.Join(dir, "out"), store: store, refused: map[string]string{}}
	if err := os.Mkdir(r.in, 0o777); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) options(mode Mode) Options {
	return Options{
		In: r.in, Out: r.out, Mode: mode, Key: "sha256sum",
		Store: r.store, Bucket: testBucket,
		Results:  "gs://tide/results/{object}",
		Failures: "gs://tide/failures/{object}.json",
		Log: func(line string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.lines = append(r.lines, line)
		},
		Refused: func(rel string, reason error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.refused[rel] != "" {
				reason = fmt.Errorf("twice: %w", reason)
			}
			r.refused[rel] = reason.Error()
		},
		tuning: tuning{quiet: 10 * time.Millisecond},
	}
}

func (r *rig) open(o Options) *Files {
	r.t.Helper()
	f, err := Open(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// write makes a file below IN, with the folders it needs.
func (r *rig) write(rel, content string) {
	r.t.Helper()
	write(r.t, filepath.Join(r.in, rel), content)
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

// put writes an object over whatever stands there.
func (r *rig) put(l result.Location, content string, meta map[string]string) bucket.Attrs {
	r.t.Helper()
	var replaces int64
	switch a, err := r.store.Stat(r.t.Context(), l.Bucket, l.Name); {
	case err == nil:
		replaces = a.Generation
	case !errors.Is(err, bucket.ErrNotExist):
		r.t.Fatal(err)
	}
	a, err := r.store.Put(r.t.Context(), l.Bucket, l.Name, strings.NewReader(content),
		bucket.PutOptions{Replaces: replaces, Metadata: meta, Size: int64(len(content))})
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// upload does what another client does: it puts an object below uploads/.
func (r *rig) upload(rel, content string) item.Object {
	a := r.put(result.Location{Bucket: testBucket, Name: "uploads/" + rel}, content, nil)
	return item.Object{Bucket: testBucket, Name: "uploads/" + rel, Generation: a.Generation}
}

// read returns the content of an object, pinned to its generation.
func (r *rig) read(obj item.Object) string {
	r.t.Helper()
	rc, _, err := r.store.Open(r.t.Context(), obj.Bucket, obj.Name, obj.Generation)
	if err != nil {
		r.t.Fatal(err)
	}
	defer rc.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(rc); err != nil {
		r.t.Fatal(err)
	}
	return b.String()
}

// publish does what a worker does with a result set, in mode files.
func (r *rig) publish(o Options, obj item.Object, set map[string]string) {
	r.t.Helper()
	m := result.Manifest{Version: result.Version, Source: "gs://" + obj.Path(), Generation: obj.Generation}
	for name, content := range set {
		a := r.put(o.Results.File(obj, name), content, r.fence(obj))
		m.Results = append(m.Results, result.File{
			Path: name, Generation: a.Generation, Size: int64(len(content)),
			CRC32C: crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli)),
		})
	}
	r.manifest(o, obj, m)
}

func (r *rig) manifest(o Options, obj item.Object, m result.Manifest) {
	r.t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	r.put(o.Results.Manifest(obj), string(data), r.fence(obj))
}

// publishStream does what a worker does with its output, in mode stream.
func (r *rig) publishStream(o Options, obj item.Object, content string) {
	r.t.Helper()
	r.put(o.Results.Expand(obj), content, r.fence(obj))
}

func (r *rig) fence(obj item.Object) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.token++
	return result.FenceOf(item.Item{Object: obj}, queue.Token{Seq: r.token, Nonce: "00000000"}).Metadata()
}

// report does what a worker does with a dead letter.
func (r *rig) report(o Options, obj item.Object, reason string) {
	r.t.Helper()
	data, err := json.Marshal(result.Report{Version: result.Version, Source: "gs://" + obj.Path(), Generation: obj.Generation, Reason: reason})
	if err != nil {
		r.t.Fatal(err)
	}
	r.put(o.Failures.Report(obj), string(data), r.fence(obj))
}

// once uploads everything and has each object finished by finish.
func (r *rig) once(f *Files, finish func(item.Object)) {
	r.t.Helper()
	ran := make(chan error, 1)
	go func() { ran <- f.Run(r.t.Context(), false) }()
	running := true
	r.until("the run ends", func() bool {
		for _, obj := range f.Outstanding() {
			finish(obj)
		}
		select {
		case err := <-ran:
			if err != nil {
				r.t.Fatal(err)
			}
			running = false
		default:
		}
		return !running && len(f.Outstanding()) == 0
	})
}

// process uploads everything and makes one result of each object: its content.
func (r *rig) process(o Options) Counts {
	r.t.Helper()
	f := r.open(o)
	r.once(f, func(obj item.Object) { r.done(f, o, obj) })
	c := f.Counts()
	r.close(f)
	return c
}

func (r *rig) done(f *Files, o Options, obj item.Object) {
	r.t.Helper()
	if o.Mode == ModeStream {
		r.publishStream(o, obj, r.read(obj))
	} else {
		r.publish(o, obj, map[string]string{"copy": r.read(obj)})
	}
	if err := f.Done(r.t.Context(), obj); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close(f *Files) {
	r.t.Helper()
	if err := f.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// follow runs f until the test ends, watching, and finishes what it uploads.
func (r *rig) follow(f *Files, o Options) {
	r.t.Helper()
	ctx, stop := context.WithCancel(r.t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := f.Run(ctx, true); err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(func() {
		stop()
		group.Wait()
		r.close(f)
	})
	select {
	case <-f.Scanned():
	case <-time.After(time.Minute):
		r.t.Fatal("the first scan does not end")
	}
}

// until waits for a condition.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			r.t.Fatalf("waited a minute for: %s\nlog: %q\nrefused: %q", what, r.lines, r.refused)
		}
	}
}

// logged reports whether a line of the log contains all of the words.
func (r *rig) logged(words ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// results returns the files below OUT, bookkeeping left out.
func (r *rig) results() map[string]string { return tree(r.t, r.out, bookkeeping) }

// tree returns the content of the files below dir by path, except below the
// folder not. Links are not followed.
func tree(t *testing.T, dir, not string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		if d.IsDir() && rel == not {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(p)
		found[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func names[V any](m map[string]V) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	sort.Strings(list)
	return list
}
