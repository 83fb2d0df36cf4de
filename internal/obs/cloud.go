package obs

import (
	"bytes"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// The fields that Cloud Logging and Error Reporting take out of an entry:
// https://cloud.google.com/logging/docs/structured-logging and
// https://cloud.google.com/error-reporting/docs/formatting-error-messages.
const (
	keySeverity = "severity"
	keyMessage  = "message"
	keyTime     = "time"
	keyLogger   = "logger"
	keyPrefix   = "logging.googleapis.com/"
	keyLabels   = keyPrefix + "labels"
	keySource   = keyPrefix + "sourceLocation"
	keyTrace    = keyPrefix + "trace"
	keySpan     = keyPrefix + "spanId"
	keySampled  = keyPrefix + "trace_sampled"
	keyType     = "@type"
	keyService  = "serviceContext"
	keyStack    = "stack_trace"
	keyRequest  = "httpRequest"

	errorEventType = "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent"
)

// cloudCore writes entries in Cloud Logging's structure. An entry is encoded
// in two halves that are joined: the head with what Cloud Logging takes out,
// and the body with the caller's fields. So the special fields stay at the top
// level even when the caller has opened a namespace.
type cloudCore struct {
	zapcore.LevelEnabler
	out     zapcore.WriteSyncer
	pool    buffer.Pool
	head    zapcore.Encoder
	body    zapcore.Encoder // holds the encoded fields of With
	labels  labels
	span    span // zero: none
	service serviceContext
	project string
}

func newCloudCore(o LogOptions, level zapcore.LevelEnabler, out zapcore.WriteSyncer) *cloudCore {
	body := zapcore.EncoderConfig{
		SkipLineEnding: true,
		EncodeTime:     encodeTime,
		EncodeDuration: zapcore.SecondsDurationEncoder,
	}
	head := body
	head.LevelKey, head.EncodeLevel = keySeverity, encodeSeverity
	head.MessageKey, head.TimeKey, head.NameKey = keyMessage, keyTime, keyLogger
	return &cloudCore{
		LevelEnabler: level,
		out:          out,
		pool:         buffer.NewPool(),
		head:         zapcore.NewJSONEncoder(head),
		body:         zapcore.NewJSONEncoder(body),
		service:      serviceContext{o.Service, o.Version},
		project:      o.Project,
	}
}

// With returns a core that adds the fields to every entry.
func (c *cloudCore) With(fields []zapcore.Field) zapcore.Core {
	plain, more, at := split(fields)
	clone := *c
	clone.body = c.body.Clone()
	for _, f := range plain {
		f.AddTo(clone.body)
	}
	clone.labels = c.labels.with(more)
	if at != (span{}) {
		clone.span = at
	}
	return &clone
}

// Check adds the core to the entries of an enabled level.
func (c *cloudCore) Check(ent zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(ent.Level) {
		return ce.AddCore(ent, c)
	}
	return ce
}

// Write writes one line.
func (c *cloudCore) Write(ent zapcore.Entry, fields []zapcore.Field) error {
	plain, more, at := split(fields)
	if at == (span{}) {
		at = c.span
	}
	head, err := c.head.EncodeEntry(ent, c.special(ent, c.labels.with(more), at))
	if err != nil {
		return err
	}
	defer head.Free()
	body, err := c.body.EncodeEntry(zapcore.Entry{}, plain)
	if err != nil {
		return err
	}
	defer body.Free()

	line := c.pool.Get()
	defer line.Free()
	_, _ = line.Write(bytes.TrimSuffix(head.Bytes(), []byte("}"))) // a buffer's Write cannot fail
	if body.Len() > len("{}") {
		line.AppendByte(',')
	}
	_, _ = line.Write(body.Bytes()[1:])
	line.AppendByte('\n')
	if _, err := c.out.Write(line.Bytes()); err != nil {
		return err
	}
	if ent.Level > zapcore.ErrorLevel {
		// The process may be about to end: what is buffered must be out first.
		return c.out.Sync()
	}
	return nil
}

// Sync flushes the writer.
func (c *cloudCore) Sync() error { return c.out.Sync() }

// special returns the fields that Cloud Logging takes out of the entry.
func (c *cloudCore) special(ent zapcore.Entry, ls labels, at span) []zapcore.Field {
	out := make([]zapcore.Field, 0, 8)
	if ent.Caller.Defined {
		out = append(out, zap.Object(keySource, sourceLocation(ent.Caller)))
	}
	if len(ls) > 0 {
		out = append(out, zap.Object(keyLabels, ls))
	}
	if at != (span{}) {
		name := at.trace
		if c.project != "" {
			name = "projects/" + c.project + "/traces/" + at.trace
		}
		out = append(out, zap.String(keyTrace, name), zap.String(keySpan, at.id), zap.Bool(keySampled, at.sampled))
	}
	if ent.Level >= zapcore.ErrorLevel {
		out = append(out, zap.String(keyType, errorEventType), zap.Object(keyService, c.service),
			zap.String(keyStack, stackTrace(ent)))
	}
	return out
}

// split takes labels and spans out of fields. A field whose key Cloud Logging
// would take for its own gets an underscore before it: a second "message" or
// "severity" would hide the first. The slice belongs to the caller and is
// copied where it changes.
func split(fields []zapcore.Field) (plain []zapcore.Field, ls []label, at span) {
	if !slices.ContainsFunc(fields, func(f zapcore.Field) bool {
		return f.Type == zapcore.InlineMarshalerType || reserved(f.Key)
	}) {
		return fields, nil, at
	}
	plain = make([]zapcore.Field, 0, len(fields))
	for _, f := range fields {
		switch v := f.Interface.(type) {
		case label:
			ls = append(ls, v)
			continue
		case span:
			at = v
			continue
		}
		if reserved(f.Key) {
			f.Key = "_" + f.Key
		}
		plain = append(plain, f)
	}
	return plain, ls, at
}

func reserved(key string) bool {
	switch key {
	case keySeverity, keyMessage, keyTime, keyLogger, keyType, keyService, keyStack, keyRequest:
		return true
	}
	return strings.HasPrefix(key, keyPrefix)
}
