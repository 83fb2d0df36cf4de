package item_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
)

func TestParseID(t *testing.T) {
	t.Parallel()
	object := func(name string, generation int64) item.Object {
		return item.Object{Bucket: "photos", Name: name, Generation: generation}
	}
	for _, c := range []struct {
		id   item.ID
		want item.Object
		run  int
	}{
		{"photos/a.png#1", object("a.png", 1), 0},
		{"photos/a.png#1+2", object("a.png", 1), 2},
		{"photos/dir/a.png#1760000000000001", object("dir/a.png", 1760000000000001), 0},
		{"photos/a#b#7", object("a#b", 7), 0},
		{"photos/a#5+2#7", object("a#5+2", 7), 0},
		{"photos/#7#7", object("#7", 7), 0},
		{"photos/##7+1", object("#", 7), 1},
		{"photos//#7", object("/", 7), 0},
		{"photos/+1#7", object("+1", 7), 0},
		{"photos/ #7", object(" ", 7), 0},
		{"photos/été.png#9223372036854775807", object("été.png", math.MaxInt64), 0},
	} {
		got, run, err := item.ParseID(c.id)
		if err != nil {
			t.Errorf("ParseID(%q): %v", c.id, err)
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" || run != c.run {
			t.Errorf("ParseID(%q): run %d, want %d; object (-want +got):\n%s", c.id, run, c.run, diff)
		}
		if id := (item.Item{Object: got, Run: run}).ID(); id != c.id {
			t.Errorf("ParseID(%q) leads back to %q", c.id, id)
		}
	}
}

func TestParseIDRefuses(t *testing.T) {
	t.Parallel()
	for id, want := range map[item.ID]string{
		"":                             "is not bucket/name#generation",
		"photos":                       "is not bucket/name#generation",
		"photos/a":                     "is not bucket/name#generation",
		"photos#1":                     "is not bucket/name#generation",
		"photos/#1":                    "is not bucket/name#generation",
		"/a#1":                         "is not bucket/name#generation",
		"photos/a#":                    `generation "" is not a positive number`,
		"photos/a#x":                   `generation "x" is not a positive number`,
		"photos/a#0":                   `generation "0" is not a positive number`,
		"photos/a#-1":                  `generation "-1" is not a positive number`,
		"photos/a#9223372036854775808": `is not a positive number`,
		"photos/a#1+":                  `run "" is not a positive number`,
		"photos/a#1+0":                 `run "0" is not a positive number`,
		"photos/a#1+-1":                `run "-1" is not a positive number`,
		"photos/a#1+2+3":               `run "2+3" is not a positive number`,
		"photos/a#007":                 `it is written "photos/a#7"`,
		"photos/a#7+01":                `it is written "photos/a#7+1"`,
		"photos/a#7++1":                `it is written "photos/a#7+1"`,
	} {
		_, _, err := item.ParseID(id)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseID(%q): error %v, want one that says %q", id, err, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"a", "a/b", "/", "//", "a//b", "-rf", "{object}", "a#b", "...", ".a", "a/..", "../a", "\x00", "\t", "日本",
		strings.Repeat("x", item.MaxNameBytes), ".well-known/other",
	} {
		if err := item.CheckName(name); err != nil {
			t.Errorf("CheckName(%.40q): %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"":                                       "empty",
		".":                                      "not an object name",
		"..":                                     "not an object name",
		strings.Repeat("x", item.MaxNameBytes+1): "1025 bytes, more than the 1024",
		strings.Repeat("é", 513):                 "1026 bytes",
		"a\nb":                                   "line feed",
		"a\r":                                    "carriage return",
		"a\xff":                                  "not valid UTF-8",
		".well-known/acme-challenge/x":           "reserved",
	} {
		if err := item.CheckName(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckName(%.40q): error %v, want one that says %q", name, err, want)
		}
	}
}

// Two items never share an ID, and an ID leads back to its item.
func FuzzIDRoundTrip(f *testing.F) {
	f.Add("photos", "dir/a.png", int64(1), 0)
	f.Add("b#", "#1+2#3", int64(math.MaxInt64), math.MaxInt32)
	f.Fuzz(func(t *testing.T, bucket, name string, generation int64, run int) {
		if bucket == "" || strings.Contains(bucket, "/") || item.CheckName(name) != nil || generation <= 0 || run < 0 {
			return
		}
		it := item.Item{Object: item.Object{Bucket: bucket, Name: name, Generation: generation}, Run: run}
		got, gotRun, err := item.ParseID(it.ID())
		if err != nil || got != it.Object || gotRun != run {
			t.Errorf("%q is read as %+v, run %d, error %v; want %+v, run %d", it.ID(), got, gotRun, err, it.Object, run)
		}
	})
}

// Whatever is taken for an ID is exactly what would be written for it.
func FuzzParseID(f *testing.F) {
	for _, id := range []string{"photos/a.png#1", "photos/a#5+2#7+3", "b/n#+5", "b/n#01", "/#1"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		o, run, err := item.ParseID(item.ID(id))
		if err != nil {
			return
		}
		if again := (item.Item{Object: o, Run: run}).ID(); string(again) != id {
			t.Errorf("%q is taken, but written %q", id, again)
		}
		if o.Bucket == "" || o.Name == "" || o.Generation <= 0 || run < 0 {
			t.Errorf("%q gives %+v, run %d", id, o, run)
		}
	})
}
