package command

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestSplitter(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", maxLine)
	for _, tc := range []struct {
		name, in string
		want     []string
	}{
		{"none", "", nil},
		{"lines", "a\n\nb\r\nc", []string{"a", "", "b", "c"}},
		{"only an end", "\n", []string{""}},
		{"longest", long + "\nx\n", []string{long, "x"}},
		{"one more", long + "b\nx\n", []string{long + cut, cut + "b", "x"}},
		{"never ends", long + long + "b", []string{long + cut, cut + long + cut, cut + "b"}},
		{"cut beside a character", long[1:] + "é\n", []string{long[1:] + cut, cut + "é"}},
		{"binary", "\xff\xfe\x00a\n\x80", []string{"\uFFFD\x00a", "\uFFFD"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{1, 7, maxLine - 1, 1 << 20} { // bytes per write
				var got []string
				o := &output{log: func(string, string) {}}
				s := &splitter{emitLine: func(l string) { got = append(got, l) }}
				for rest := []byte(tc.in); len(rest) > 0; {
					n := min(size, len(rest))
					o.write(s, rest[:n])
					rest = rest[n:]
				}
				o.end(s)
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Errorf("lines from writes of %d bytes (-want +got):\n%s", size, d)
				}
				if !bytes.Equal(o.last(), []byte(tc.in)) {
					t.Errorf("tail is %q, want the raw text", o.last())
				}
			}
		})
	}
}

func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\nb"), 3)
	f.Add(bytes.Repeat([]byte("\xe2\x82\xac"), 3000), 100)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if size <= 0 {
			size = 1
		}
		s := &splitter{}
		s.emitLine = func(l string) {
			if !utf8.ValidString(l) || strings.Contains(l, "\n") || len(l) > 3*maxLine+2*len(cut) {
				t.Errorf("bad line of %d bytes", len(l))
			}
		}
		o := &output{log: func(string, string) {}}
		for rest := in; len(rest) > 0; {
			n := min(size, len(rest))
			o.write(s, rest[:n])
			rest = rest[n:]
		}
		o.end(s)
		if want := in[max(0, len(in)-TailBytes):]; !bytes.Equal(o.last(), want) {
			t.Errorf("tail has %d bytes, want the last %d of the input", len(o.last()), len(want))
		}
	})
}

func TestTail(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, TailBytes - 1, TailBytes, TailBytes + 1, 3*TailBytes + 5} {
		var all []byte
		var tl tail
		for i := range 300_000 / size * 2 {
			p := bytes.Repeat([]byte{byte(i)}, size-i%3)
			all = append(all, p...)
			tl.write(p)
		}
		if want := all[max(0, len(all)-TailBytes):]; !bytes.Equal(tl.last(), want) {
			t.Errorf("writes of %d bytes: the tail is not the last %d bytes", size, TailBytes)
		}
		if cap(tl.buf) > 4*TailBytes {
			t.Errorf("writes of %d bytes: the tail takes %d bytes", size, cap(tl.buf))
		}
	}
}
