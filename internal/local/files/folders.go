package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// realFolder returns the absolute path of a folder without symbolic links.
func realFolder(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a folder", path)
	}
	return abs, nil
}

// within reports whether path is dir or lies below it, by identity rather than
// by name: a bind mount or another spelling of a name is the same folder.
func within(path string, dir fs.FileInfo) (bool, error) {
	for {
		info, err := os.Stat(path)
		if err != nil {
			return false, err
		}
		if os.SameFile(info, dir) {
			return true, nil
		}
		up := filepath.Dir(path)
		if up == path {
			return false, nil
		}
		path = up
	}
}

// checkApart refuses folders of which IN would take in results, or of which OUT
// would write over sources. OUT below IN is allowed: the walk leaves it out.
func checkApart(in, out string) error {
	info, err := os.Stat(out)
	if err != nil {
		return err
	}
	inside, err := within(in, info)
	if err != nil {
		return err
	}
	if !inside {
		return nil
	}
	if info, err := os.Stat(in); err == nil {
		if same, err := within(out, info); err == nil && same {
			return fmt.Errorf("the input folder and the output folder are the same, %s: results would overwrite their sources; name another output folder", out)
		}
	}
	return fmt.Errorf("the input folder %s lies below the output folder %s: results could overwrite sources; name another output folder", in, out)
}

// bookkeeping is the name of the folder in OUT that is not a result; if a source
// has that name, a number follows.
const bookkeeping = ".tidemill"

// marker is the file in a bookkeeping folder that says what it is, and whose
// text tells it from a file that happens to have the name.
const (
	marker     = "tidemill-local"
	markerText = "This folder is where tidemill local notes which files are finished.\nIt is safe to delete: everything is then processed again.\n"
)

// candidate returns the n-th name for a bookkeeping folder.
func candidate(n int) string {
	if n == 0 {
		return bookkeeping
	}
	return bookkeeping + "-" + strconv.Itoa(n)
}

// isBookkeeping reports whether the folder name at the top of dir is some run's
// bookkeeping.
func isBookkeeping(dir, name string) bool {
	if name != bookkeeping && !strings.HasPrefix(name, bookkeeping+"-") {
		return false
	}
	path := filepath.Join(dir, name)
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return false
	}
	info, err := os.Lstat(filepath.Join(path, marker))
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(markerText)) {
		return false
	}
	text, err := os.ReadFile(filepath.Join(path, marker))
	return err == nil && string(text) == markerText
}

// occupied reports whether something stands at path. An empty folder does not
// count: a run that was killed at its very start leaves one.
func occupied(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !info.IsDir() {
		return true, err
	}
	entries, err := os.ReadDir(path)
	return len(entries) > 0, err
}

// chooseBookkeeping returns the name to use in out, and the name an earlier run
// used if it is another one: a source has taken it since.
func chooseBookkeeping(in, out string) (name, earlier string, err error) {
	taken := func(name string) (bool, error) { // by a source
		if in == "" || isBookkeeping(in, name) {
			return false, nil
		}
		_, err := os.Lstat(filepath.Join(in, name))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return true, err
	}
	free := ""
	const most = 1000 // a folder with more of these names is not made by accident
	for n := range most {
		c := candidate(n)
		source, err := taken(c)
		if err != nil {
			return "", "", err
		}
		if isBookkeeping(out, c) {
			if !source {
				return c, "", nil
			}
			if earlier == "" {
				earlier = c
			}
			continue
		}
		exists, err := occupied(filepath.Join(out, c))
		if err != nil {
			return "", "", err
		}
		if free == "" && !source && !exists {
			free = c
		}
		// Names are used in order, so behind the first one that nobody has
		// there can't be an earlier run's.
		if !source && !exists {
			return free, earlier, nil
		}
	}
	return "", "", fmt.Errorf("%s has no free name for Tidemill's own folder: %s to %s are all taken", out, candidate(0), candidate(most-1))
}
