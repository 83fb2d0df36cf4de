package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// watcher hears of changes below IN. Where the system's limits don't allow that,
// blind is closed and the folder must be scanned from time to time.
type watcher struct {
	notify *fsnotify.Watcher
	log    func(string)

	mu      sync.Mutex
	folders map[string]bool

	once  sync.Once
	blind chan struct{}
}

func newWatcher(start func() (*fsnotify.Watcher, error), log func(string)) *watcher {
	w := &watcher{log: log, folders: map[string]bool{}, blind: make(chan struct{})}
	var err error
	if w.notify, err = start(); err != nil {
		w.giveUp(err)
	}
	return w
}

// add watches one folder, not those below it. Watching a folder again is no error.
func (w *watcher) add(path string) {
	if w.notify == nil {
		return
	}
	// Held over the call: forget must see every watch that exists.
	w.mu.Lock()
	err := w.notify.Add(path)
	if err == nil {
		w.folders[path] = true
	}
	w.mu.Unlock()
	switch {
	case err == nil || vanished(err) || errors.Is(err, fsnotify.ErrClosed):
	case errors.Is(err, syscall.EACCES): // the walk reports it
	default:
		w.giveUp(err)
	}
}

// giveUp says once why changes are looked for instead of waited for.
func (w *watcher) giveUp(err error) {
	w.once.Do(func() {
		hint := ""
		switch {
		case errors.Is(err, syscall.ENOSPC):
			hint = "; raise it with sysctl fs.inotify.max_user_watches=1048576"
			err = errors.New("the system's limit on watched folders is reached")
		case errors.Is(err, syscall.EMFILE):
			hint = "; raise it with sysctl fs.inotify.max_user_instances=1024"
			err = errors.New("the system's limit on watching programs is reached")
		}
		w.log(fmt.Sprintf("can't watch the input folder: %v%s. It is scanned every few seconds instead", err, hint))
		close(w.blind)
	})
}

// forget ends the watches on a folder that was moved or removed and on all below
// it. The system goes on reporting a moved folder, under its old name.
func (w *watcher) forget(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.folders[path] {
		return
	}
	for p := range w.folders {
		if p == path || strings.HasPrefix(p, path+string(filepath.Separator)) {
			delete(w.folders, p)
			_ = w.notify.Remove(p) // fails if the system has dropped it already
		}
	}
}

// listen turns events into jobs and scans until ctx ends.
func (f *Files) listen(ctx context.Context, w *watcher) {
	if w.notify == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			f.heard(w, e)
		case err, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			// Of an overflow, and of anything else that goes wrong here, all
			// that is known is that events may be missing.
			f.o.Log(fmt.Sprintf("watching the input folder: %v; scanning it again", err))
			f.scans.request(".")
		}
	}
}

// heard acts on one event. What kind it was matters little: what stands at the
// path now is looked at.
func (f *Files) heard(w *watcher, e fsnotify.Event) {
	if e.Name == "" { // the library's way to say that an event needs no action
		return
	}
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		w.forget(e.Name)
	}
	rel, err := filepath.Rel(f.in, e.Name)
	if err != nil || rel == "." {
		return
	}
	info, err := os.Lstat(e.Name)
	if err != nil {
		if !vanished(err) {
			f.refuse(rel, unreadable(), err)
		}
		return
	}
	if info.IsDir() {
		f.scans.request(rel)
		return
	}
	if !f.quiet.touch(job{rel: rel}) {
		f.scans.request(".")
	}
}
