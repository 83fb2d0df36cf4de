package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"tidemill/internal/item"
)

// rel returns where an object stands below IN, or would.
func (f *Files) rel(obj item.Object) string {
	rel, ok := strings.CutPrefix(obj.Name, f.o.Prefix)
	if !ok || obj.Bucket != f.o.Bucket {
		return "../" + obj.Path() // nowhere: refused as a path
	}
	return rel
}

// write brings a result set to OUT: first all of it into temporary files, then
// each under its name. Nothing half written ever stands under a result's name.
func (f *Files) write(ctx context.Context, u *upload, s set) error {
	if f.out == nil {
		return nil
	}
	if err := f.out.checkSet(u.rel, s.parts); err != nil {
		return err
	}
	temps := make([]string, 0, len(s.parts))
	defer func() {
		for _, t := range temps {
			_ = f.out.root.Remove(t) // those that were moved are not there
		}
	}()
	for _, p := range s.parts {
		temp := path.Join(f.out.tmp(), rand.Text())
		temps = append(temps, temp)
		if err := f.download(ctx, p, temp); err != nil {
			return fmt.Errorf("%q: %w", f.out.full(p.path), err)
		}
	}
	f.place.Lock()
	defer f.place.Unlock()
	if err := f.moveIn(u, s.parts, temps); err != nil {
		return err
	}
	if err := f.out.removeReport(u.rel); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.of(u.rel)
	r.ended = max(r.ended, u.obj.Generation)
	return nil
}

// checkSet refuses paths that lead elsewhere, and sets that no folder can hold.
func (o *out) checkSet(rel string, parts []part) error {
	if err := o.checkPath(rel); err != nil {
		return err
	}
	names := map[string]bool{}
	for _, p := range parts {
		if err := o.checkPath(p.path); err != nil {
			return err
		}
		if names[p.path] {
			return fmt.Errorf("%w: the set has two files %q", ErrNotMirrored, p.path)
		}
		names[p.path] = true
	}
	for _, p := range parts {
		for up := path.Dir(p.path); up != "."; up = path.Dir(up) {
			if names[up] {
				return fmt.Errorf("%w: the set has %q both as a file and as a folder", ErrNotMirrored, up)
			}
		}
	}
	return nil
}

// download writes one result to a new file and checks it.
func (f *Files) download(ctx context.Context, p part, temp string) error {
	r, _, err := f.o.Store.Open(ctx, p.at.bucket, p.at.name, p.at.generation)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := f.out.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.Copy(io.MultiWriter(w, sum), r)
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	if n != p.size || sum.Sum32() != p.sum {
		return fmt.Errorf("gs://%s/%s#%d has %d bytes with CRC32C %08x, its manifest says %d with %08x",
			p.at.bucket, p.at.name, p.at.generation, n, sum.Sum32(), p.size, p.sum)
	}
	return nil
}

// moveIn gives the temporary files their names, removes what an older set has
// besides, and notes the set. The caller holds f.place.
func (f *Files) moveIn(u *upload, parts []part, temps []string) error {
	next := &entry{Path: u.rel, Version: u.version}
	if u.version != nil {
		next.Key = f.key
	}
	for _, p := range parts {
		next.Results = append(next.Results, standing{Path: p.path, Size: p.size})
	}
	next.sort()
	room, err := f.plan(u.rel, next.Results)
	if err != nil {
		return err
	}
	f.mu.Lock()
	before := f.of(u.rel).saved
	f.mu.Unlock()
	var left []standing
	if before != nil {
		left = slices.DeleteFunc(slices.Clone(before.Results), func(s standing) bool { return next.has(s.Path) })
	}
	// What may stand from here on, should this be cut short.
	partly := &entry{Path: u.rel, Results: slices.Concat(next.Results, left)}
	partly.sort()
	if err := f.note(partly); err != nil {
		return err
	}
	if err := f.clear(room); err != nil {
		return err
	}
	for i, p := range parts {
		if err := f.out.move(temps[i], p.path); err != nil {
			return err
		}
	}
	for _, s := range left {
		if err := f.out.remove(s.Path); err != nil {
			return err
		}
	}
	return f.note(next)
}

// note makes e what is known of its path.
func (f *Files) note(e *entry) error {
	if err := f.out.log.add(e); err != nil {
		return err
	}
	f.mu.Lock()
	f.of(e.Path).saved = e
	f.mu.Unlock()
	return nil
}

func (o *out) move(temp, name string) error {
	if err := o.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return fmt.Errorf("making the folder of %q: %w", o.full(name), err)
	}
	if err := o.root.Rename(temp, name); err != nil {
		return fmt.Errorf("writing %q: %w", o.full(name), err)
	}
	return nil
}

// remove removes a result file that no set has any more, and the folders that
// are empty without it. Whatever else has taken its place stays.
func (o *out) remove(name string) error {
	if info, err := o.root.Lstat(name); err == nil && info.Mode().IsRegular() {
		if err := o.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the old result %q: %w", o.full(name), err)
		}
		o.prune(path.Dir(name), ".")
	}
	return nil
}

// prune removes empty folders from dir upwards, top excluded.
func (o *out) prune(dir, top string) {
	for ; dir != top && dir != "."; dir = path.Dir(dir) {
		if o.root.Remove(dir) != nil { // not empty, mostly
			return
		}
	}
}

// saveReport writes a failure report to the bookkeeping folder.
func (o *out) saveReport(rel string, data []byte) error {
	name := o.report(rel)
	// A file may have become a folder, or the reverse. Both reports can't stand,
	// and only the newer has a file that exists.
	for up := path.Dir(name); up != o.book; up = path.Dir(up) {
		if info, err := o.root.Lstat(up); err == nil && !info.IsDir() {
			if err := o.root.Remove(up); err != nil {
				return err
			}
		}
	}
	if info, err := o.root.Lstat(name); err == nil && info.IsDir() {
		if err := o.root.RemoveAll(name); err != nil {
			return err
		}
	}
	temp := path.Join(o.tmp(), rand.Text())
	if err := o.root.WriteFile(temp, data, 0o666); err != nil {
		return err
	}
	return o.move(temp, name)
}

// removeReport removes the failure report of a path, if there is one.
func (o *out) removeReport(rel string) error {
	name := o.report(rel)
	// A folder of its name belongs to another path's report.
	if info, err := o.root.Lstat(name); err == nil && !info.IsDir() {
		if err := o.root.Remove(name); err != nil {
			return fmt.Errorf("removing the failure report: %w", err)
		}
		o.prune(path.Dir(name), path.Join(o.book, "failures"))
	}
	return nil
}
