package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// batch is how many names of a folder are held at a time: a folder with millions
// of files is walked in little memory.
const batch = 512

// maxRequests bounds the folders that wait for a scan; past it, all of IN is.
const maxRequests = 10_000

// scans collects the folders to be scanned.
type scans struct {
	mu      sync.Mutex
	folders []string
	wake    chan struct{}
}

func newScans() *scans { return &scans{wake: make(chan struct{}, 1)} }

// request asks for a scan of a folder and all below it; "." is IN.
func (s *scans) request(rel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rel == "." || len(s.folders) >= maxRequests {
		s.folders = append(s.folders[:0], ".")
	} else if !slices.Contains(s.folders[max(0, len(s.folders)-8):], rel) && !slices.Equal(s.folders, []string{"."}) {
		s.folders = append(s.folders, rel)
	}
	signal(s.wake)
}

// take returns what was asked for and forgets it.
func (s *scans) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.folders
	s.folders = nil
	return taken
}

// walk sends every file below a folder to jobs and, if w is not nil, has it watch
// each folder before that is read: what is made in between is seen twice, never
// not at all. What can't be read is refused; the rest goes on.
func (f *Files) walk(ctx context.Context, rel string, w *watcher, jobs chan<- job) error {
	dir := filepath.Join(f.in, rel)
	// A link that took the folder's place is not followed.
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		if rel == "." {
			return fmt.Errorf("reading the input folder: %w", err)
		}
		if !vanished(err) {
			f.refuse(rel, unreadable(), fmt.Errorf("the folder can't be read: %w", plain(err)))
		}
		return nil
	}
	defer func() { _ = d.Close() }()
	if skip, err := f.notInput(rel, d); skip || err != nil {
		return err
	}
	if w != nil {
		w.add(dir)
	}
	var below []string
	for {
		entries, err := d.ReadDir(batch)
		for _, e := range entries {
			name := path.Join(rel, e.Name())
			if e.IsDir() {
				below = append(below, name)
				continue
			}
			f.quiet.begin()
			select {
			case jobs <- job{rel: name}:
			case <-ctx.Done():
				f.quiet.done()
				return ctx.Err()
			}
		}
		if len(entries) == 0 {
			if err != nil && err != io.EOF && !vanished(err) {
				f.refuse(rel, unreadable(), fmt.Errorf("the folder can't be read: %w", plain(err)))
			}
			break
		}
	}
	_ = d.Close() // before going down: depth must not cost descriptors
	for _, name := range below {
		if err := f.walk(ctx, name, w, jobs); err != nil {
			return err
		}
	}
	return nil
}

// notInput reports whether an open folder is OUT or some run's bookkeeping.
func (f *Files) notInput(rel string, d *os.File) (bool, error) {
	if rel == "." {
		return false, nil
	}
	if path.Dir(rel) == "." && isBookkeeping(f.in, rel) {
		return true, nil
	}
	if f.out == nil {
		return false, nil
	}
	info, err := d.Stat()
	if err != nil {
		return false, fmt.Errorf("reading the input folder: %w", err)
	}
	return os.SameFile(info, f.out.info), nil
}

// vanished reports whether err says that there is no such thing, any more.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
