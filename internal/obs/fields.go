package obs

import (
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// label is one entry of Cloud Logging's labels map. As an inline object it is
// an ordinary field to any other core.
type label struct{ key, value string }

// MarshalLogObject adds the label as a plain string.
func (l label) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString(l.key, l.value)
	return nil
}

// Label returns a field that JSON entries carry in Cloud Logging's labels map,
// which is indexed, and console lines as key=value. A later label replaces an
// earlier one of the same key, also across Logger.With. An empty key is
// dropped.
func Label(key, value string) zap.Field {
	if key == "" {
		return zap.Skip()
	}
	return zap.Inline(label{key, value})
}

// labels keeps each key once, in the order of first use. It is copied on
// write, because loggers made by With share their parent's.
type labels []label

// MarshalLogObject adds every label.
func (ls labels) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, l := range ls {
		enc.AddString(l.key, l.value)
	}
	return nil
}

func (ls labels) with(more []label) labels {
	if len(more) == 0 {
		return ls
	}
	merged := make(labels, len(ls), len(ls)+len(more))
	copy(merged, ls)
next:
	for _, l := range more {
		for i := range merged {
			if merged[i].key == l.key {
				merged[i].value = l.value
				continue next
			}
		}
		merged = append(merged, l)
	}
	return merged
}

// span is a place in a trace: 32 and 16 lower-case hexadecimal digits.
type span struct {
	trace, id string
	sampled   bool
}

// MarshalLogObject adds the span for cores that know nothing of traces.
func (s span) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("trace", s.trace)
	enc.AddString("span", s.id)
	return nil
}

// Trace returns a field that ties a JSON entry to the trace that a W3C
// traceparent names. A malformed or empty traceparent gives a field that does
// nothing: it comes from outside, and is no reason to lose a log entry.
// Console lines leave it out.
func Trace(traceparent string) zap.Field {
	s, ok := parseTraceparent(traceparent)
	if !ok {
		return zap.Skip()
	}
	return zap.Inline(s)
}

// parseTraceparent reads version-traceid-parentid-flags as
// https://www.w3.org/TR/trace-context/#traceparent-header defines it. Versions
// after 00 may carry more, separated by a dash.
func parseTraceparent(s string) (span, bool) {
	const size = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return span{}, false
	}
	version, trace, id, flags := s[:2], s[3:35], s[36:52], s[53:55]
	switch {
	case !isHex(version) || !isHex(trace) || !isHex(id) || !isHex(flags):
		return span{}, false
	case version == "ff" || strings.Trim(trace, "0") == "" || strings.Trim(id, "0") == "":
		return span{}, false
	case len(s) > size && (version == "00" || s[size] != '-'):
		return span{}, false
	}
	sampled := strings.IndexByte("13579bdf", flags[1]) >= 0
	return span{trace: trace, id: id, sampled: sampled}, true
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}
