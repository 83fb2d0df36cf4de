package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// out is the folder of results. Everything below it goes through root, which
// never follows a symbolic link out of it.
type out struct {
	path string      // real path, for messages and comparisons
	info fs.FileInfo // identity
	root *os.Root
	book string // name of the bookkeeping folder
	lock *os.File
	log  *journal
}

// openOut makes and locks OUT and returns it with what its journal says.
func openOut(in, name string, say func(string)) (*out, map[string]*entry, error) {
	fail := func(err error) (*out, map[string]*entry, error) {
		return nil, nil, fmt.Errorf("opening the output folder: %w", err)
	}
	if err := os.MkdirAll(name, 0o777); err != nil {
		return fail(err)
	}
	real, err := realFolder(name)
	if err != nil {
		return fail(err)
	}
	if in != "" {
		if err := checkApart(in, real); err != nil {
			return nil, nil, err
		}
	}
	o := &out{path: real}
	if o.root, err = os.OpenRoot(real); err != nil {
		return fail(err)
	}
	saved, err := o.prepare(in, say)
	if err != nil {
		return fail(errors.Join(err, o.close()))
	}
	return o, saved, nil
}

func (o *out) prepare(in string, say func(string)) (map[string]*entry, error) {
	var err error
	if o.info, err = o.root.Stat("."); err != nil {
		return nil, err
	}
	// The folder itself is locked, not a file in it: a run must hold the lock
	// before it can tell which bookkeeping folder is the right one.
	if o.lock, err = o.root.Open("."); err != nil {
		return nil, err
	}
	switch err := flock(o.lock); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, fmt.Errorf("another tidemill local is using %s: wait for it, or name another output folder", o.path)
	case err != nil:
		say(fmt.Sprintf("can't lock %s (%v): don't run two at once on it", o.path, err))
	}
	book, earlier, err := chooseBookkeeping(in, o.path)
	if err != nil {
		return nil, err
	}
	if earlier != "" {
		if err := o.root.RemoveAll(book); err != nil { // at most an empty folder
			return nil, err
		}
		if err := o.root.Rename(earlier, book); err != nil {
			return nil, err
		}
	}
	o.book = book
	if err := o.root.MkdirAll(book, 0o777); err != nil {
		return nil, err
	}
	if !isBookkeeping(o.path, book) {
		if err := o.root.WriteFile(path.Join(book, marker), []byte(markerText), 0o666); err != nil {
			return nil, err
		}
	}
	if err := o.root.RemoveAll(o.tmp()); err != nil {
		return nil, err
	}
	if err := o.root.MkdirAll(o.tmp(), 0o777); err != nil {
		return nil, err
	}
	var saved map[string]*entry
	o.log, saved, err = openJournal(o.root, path.Join(book, "journal"), say)
	return saved, err
}

func (o *out) tmp() string { return path.Join(o.book, "tmp") }

// report returns where the failure report of a path stands.
func (o *out) report(rel string) string { return path.Join(o.book, "failures", rel, "report.json") }

// full returns the path of something below OUT as a person would write it.
func (o *out) full(p string) string { return filepath.Join(o.path, p) }

// checkPath reports why p can't be a path below OUT, or nil. Paths come from
// object names and from manifests, which anybody may have written.
func (o *out) checkPath(p string) error {
	switch {
	case !filepath.IsLocal(p) || path.Clean(p) != p || p == "." || strings.ContainsRune(p, 0):
		return fmt.Errorf("%w: %q is not a path inside a folder", ErrNotMirrored, p)
	case first(p) == o.book:
		return fmt.Errorf("%w: %q is where Tidemill keeps its own notes; start again, and it will use another name for them", ErrNotMirrored, o.full(o.book))
	}
	return nil
}

// first returns the first element of a slash-separated path.
func first(p string) string {
	head, _, _ := strings.Cut(p, "/")
	return head
}

func (o *out) close() error {
	var errs []error
	if o.log != nil {
		errs = append(errs, o.log.close())
	}
	if o.lock != nil {
		errs = append(errs, o.lock.Close())
	}
	errs = append(errs, o.root.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the output folder: %w", err)
	}
	return nil
}

// flock takes the lock of an open file for as long as it is open, at once or not
// at all. The kernel lets go of it when the process dies.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
