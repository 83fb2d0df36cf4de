package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tidemill/internal/daemon"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tidemill": func() { os.Exit(daemon.Main(root(), os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "put": put, "sums": sums, "nresults": nresults,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("TMPDIR", e.WorkDir) // the workers' directory is part of what is looked at
			return nil
		},
	})
}

// exits CODE COMMAND... runs a command that must end with that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// put NAME CONTENT makes a file; both are Go strings without their quotes.
func put(ts *testscript.TestScript, _ bool, args []string) {
	var text [2]string
	for i, a := range args {
		s, err := strconv.Unquote(`"` + a + `"`)
		ts.Check(err)
		text[i] = s
	}
	path := ts.MkAbs(text[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, []byte(text[1]), 0o644))
}

// sums IN OUT FILE [N] checks that OUT/<path>/FILE starts with the SHA-256 of
// IN/<path> for N files (default all) and that no result is wrong. With an empty
// FILE the sum is in OUT/<path> itself.
func sums(ts *testscript.TestScript, _ bool, args []string) {
	in, out := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	all, right := 0, 0
	ts.Check(filepath.WalkDir(in, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all++
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(in, path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(out, rel, args[2]))
		if err != nil {
			return nil //nolint:nilerr // counted as missing
		}
		want := sha256.Sum256(content)
		if !strings.HasPrefix(string(got), hex.EncodeToString(want[:])) {
			ts.Fatalf("%q: wrong sum %q", rel, got)
		}
		right++
		return nil
	}))
	want := all
	if len(args) > 3 {
		n, err := strconv.Atoi(args[3])
		ts.Check(err)
		want = n
	}
	if right != want || all == 0 {
		ts.Fatalf("%d of %d sums are right, want %d", right, all, want)
	}
}

// nresults OUT N checks how many files stand in OUT besides the bookkeeping.
func nresults(ts *testscript.TestScript, _ bool, args []string) {
	n := 0
	out := ts.MkAbs(args[0])
	ts.Check(filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path == filepath.Join(out, ".tidemill") {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	}))
	if strconv.Itoa(n) != args[1] {
		ts.Fatalf("%d results, want %s", n, args[1])
	}
}
