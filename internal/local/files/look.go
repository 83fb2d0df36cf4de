package files

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tidemill/internal/item"
)

// errRestless marks a file that changed while it was read.
var errRestless = errors.New("the file keeps changing")

// look decides what to do about one path and does it. The error is a fault of
// the bucket, or the end of ctx.
func (f *Files) look(ctx context.Context, j job, watch bool) error {
	if !f.enter(j.rel) {
		f.quiet.again(job{rel: j.rel}) // another job has it; then look at what it left
		return nil
	}
	defer f.leave(j.rel)
	info, ok := f.stat(j.rel)
	if !ok {
		return nil
	}
	at := fingerprintOf(info)
	if f.dealtWith(j.rel, at) {
		return nil
	}
	if err := item.CheckName(f.o.Prefix + j.rel); err != nil {
		f.refuse(j.rel, at, err)
		return nil
	}
	if f.out != nil {
		if err := f.out.checkPath(j.rel); err != nil {
			f.refuse(j.rel, at, err)
			return nil
		}
	}
	if j.at != at && !at.rests(time.Now(), f.o.tuning.quiet) {
		f.postpone(j.rel, at, watch)
		return nil
	}
	if same, err := f.unchanged(j.rel, at); err != nil {
		return f.unread(j.rel, at, err, watch)
	} else if same {
		return nil
	}
	if err := f.upload(ctx, j.rel, at); err != nil {
		return f.unread(j.rel, at, err, watch)
	}
	return nil
}

// enter reserves a path for one job at a time.
func (f *Files) enter(rel string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[rel] {
		return false
	}
	f.busy[rel] = true
	return true
}

func (f *Files) leave(rel string) {
	f.mu.Lock()
	delete(f.busy, rel)
	f.mu.Unlock()
}

func (f *Files) dealtWith(rel string, at fingerprint) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.known[rel]
	return r != nil && r.seen == at
}

// stat describes the file at a path; ok is false if there is none to process.
func (f *Files) stat(rel string) (info fs.FileInfo, ok bool) {
	name := filepath.Join(f.in, rel)
	info, err := os.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return f.follow(rel, name, info)
	}
	switch {
	case err != nil && vanished(err):
	case err != nil:
		f.refuse(rel, unreadable(), err)
	case info.IsDir(): // it took a file's place; whoever made it is heard or walked
	case !info.Mode().IsRegular():
		f.ignore(rel, fingerprintOf(info), kind(info.Mode()))
	default:
		return info, true
	}
	return nil, false
}

// follow describes the file that a symbolic link points to.
func (f *Files) follow(rel, name string, link fs.FileInfo) (fs.FileInfo, bool) {
	info, err := os.Stat(name)
	at := fingerprintOf(link)
	switch {
	case err != nil && vanished(err):
		f.ignore(rel, at, "a symbolic link to nothing")
	case err != nil:
		f.refuse(rel, at, err)
	case info.IsDir():
		f.ignore(rel, at, "a symbolic link to a folder")
	case !info.Mode().IsRegular():
		f.ignore(rel, at, "a symbolic link to "+kind(info.Mode()))
	case f.leadsOut(name):
		f.ignore(rel, at, "a symbolic link into the output folder")
	default:
		return info, true
	}
	return nil, false
}

// leadsOut reports whether a link ends in OUT: its result would be its next input.
func (f *Files) leadsOut(name string) bool {
	if f.out == nil {
		return false
	}
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return false // gone meanwhile; opening it will tell
	}
	inside, err := within(filepath.Dir(target), f.out.info)
	return err == nil && inside
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "not a regular file"
}

// unread deals with a file that could not be read as it stood.
func (f *Files) unread(rel string, at fingerprint, err error, watch bool) error {
	var re *readError
	switch {
	case !errors.As(err, &re):
		return err
	case vanished(re.err):
		return nil
	case errors.Is(re.err, errRestless):
		f.postpone(rel, at, watch)
	default:
		f.refuse(rel, at, re.err)
	}
	return nil
}

// postpone has a file looked at again after a while. A run that is to end can't
// wait for ever.
func (f *Files) postpone(rel string, at fingerprint, watch bool) {
	f.mu.Lock()
	r := f.of(rel)
	if r.restive.IsZero() {
		r.restive = time.Now()
	}
	since := time.Since(r.restive)
	f.mu.Unlock()
	if !watch && since > f.o.tuning.patience {
		f.refuse(rel, at, fmt.Errorf("%w: it was not at rest for %s", errRestless, f.o.tuning.patience))
		return
	}
	f.quiet.again(job{rel: rel, at: at})
}

// unchanged reports whether an earlier run's results of this very version stand.
func (f *Files) unchanged(rel string, at fingerprint) (bool, error) {
	f.mu.Lock()
	var e *entry
	if r := f.known[rel]; r != nil && r.live == nil {
		e = r.saved
	}
	f.mu.Unlock()
	if e == nil || e.Version == nil || e.Key != f.key || !f.out.stand(e.Results) {
		return false, nil
	}
	if e.Version.Source != at {
		if !e.Version.Source.alike(at) {
			return false, nil
		}
		sum, err := f.checksum(rel, at)
		if err != nil || sum != e.Version.CRC32C {
			return false, err
		}
		e = &entry{Path: rel, Key: e.Key, Version: &version{Source: at, CRC32C: sum}, Results: e.Results}
		if err := f.out.log.add(e); err != nil {
			return false, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.of(rel)
	r.saved, r.seen, r.restive = e, at, time.Time{}
	f.counts.Unchanged++
	return true, nil
}

func (f *Files) checksum(rel string, at fingerprint) (uint32, error) {
	src, err := f.open(rel, at)
	if err != nil {
		return 0, err
	}
	defer src.close()
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(sum, src); err != nil {
		return 0, err
	}
	return sum.Sum32(), nil
}

// stand reports whether all results are in OUT with their sizes.
func (o *out) stand(results []standing) bool {
	for _, s := range results {
		info, err := o.root.Lstat(s.Path)
		if err != nil || !info.Mode().IsRegular() || info.Size() != s.Size {
			return false
		}
	}
	return true
}
