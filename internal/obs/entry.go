package obs

import (
	"strconv"
	"time"

	"go.uber.org/zap/zapcore"
)

func encodeTime(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(t.UTC().Format(time.RFC3339Nano))
}

func encodeSeverity(l zapcore.Level, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(severity(l))
}

// severity maps zap's levels to Cloud Logging's. zap's three last ones end the
// program or would in development.
func severity(l zapcore.Level) string {
	switch l {
	case zapcore.DebugLevel:
		return "DEBUG"
	case zapcore.InfoLevel:
		return "INFO"
	case zapcore.WarnLevel:
		return "WARNING"
	case zapcore.ErrorLevel:
		return "ERROR"
	case zapcore.DPanicLevel:
		return "CRITICAL"
	case zapcore.PanicLevel:
		return "ALERT"
	case zapcore.FatalLevel:
		return "EMERGENCY"
	}
	return "DEFAULT"
}

type sourceLocation zapcore.EntryCaller

// MarshalLogObject writes the line as a string: it is an int64 in the API.
func (s sourceLocation) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("file", s.File)
	enc.AddString("line", strconv.Itoa(s.Line))
	enc.AddString("function", s.Function)
	return nil
}

type serviceContext struct{ service, version string }

// MarshalLogObject writes Error Reporting's ServiceContext.
func (s serviceContext) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("service", s.service)
	if s.version != "" {
		enc.AddString("version", s.version)
	}
	return nil
}
