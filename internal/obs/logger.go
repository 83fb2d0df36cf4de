package obs

import (
	"errors"
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The formats of a logger.
const (
	FormatJSON    = "json"    // one JSON object a line, for Cloud Logging
	FormatConsole = "console" // one short line for a person at a terminal
)

// LogOptions says how a process logs.
type LogOptions struct {
	Service string    // Error Reporting groups by it; required for JSON
	Version string    // of the service; may be empty
	Level   string    // debug, info, warn or error; empty means info
	Format  string    // FormatJSON or FormatConsole; empty means JSON
	Project string    // Google Cloud project that traces belong to; may be empty
	Writer  io.Writer // nil: standard output for JSON, standard error for console
}

// NewLogger returns a logger that is safe for concurrent use and writes each
// entry as one line with one call of the writer. It fails on an unknown level
// or format, and for JSON without a service.
func NewLogger(o LogOptions) (*zap.Logger, error) {
	level, err := parseLevel(o.Level)
	if err != nil {
		return nil, err
	}
	switch o.Format {
	case "", FormatJSON:
		if o.Service == "" {
			return nil, errors.New("making a logger: no service is named; Error Reporting needs one")
		}
		return zap.New(newCloudCore(o, level, lockedWriter(o.Writer, os.Stdout)), zap.AddCaller()), nil
	case FormatConsole:
		return zap.New(&consoleCore{LevelEnabler: level, out: lockedWriter(o.Writer, os.Stderr)}), nil
	}
	return nil, fmt.Errorf("log format %q is unknown: use %s or %s", clip(o.Format), FormatJSON, FormatConsole)
}

func parseLevel(s string) (zapcore.Level, error) {
	switch s {
	case "debug":
		return zapcore.DebugLevel, nil
	case "", "info":
		return zapcore.InfoLevel, nil
	case "warn":
		return zapcore.WarnLevel, nil
	case "error":
		return zapcore.ErrorLevel, nil
	}
	return zapcore.InvalidLevel, fmt.Errorf("log level %q is unknown: use debug, info, warn or error", clip(s))
}

// lockedWriter serializes writes. Files are written unbuffered, and syncing a
// pipe or a terminal is an error (EINVAL) that nobody can act on, so a file's
// Sync is hidden; a buffering writer's is kept.
func lockedWriter(w io.Writer, standard *os.File) zapcore.WriteSyncer {
	if w == nil {
		w = standard
	}
	if f, ok := w.(*os.File); ok {
		w = struct{ io.Writer }{f}
	}
	return zapcore.Lock(zapcore.AddSync(w))
}

// clip shortens a value that is quoted in an error.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
