package obs

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap/zapcore"
)

// consoleCore writes "level  message key=value" for a person. No value can end
// the line, move the cursor or pass for another field.
type consoleCore struct {
	zapcore.LevelEnabler
	out     zapcore.WriteSyncer
	context string // the formatted fields of With
	prefix  string // open namespaces, each with a dot
}

// With returns a core that adds the fields to every line.
func (c *consoleCore) With(fields []zapcore.Field) zapcore.Core {
	clone := *c
	var b strings.Builder
	clone.prefix = appendFields(&b, c.prefix, fields)
	clone.context += b.String()
	return &clone
}

// Check adds the core to the entries of an enabled level.
func (c *consoleCore) Check(ent zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(ent.Level) {
		return ce.AddCore(ent, c)
	}
	return ce
}

// Write writes one line.
func (c *consoleCore) Write(ent zapcore.Entry, fields []zapcore.Field) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-5s  ", ent.Level)
	if ent.LoggerName != "" {
		b.WriteString(escape(ent.LoggerName) + ": ")
	}
	b.WriteString(escape(ent.Message))
	b.WriteString(c.context)
	appendFields(&b, c.prefix, fields)
	b.WriteByte('\n')
	if _, err := c.out.Write([]byte(b.String())); err != nil {
		return err
	}
	if ent.Level > zapcore.ErrorLevel {
		return c.out.Sync()
	}
	return nil
}

// Sync flushes the writer.
func (c *consoleCore) Sync() error { return c.out.Sync() }

// appendFields writes " key=value" for each field and returns the prefix that
// holds after them.
func appendFields(b *strings.Builder, prefix string, fields []zapcore.Field) string {
	for _, f := range fields {
		if f.Type == zapcore.NamespaceType {
			prefix += f.Key + "."
			continue
		}
		if _, ok := f.Interface.(span); ok {
			continue // 32 digits that only a trace viewer can use
		}
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for _, key := range slices.Sorted(maps.Keys(enc.Fields)) {
			b.WriteString(" " + quote(prefix+key) + "=" + quote(text(enc.Fields[key])))
		}
	}
	return prefix
}

// text returns a field's value as a person would write it.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case time.Duration:
		return v.String()
	case map[string]any, []any:
		if data, err := json.Marshal(v); err == nil {
			return string(data)
		}
	}
	return fmt.Sprint(v)
}

// quote puts a value in Go's quotes where it would be unclear without.
func quote(s string) string {
	if s == "" || strings.ContainsAny(s, " \"=\\") || escape(s) != s {
		return strconv.Quote(s)
	}
	return s
}

// escape replaces what a terminal would not show as itself by Go's escape
// sequences: control characters, invisible formatting, invalid UTF-8.
func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += size
	}
	return b.String()
}
