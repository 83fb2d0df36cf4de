package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/bucket"
	"tidemill/internal/command"
	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/result"
)

// files runs the command on the object as a local file. Its results are
// written first and become valid with the manifest, which is written last.
func (j *job) files(ctx context.Context) outcome {
	target := j.settings.Results.Manifest(j.lease.Item.Object)
	there, done, err := j.before(ctx, target)
	if err != nil {
		return j.faulted("looking for earlier results", err)
	}
	if done {
		return outcome{kind: queue.Done, reason: "its results stood already"}
	}
	var old result.Manifest
	if there.Generation != 0 {
		if old, err = j.readManifest(ctx, target, there.Generation); err != nil {
			return j.faulted("reading the earlier manifest", err)
		}
	}
	dir, err := os.MkdirTemp(j.WorkDir, "item-")
	if err != nil {
		return j.faulted("making a work directory", err)
	}
	defer j.removeAll(dir)
	input, output := filepath.Join(dir, "in", localName(j.lease.Item.Name)), filepath.Join(dir, "out")
	if err := j.fetch(ctx, input, output); err != nil {
		return j.faulted("fetching the object", err)
	}
	run := j.Command.Run(ctx, j.spec(command.Run{Input: input, Output: output}))
	if run.Cause != command.CauseOK {
		return j.ranWith(run)
	}
	results, err := j.uploadAll(ctx, output)
	if err != nil {
		o := j.faulted("publishing", err)
		o.run = &run
		return o
	}
	if err := j.confirmBefore(ctx); err != nil {
		return j.faulted("confirming the lease", err)
	}
	manifest := result.Manifest{
		Version: result.Version, Source: "gs://" + j.lease.Item.Path(), Generation: j.lease.Item.Generation, Run: j.lease.Item.Run,
		Pipeline: j.Pipeline, Worker: j.Name, Attempt: j.lease.Attempt,
		Started: j.started.UTC(), Finished: time.Now().UTC(), Results: results,
	}
	if _, err := j.put(ctx, target, "application/json", nil, asJSON(manifest)); err != nil {
		return j.faulted("publishing the manifest", err)
	}
	j.removeLeftovers(ctx, old, manifest)
	return outcome{kind: queue.Done, run: &run}
}

// fetch makes the input file and an empty output directory.
func (j *job) fetch(ctx context.Context, input, output string) (err error) {
	for _, d := range []string{filepath.Dir(input), output} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	r, err := j.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	f, err := os.OpenFile(input, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r)
	return err
}

// uploadAll publishes every file below dir under its plain name.
func (j *job) uploadAll(ctx context.Context, dir string) ([]result.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	var files []string
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	results := []result.File{} // a manifest says [], not null
	for _, path := range files {
		l := j.settings.Results.File(j.lease.Item.Object, path)
		if err := j.checkName(l); err != nil {
			return nil, err
		}
		attrs, err := j.put(ctx, l, "", nil, func() (io.ReadCloser, int64, error) { return openResult(root, path) })
		if err != nil {
			return nil, err
		}
		results = append(results, result.File{
			Path: path, URL: l.String(), Generation: attrs.Generation, Size: attrs.Size, CRC32C: attrs.CRC32C,
		})
	}
	return results, nil
}

// openResult opens a file below the output directory. A link that leads out of
// it is refused, and so is what has no content of its own.
func openResult(root *os.Root, path string) (io.ReadCloser, int64, error) {
	info, err := root.Stat(path) // before opening: a FIFO would block
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	var f *os.File
	if err == nil {
		f, err = root.Open(path)
	}
	if err != nil {
		return nil, 0, &permanentError{fmt.Sprintf("result-file: %.200q in the output directory can't be a result: %v", path, err)}
	}
	return f, info.Size(), nil
}

// removeLeftovers removes results of an earlier, larger set. The new manifest
// stands, so that a failure here only leaves rubbish behind.
func (j *job) removeLeftovers(ctx context.Context, old, now result.Manifest) {
	for _, f := range old.Results {
		if slices.ContainsFunc(now.Results, func(n result.File) bool { return n.URL == f.URL }) {
			continue
		}
		b, name, ok := strings.Cut(strings.TrimPrefix(f.URL, "gs://"), "/")
		if !ok {
			continue
		}
		err := j.Store.Delete(ctx, b, name, f.Generation)
		if err != nil && !errors.Is(err, bucket.ErrPrecondition) {
			j.log.Warn("could not remove a result of an earlier run", zap.String("url", f.URL), zap.Error(err))
		}
	}
}

func (j *job) removeAll(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		j.log.Error("could not remove a work directory; the disk may fill up", zap.String("dir", dir), zap.Error(err))
	}
}

// localName is the input's file name: the last part of the object's name, which
// many commands take the type from, if the file system can hold it.
func localName(object string) string {
	base := object[strings.LastIndexByte(object, '/')+1:]
	if base == "" || base == "." || base == ".." || len(base) > 255 || strings.ContainsRune(base, 0) || item.CheckName(base) != nil {
		return "object"
	}
	return base
}
