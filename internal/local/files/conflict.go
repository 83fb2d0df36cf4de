package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// room is what has to go for a set to stand: results whose source is gone, or of
// the same path's older set.
type room struct {
	files   []string
	folders []string            // each behind what lies in it
	others  map[string][]string // results that other paths lose, by path
}

// plan finds what stands in the way of a path's new results. Nothing is removed
// that is not noted as a result, and nothing whose source still exists. The
// caller holds f.place.
func (f *Files) plan(rel string, results []standing) (room, error) {
	r := room{others: map[string][]string{}}
	for _, s := range results {
		if err := f.planOne(rel, s.Path, &r); err != nil {
			if errors.Is(err, syscall.ENAMETOOLONG) {
				err = fmt.Errorf("%w: %q: %w", ErrNotMirrored, f.out.full(s.Path), plain(err))
			}
			return r, err
		}
	}
	return r, nil
}

func (f *Files) planOne(rel, p string, r *room) error {
	for _, up := range parents(p) {
		info, err := f.out.root.Lstat(up)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // nothing further down either
		case err != nil:
			return err
		case info.IsDir():
		case info.Mode()&fs.ModeSymlink != 0:
			if to, err := f.out.root.Stat(up); err != nil || !to.IsDir() {
				return fmt.Errorf("%w: %q must be a folder for %q, but is a symbolic link that does not end in one below %q; remove it",
					ErrNotMirrored, f.out.full(up), p, f.out.path)
			}
		default:
			return f.planFile(rel, p, up, r)
		}
	}
	info, err := f.out.root.Lstat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return f.planFolder(rel, p, p, r)
	}
	// A file that nobody claims is replaced, as any copy would.
	return f.mayTake(rel, p, p, r)
}

// parents returns the folders that p needs, the uppermost first.
func parents(p string) []string {
	var ups []string
	for i := range len(p) {
		if p[i] == '/' {
			ups = append(ups, p[:i])
		}
	}
	return ups
}

// planFile makes room where a file stands instead of a folder.
func (f *Files) planFile(rel, p, inWay string, r *room) error {
	if len(f.owners(inWay)) == 0 {
		return fmt.Errorf("%w: %q must be a folder for %q, but is a file that Tidemill did not write; remove it",
			ErrNotMirrored, f.out.full(inWay), p)
	}
	if err := f.mayTake(rel, p, inWay, r); err != nil {
		return err
	}
	if !slices.Contains(r.files, inWay) {
		r.files = append(r.files, inWay)
	}
	return nil
}

// planFolder makes room where a folder stands instead of the file p.
func (f *Files) planFolder(rel, p, folder string, r *room) error {
	d, err := f.out.root.Open(folder)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	_ = d.Close()
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := folder + "/" + e.Name()
		if e.IsDir() {
			err = f.planFolder(rel, p, name, r)
		} else if len(f.owners(name)) == 0 {
			err = fmt.Errorf("%w: %q must be a file, but is a folder with %q in it, which Tidemill did not write; remove it",
				ErrNotMirrored, f.out.full(p), f.out.full(name))
		} else if err = f.mayTake(rel, p, name, r); err == nil {
			r.files = append(r.files, name)
		}
		if err != nil {
			return err
		}
	}
	r.folders = append(r.folders, folder)
	return nil
}

// mayTake notes that name is no longer the result of any other path, or reports
// that it has to stay one.
func (f *Files) mayTake(rel, p, name string, r *room) error {
	for _, owner := range f.owners(name) {
		if owner == rel {
			continue
		}
		if !f.gone(owner) {
			return fmt.Errorf("%w: %q, a result of %q, stands in the way of %q, a result of %q",
				ErrNotMirrored, f.out.full(name), owner, f.out.full(p), rel)
		}
		r.others[owner] = append(r.others[owner], name)
	}
	return nil
}

// owners returns the paths of which p is a result: p itself or folders above it.
func (f *Files) owners(p string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var owners []string
	for _, rel := range append(parents(p), p) {
		if r := f.known[rel]; r != nil && r.saved.has(p) {
			owners = append(owners, rel)
		}
	}
	return owners
}

// gone reports whether a path has no source: its file was removed or became a
// folder. What another client uploaded in this run still has one.
func (f *Files) gone(rel string) bool {
	f.mu.Lock()
	r := f.known[rel]
	outside := r != nil && r.outside
	f.mu.Unlock()
	if outside {
		return false
	}
	if f.in == "" {
		return true
	}
	info, err := os.Stat(filepath.Join(f.in, rel))
	return err != nil && vanished(err) || err == nil && info.IsDir()
}

// clear carries out a plan. Files go before the journal says so: it may list
// what is not there, but must not miss what is.
func (f *Files) clear(r room) error {
	for _, name := range append(r.files, r.folders...) {
		if err := f.out.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("making room: removing %q: %w", f.out.full(name), err)
		}
	}
	for owner, lost := range r.others {
		f.mu.Lock()
		saved := f.of(owner).saved
		f.mu.Unlock()
		kept := slices.DeleteFunc(slices.Clone(saved.Results), func(s standing) bool { return slices.Contains(lost, s.Path) })
		if err := f.note(&entry{Path: owner, Results: kept}); err != nil {
			return err
		}
	}
	return nil
}
