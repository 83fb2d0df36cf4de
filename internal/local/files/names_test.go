package files

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
)

func hostileNames() []string {
	return []string{
		"plain", "with space", " leading and trailing ", `quo"te`, "apo'strophe", "tab\there", "bell\a", "esc\x1b[31mred",
		"-rf", "--", "..x", "x..", "...", "..../y", "*", "?", "%2e%2e%2f", "a%b", "#1", "x#123", "y+1",
		"back\\slash", "$(touch pwned)", "`id`", ";ls", "|", "&", "<>", "{object}", "{dir}/{base}", "~", "~root",
		"emoji \U0001f30a", "\u00e9 composed", "e\u0301 decomposed", "\u202e right to left", "\u2028 line separator",
		"\ufeff", "del\x7f", strings.Repeat("n", 255), "deep/" + strings.Repeat("d", 255) + "/" + strings.Repeat("e", 255),
		".hidden", ".well-known/acme-challenge/x", "CON", "trailing.", "a/b/c/d/e/f", "manifest.json", "gs:/x", "\U0010ffff",
	}
}

func TestHostileNames(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModeFiles, ModeStream} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			want := map[string]string{}
			for _, name := range hostileNames() {
				r.write(name, "content of "+name)
				if mode == ModeFiles {
					want[name+"/copy"] = "content of " + name
				} else {
					want[name] = "content of " + name
				}
			}
			n := len(want)
			if diff := cmp.Diff(Counts{Uploaded: n, Done: n}, r.process(r.options(mode))); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(want, r.results()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(Counts{Unchanged: n}, r.process(r.options(mode))); diff != "" {
				t.Errorf("second run: %s", diff)
			}
			if len(r.refused) > 0 {
				t.Errorf("refused: %q", r.refused)
			}
		})
	}
}

func TestRefusedNames(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	long := strings.Repeat(strings.Repeat("l", 249)+"/", 4) + "0123456789abcdef-" // 1,017 bytes, and uploads/
	longest := long[:1016]
	want := map[string]string{
		"line\nfeed":        "the name contains a carriage return or a line feed",
		"carriage\rreturn":  "the name contains a carriage return or a line feed",
		"bad\xff\xfeutf8":   "the name is not valid UTF-8",
		"bad\xed\xa0\x80/x": "the name is not valid UTF-8",
		long:                "the name has 1025 bytes, more than the 1024 that Cloud Storage allows",
	}
	for name := range want {
		r.write(name, "x")
	}
	r.write("fine", "x")
	r.write(longest, "x")
	o := r.options(ModeStream)
	f := r.open(o)
	defer r.close(f)
	var seen []string
	r.once(f, func(obj item.Object) {
		seen = append(seen, strings.TrimPrefix(obj.Name, "uploads/"))
		f.Skipped(t.Context(), obj)
	})
	if diff := cmp.Diff(want, r.refused); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Counts{Uploaded: 2, Skipped: 2, Refused: 5}, f.Counts()); diff != "" {
		t.Error(diff)
	}
	if len(seen) != 2 {
		t.Errorf("uploaded %q", seen)
	}
}

func TestWhatIsNoFile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("real", "r")
	elsewhere := filepath.Join(t.TempDir(), "target")
	write(t, elsewhere, "linked")
	r.write("folder/in it", "f")
	r.write("not a socket", "s")
	write(t, filepath.Join(r.out, "earlier result"), "e")
	links := map[string]string{
		"to a file":   elsewhere,
		"to a folder": filepath.Join(r.in, "folder"),
		"to nothing":  "/nonexistent",
		"to itself":   "to itself",
		"to a result": filepath.Join(r.out, "earlier result"),
		"to a pipe":   "pipe",
		"restless":    "/proc/version", // says that it is empty, and is not
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(r.in, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(r.in, "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	// By a short name: a socket's path is limited to 108 bytes.
	short, err := os.MkdirTemp("/tmp", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	if err := os.Symlink(r.in, filepath.Join(short, "in")); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(short, "in", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	o := r.options(ModeStream)
	o.tuning.patience = 200 * time.Millisecond
	c := r.process(o)
	want := map[string]string{"real": "r", "to a file": "linked", "folder/in it": "f", "not a socket": "s", "earlier result": "e"}
	if diff := cmp.Diff(want, r.results()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Counts{Uploaded: 4, Done: 4, Refused: 2}, c); diff != "" {
		t.Error(diff)
	}
	for _, words := range [][]string{
		{`"to a folder"`, "symbolic link to a folder"}, {`"to nothing"`, "link to nothing"},
		{`"to a result"`, "into the output folder"}, {`"to a pipe"`, "link to a named pipe"},
		{`"pipe"`, "a named pipe"}, {`"socket"`, "a socket"},
	} {
		if !r.logged(words...) {
			t.Errorf("no line of the log says %q: %q", words, r.lines)
		}
	}
	if diff := cmp.Diff([]string{"restless", "to itself"}, names(r.refused)); diff != "" {
		t.Error(diff)
	}
}
