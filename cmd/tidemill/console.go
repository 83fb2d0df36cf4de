package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"
)

// plainEvery is how often progress is told where there is no terminal.
const plainEvery = 2 * time.Second

// console writes lines for a person, and below them on a terminal one line of
// progress that is written over. It is safe for concurrent use.
type console struct {
	mu       sync.Mutex
	out      io.Writer
	live     bool
	width    func() int
	status   string
	told     string
	toldTime time.Time
}

// newConsole writes to standard error: standard output is for results.
func newConsole() *console {
	fd := int(os.Stderr.Fd())
	return &console{
		toldTime: time.Now(),

		out:  os.Stderr,
		live: term.IsTerminal(fd) && os.Getenv("TERM") != "dumb",
		width: func() int {
			if w, _, err := term.GetSize(fd); err == nil && w > 0 {
				return w
			}
			return 80
		},
	}
}

// Say writes one line. What can't stand in a line is escaped.
func (c *console) Say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	_, _ = fmt.Fprintln(c.out, printable(fmt.Sprintf(format, args...)))
	c.draw()
}

// Status shows progress: at once on a terminal, else now and then as a line, if
// it has changed.
func (c *console) Status(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.live:
		if s != c.status {
			c.clear()
			c.status = s
			c.draw()
		}
	case s != c.told && time.Since(c.toldTime) >= plainEvery:
		c.told, c.toldTime = s, time.Now()
		_, _ = fmt.Fprintln(c.out, s)
	}
}

// End removes the line of progress.
func (c *console) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	c.status = ""
}

func (c *console) clear() {
	if c.live && c.status != "" {
		_, _ = io.WriteString(c.out, "\r\x1b[K")
	}
}

func (c *console) draw() {
	if c.live && c.status != "" {
		s := []rune(c.status)
		if w := c.width() - 1; len(s) > w {
			s = s[:max(0, w)]
		}
		_, _ = io.WriteString(c.out, string(s))
	}
}

// Write passes on what a worker wrote, line by line as far as it comes so.
func (c *console) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		c.Say("%s", strings.TrimRight(line, "\r\n"))
	}
	return len(p), nil
}

// printable keeps a file's name from moving the cursor or faking a line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
}

// tail keeps the last part of what a worker wrote, to be shown if it dies.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if len(t.data) > most {
		t.data = append([]byte(nil), t.data[len(t.data)-most:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}

// amount writes 1 worker, 2 workers.
func amount(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
