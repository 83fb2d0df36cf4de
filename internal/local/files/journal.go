package files

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// entry is a line of the journal: what OUT holds of one path. The last line of a
// path is the one that counts.
//
// Before a set is moved into place, a line without version lists every file that
// may stand until it is complete. A run that finds such a line knows what to
// clear away and that the file must be processed again.
type entry struct {
	Path    string     `json:"path"`
	Key     string     `json:"key,omitempty"`
	Version *version   `json:"version,omitempty"` // nil: not complete, or not from a file in IN
	Results []standing `json:"results,omitempty"` // sorted by path
}

// standing is a result file in OUT.
type standing struct {
	Path string `json:"path"` // below OUT
	Size int64  `json:"size"`
}

func (e *entry) has(p string) bool {
	if e == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(e.Results, p, func(s standing, p string) int { return strings.Compare(s.Path, p) })
	return found
}

// sort puts the results in the order that has needs.
func (e *entry) sort() {
	slices.SortFunc(e.Results, func(a, b standing) int { return strings.Compare(a.Path, b.Path) })
}

// flushEvery bounds how much of the journal a power failure can take. What a
// killed process has appended is safe at once.
const flushEvery = time.Second

// journal is an append-only file of JSON lines.
type journal struct {
	mu      sync.Mutex
	f       *os.File
	torn    bool // the last append did not get through: start a new line
	flushed time.Time
	dirty   bool
}

// openJournal reads the journal and, if it has more lines than paths or a torn
// one, writes it anew.
func openJournal(root *os.Root, name string, say func(string)) (*journal, map[string]*entry, error) {
	saved, clean, err := readJournal(root, name)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if !clean {
		if err := compact(root, name, saved); err != nil {
			return nil, nil, fmt.Errorf("compacting %s: %w", name, err)
		}
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, nil, err
	}
	if len(saved) > 0 {
		say(fmt.Sprintf("%s lists %d finished files of earlier runs", name, len(saved)))
	}
	return &journal{f: f, flushed: time.Now()}, saved, nil
}

// readJournal returns the last entry of each path, and whether the file is as
// short as it can be. Lines that are no entries are left out: a torn one at the
// end is what a killed run leaves, and losing one costs no more than processing
// its file again.
func readJournal(root *os.Root, name string) (saved map[string]*entry, clean bool, err error) {
	saved, clean = map[string]*entry{}, true
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return saved, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = f.Close() }() // read only
	for r := bufio.NewReaderSize(f, 1<<16); ; {
		line, err := r.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, false, err
		}
		if err == io.EOF {
			return saved, clean && len(line) == 0, nil
		}
		e := &entry{}
		if json.Unmarshal(line, e) != nil || e.Path == "" {
			clean = false
			continue
		}
		e.sort() // somebody may have edited it
		if _, again := saved[e.Path]; again {
			clean = false
		}
		saved[e.Path] = e
		if e.empty() {
			delete(saved, e.Path)
			clean = false
		}
	}
}

// empty reports whether the entry says no more than having none.
func (e *entry) empty() bool { return e.Version == nil && len(e.Results) == 0 }

// compact replaces the journal, whole or not at all.
func compact(root *os.Root, name string, saved map[string]*entry) error {
	f, err := root.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // Sync has told what there is to tell
	w := bufio.NewWriterSize(f, 1<<16)
	for _, e := range saved {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return root.Rename(name+".new", name)
}

// add appends an entry in one write.
func (j *journal) add(e *entry) error {
	var line bytes.Buffer
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.torn {
		line.WriteByte('\n')
	}
	if err := json.NewEncoder(&line).Encode(e); err != nil { // ends with a line feed
		return fmt.Errorf("noting %q in the journal: %w", e.Path, err)
	}
	if _, err := j.f.Write(line.Bytes()); err != nil {
		j.torn = true
		return fmt.Errorf("noting %q in the journal: %w", e.Path, err)
	}
	j.torn, j.dirty = false, true
	if time.Since(j.flushed) < flushEvery {
		return nil
	}
	return j.flush()
}

func (j *journal) flush() error {
	if !j.dirty {
		return nil
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("writing the journal to disk: %w", err)
	}
	j.dirty, j.flushed = false, time.Now()
	return nil
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.flush(), j.f.Close())
}
