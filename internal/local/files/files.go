// Package files is the file side of the laptop mode: it uploads a folder to the
// bucket, picks up new and changed files while it runs, and mirrors finished
// results into another folder, with a journal there so that a second run leaves
// unchanged files alone.
//
// The source folder is called IN, the folder of results OUT. A file is named by
// its slash-separated path below IN; its object is Prefix plus that path.
package files

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/semaphore"

	"tidemill/internal/bucket"
	"tidemill/internal/item"
	"tidemill/internal/result"
)

// Mode says how a result set looks in OUT.
type Mode string

// The ways to mirror: see the io key of a pipeline.
const (
	ModeFiles  Mode = "files"  // OUT/<path>/<file> for each file of the set
	ModeStream Mode = "stream" // OUT/<path> is the one result
)

// Options says what to upload and where results go.
type Options struct {
	In  string // folder to upload; empty: only objects that Track names
	Out string // folder for results; empty: nothing is mirrored, and no journal kept
	// Mode must be what the workers run with.
	Mode Mode
	// Key stands for everything that makes a result what it is (the command line
	// and its settings). A file finished under another key is processed again.
	Key string

	Store    bucket.Store
	Bucket   string
	Prefix   string          // of every object made here; default "uploads/"
	Results  result.Template // as the pipeline's settings
	Failures result.Template // as the pipeline's settings

	// MaxFiles and MaxBytes bound what is uploaded and not finished, and what is
	// kept of finished objects. One file larger than MaxBytes goes alone.
	// Defaults: 1,000 files and 512 MiB.
	MaxFiles int
	MaxBytes int64

	// Log receives one line for a person at a time; it may be nil. Refused is
	// called once for each version of a file that can't be processed, or whose
	// result can't be written to OUT; if nil, Log gets a line instead. Both must
	// be safe for concurrent use.
	Log     func(line string)
	Refused func(rel string, reason error)

	tuning tuning
}

// tuning holds what only tests change.
type tuning struct {
	quiet    time.Duration // how long a file must not change before it is read
	patience time.Duration // after which a file that never rests is refused, unless watching
	poll     time.Duration // between scans where the system can't watch the folder
	watch    func() (*fsnotify.Watcher, error)
}

// Counts says what became of files and objects in this run.
type Counts struct {
	Uploaded  int // files uploaded, each version
	Tracked   int // objects uploaded by others
	Done      int // finished, results in OUT
	Dead      int // dead letters
	Skipped   int // superseded by a newer version, or skipped by a worker
	Unchanged int // files not uploaded: an earlier run's results stand
	Refused   int // files that can't be processed, and results that OUT can't take
}

// ErrNotMirrored marks a result that can't be written to OUT for a reason of its
// own (its name, or what stands there). It has been reported and counted as
// refused; other results are not affected.
var ErrNotMirrored = errors.New("the result can't be written")

// Files uploads and mirrors. Its methods are safe for concurrent use.
type Files struct {
	o   Options
	key string // digest of Mode and Key
	in  string // IN as a real path; empty if there is none
	out *out   // nil if nothing is mirrored

	slots *semaphore.Weighted // files uploaded and not finished
	bytes *semaphore.Weighted // their bytes
	quiet *quiet
	scans *scans

	mu       sync.Mutex
	known    map[string]*record       // by path below IN
	busy     map[string]bool          // paths that a job is looking at
	putting  map[string]chan struct{} // paths that are being written to the bucket; closed when they stand
	live     map[item.Object]*upload
	counts   Counts
	finished []finished // oldest first
	kept     int64      // bytes of finished

	seed  maphash.Seed
	names [64]sync.Mutex // by hash of a path: one result of a name at a time
	place sync.Mutex     // held while results are moved into place

	scanned  chan struct{} // closed after the first walk
	scanOnce sync.Once
}

// record is what is known of one path.
type record struct {
	saved   *entry      // what OUT holds of it; nil if nothing is recorded
	seen    fingerprint // version of the file last dealt with in this run
	restive time.Time   // since when it has been changing under the reader; zero if it rests
	stored  int64       // generation that stands in the bucket as far as known; 0 if none
	newest  int64       // generation last uploaded or tracked in this run; 0 if none
	ended   int64       // newest generation whose results stand in this run; 0 if none
	outside bool        // newest was uploaded by another client
	live    *upload     // uploaded, not ended
}

// upload is an object that has not ended.
type upload struct {
	obj     item.Object
	rel     string
	version *version // nil if another client uploaded it
	size    int64
	weight  int64 // held of the byte budget
	busy    bool  // its end is being written
}

func (u *upload) outside() bool { return u.version == nil }

// version identifies the content that was uploaded.
type version struct {
	Source fingerprint `json:"source"`
	CRC32C uint32      `json:"crc32c"`
}

// Open checks the folders, locks OUT against a second run, reads its journal and
// removes what an interrupted run left half written. The error says which folder
// is wrong and why. Close must be called after Run has returned.
func Open(o Options) (*Files, error) {
	if o.Mode != ModeFiles && o.Mode != ModeStream {
		return nil, fmt.Errorf("io mode %q: use %q or %q", o.Mode, ModeFiles, ModeStream)
	}
	defaults(&o)
	sum := sha256.Sum256([]byte(string(o.Mode) + "\x00" + o.Key))
	f := &Files{
		o:       o,
		key:     hex.EncodeToString(sum[:16]),
		slots:   semaphore.NewWeighted(int64(o.MaxFiles)),
		bytes:   semaphore.NewWeighted(o.MaxBytes),
		quiet:   newQuiet(o.tuning.quiet),
		scans:   newScans(),
		known:   map[string]*record{},
		busy:    map[string]bool{},
		putting: map[string]chan struct{}{},
		live:    map[item.Object]*upload{},
		seed:    maphash.MakeSeed(),
		scanned: make(chan struct{}),
	}
	var err error
	if o.In != "" {
		if f.in, err = realFolder(o.In); err != nil {
			return nil, fmt.Errorf("opening the input folder: %w", err)
		}
	}
	if o.Out == "" {
		return f, nil
	}
	var saved map[string]*entry
	if f.out, saved, err = openOut(f.in, o.Out, o.Log); err != nil {
		return nil, err
	}
	for rel, e := range saved {
		f.known[rel] = &record{saved: e}
	}
	return f, nil
}

func defaults(o *Options) {
	if o.Prefix == "" {
		o.Prefix = "uploads/"
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = 1000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 512 << 20
	}
	if o.tuning.quiet <= 0 {
		o.tuning.quiet = 200 * time.Millisecond
	}
	if o.tuning.patience <= 0 {
		o.tuning.patience = time.Minute
	}
	if o.tuning.poll <= 0 {
		o.tuning.poll = 5 * time.Second
	}
	if o.tuning.watch == nil {
		o.tuning.watch = fsnotify.NewWatcher
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.Refused == nil {
		log := o.Log
		o.Refused = func(rel string, reason error) { log(fmt.Sprintf("refused %q: %v", rel, reason)) }
	}
}

// Close writes the journal to disk and lets another run use OUT.
func (f *Files) Close() error {
	if f.out == nil {
		return nil
	}
	return f.out.close()
}

// Counts returns the counts so far.
func (f *Files) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

// Scanned returns a channel that is closed once everything that stood below IN
// when Run began has been looked at and handed to the uploaders.
func (f *Files) Scanned() <-chan struct{} { return f.scanned }

// of returns the record of a path, made if need be. The caller holds f.mu.
func (f *Files) of(rel string) *record {
	r := f.known[rel]
	if r == nil {
		r = &record{}
		f.known[rel] = r
	}
	return r
}

// refuse reports a version of a file that can't be processed, once.
func (f *Files) refuse(rel string, at fingerprint, reason error) {
	f.mu.Lock()
	r := f.of(rel)
	again := r.seen == at
	if !again {
		r.seen, r.restive = at, time.Time{}
		f.counts.Refused++
	}
	f.mu.Unlock()
	if !again {
		f.o.Refused(rel, plain(reason))
	}
}

// ignore logs something that is no file, once.
func (f *Files) ignore(rel string, at fingerprint, what string) {
	f.mu.Lock()
	r := f.of(rel)
	again := r.seen == at
	r.seen = at
	f.mu.Unlock()
	if !again {
		f.o.Log(fmt.Sprintf("ignored %q: it is %s", rel, what))
	}
}

// plain strips the call and the full path from a file system error: the reader
// is told the name beside it.
func plain(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
