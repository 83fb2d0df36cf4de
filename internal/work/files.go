package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/bucket"
	"tidemill/internal/command"
	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/result"
)

// errNoOutput is the command's fault: the directory was there when it began.
var errNoOutput = errors.New("the output directory is gone, or is none any more")

// files runs the command on the object as a local file. Its results are
// written first and become valid with the manifest, which is written last.
func (j *job) files(ctx context.Context, target result.Location) outcome {
	dir, err := os.MkdirTemp(j.WorkDir, "item-")
	if err != nil {
		return j.faulted("making a work directory", err)
	}
	defer j.removeAll(dir)
	// Opened before the command could put a link in its place.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return j.faulted("opening the work directory", err)
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	input, output := filepath.Join(dir, "in", localName(j.lease.Item.Name)), filepath.Join(dir, outDir)
	if err := j.fetch(ctx, input, output); err != nil {
		return j.faulted("fetching the object", err)
	}
	run := j.Command.Run(ctx, j.spec(command.Run{Input: input, Output: output}))
	if run.Cause != command.CauseOK {
		return j.ranWith(run)
	}
	if err := j.publish(ctx, root, target); err != nil {
		o := j.faulted("publishing", err)
		o.run = &run
		return o
	}
	return outcome{kind: queue.Done, run: &run}
}

const outDir = "out"

// publish writes the results and their manifest, and removes what an earlier,
// larger set leaves behind. Where it turns out that newer results stand, it
// removes its own.
func (j *job) publish(ctx context.Context, root *os.Root, target result.Location) error {
	results, err := j.uploadAll(ctx, root)
	if err == nil {
		err = j.confirmBefore(ctx)
	}
	if err != nil {
		j.discard(ctx, results, err)
		return err
	}
	manifest := result.Manifest{
		Version: result.Version, Source: "gs://" + j.lease.Item.Path(), Generation: j.lease.Item.Generation, Run: j.lease.Item.Run,
		Pipeline: j.Pipeline, Worker: j.Name, Attempt: j.lease.Attempt,
		Started: j.started.UTC(), Finished: time.Now().UTC(), Results: results,
	}
	var old []result.File
	_, err = j.put(ctx, write{Location: target, contentType: "application/json", open: asJSON(manifest),
		// Read now and not when the work began: an older generation may have been
		// published in between.
		replacing: func(ctx context.Context, there standing) (err error) {
			old, err = j.resultsOf(ctx, target, there.Generation)
			return err
		}})
	if err != nil {
		j.discard(ctx, results, err)
		return err
	}
	j.removeResults(ctx, old, results)
	return nil
}

// discard removes what this worker has published, where newer results stand
// that will never replace them all.
func (j *job) discard(ctx context.Context, results []result.File, why error) {
	if errors.Is(why, errFenced) {
		j.removeResults(ctx, results, nil)
	}
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

// uploadAll publishes every file in the output directory under its plain name.
// With an error it returns what it had published by then.
func (j *job) uploadAll(ctx context.Context, dir *os.Root) ([]result.File, error) {
	root, err := dir.OpenRoot(outDir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoOutput, err)
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
			return results, err
		}
		attrs, err := j.put(ctx, write{Location: l, open: func() (io.ReadCloser, int64, error) { return openResult(root, path) }})
		if err != nil {
			return results, err
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

// removeResults removes what is in one set and not in another, if it is still
// what was written then. The set that counts stands, so that a failure here only
// leaves rubbish behind.
func (j *job) removeResults(ctx context.Context, set, except []result.File) {
	keep := map[string]bool{}
	for _, f := range except {
		keep[f.URL] = true
	}
	for _, f := range set {
		b, name, ok := strings.Cut(strings.TrimPrefix(f.URL, "gs://"), "/")
		if keep[f.URL] || !ok {
			continue
		}
		err := j.Store.Delete(ctx, b, name, f.Generation)
		if err != nil && !errors.Is(err, bucket.ErrPrecondition) {
			j.log.Warn("could not remove a result that is out of date", zap.String("url", f.URL), zap.Error(err))
		}
	}
}

func (j *job) removeAll(dir string) {
	err := os.RemoveAll(dir)
	if err != nil { // a command may leave directories that it made unwritable
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
		err = os.RemoveAll(dir)
	}
	if err != nil {
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
