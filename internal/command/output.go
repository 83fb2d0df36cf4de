package command

import (
	"bytes"
	"strings"
	"sync"
	"unicode/utf8"
)

// maxLine is the longest line given to Spec.Log in one piece, in bytes. What is
// kept of a line that never ends is no more than this.
const maxLine = 8 << 10

// cut marks where a line of more than maxLine was split.
const cut = "[...]"

// output collects what a command logs: its lines for Spec.Log, and its tail.
// The two streams arrive on two goroutines.
type output struct {
	log func(stream, line string)

	mu   sync.Mutex
	tail tail
}

// write takes raw bytes of one stream.
func (o *output) write(s *splitter, p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail.write(p)
	if o.log != nil {
		s.write(p)
	}
}

// end gives out the last line of a stream that does not end in a line feed.
func (o *output) end(s *splitter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(s.buf) > 0 {
		s.emit(len(s.buf), false)
	}
}

// last returns a copy of the tail.
func (o *output) last() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail.last()
}

// splitter makes lines of one stream.
type splitter struct {
	emitLine  func(line string)
	buf       []byte
	continues bool // buf is the rest of a line that was split
}

func (s *splitter) write(p []byte) {
	for len(p) > 0 {
		part, _, ended := bytes.Cut(p, []byte{'\n'})
		if room := maxLine - len(s.buf); len(part) > room {
			s.buf = append(s.buf, part[:room]...)
			p = p[room:]
			s.emit(wholeRunes(s.buf), true)
			continue
		}
		s.buf = append(s.buf, part...)
		p = p[len(part):]
		if ended {
			p = p[1:]
			s.emit(len(s.buf), false)
		}
	}
}

// emit gives out the first n bytes of buf and keeps the others.
func (s *splitter) emit(n int, more bool) {
	text := s.buf[:n]
	if !more {
		text = bytes.TrimSuffix(text, []byte{'\r'})
	}
	line := strings.ToValidUTF8(string(text), "\uFFFD")
	if s.continues {
		line = cut + line
	}
	if more {
		line += cut
	}
	s.emitLine(line)
	s.buf = append(s.buf[:0], s.buf[n:]...)
	s.continues = more
}

// wholeRunes returns the length of b without a UTF-8 sequence that is cut off
// at its end, so that splitting a line spoils no character.
func wholeRunes(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

// tail keeps the last TailBytes of what is written to it, in at most twice that.
type tail struct{ buf []byte }

func (t *tail) write(p []byte) {
	if len(p) >= TailBytes {
		t.buf = append(t.buf[:0], p[len(p)-TailBytes:]...)
		return
	}
	if len(t.buf)+len(p) > 2*TailBytes {
		t.buf = t.buf[:copy(t.buf, t.buf[len(t.buf)-TailBytes:])]
	}
	t.buf = append(t.buf, p...)
}

func (t *tail) last() []byte {
	return bytes.Clone(t.buf[max(0, len(t.buf)-TailBytes):])
}
